# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Programs of others that stand in front of a server, each on a port of its own."""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from sandbox.servers import child, ports


@contextlib.asynccontextmanager
async def running(
    name: str, package: str, folder: Path, conf: Callable[[int], str], *options: str
) -> AsyncIterator[str]:
    """The address of the program `name`, once it answers.

    `conf` gives its configuration for a port, `options` are what it is called with before
    the name of that file. Skips the test where the program is not there.
    """
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"no {name} on this machine: apt-get install {package}")
    port = next(ports.candidates())
    file = folder / f"{name}.conf"
    file.write_text(conf(port))
    started = child.start([program, *options, str(file)], log=folder / f"{name}.out")
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient(base_url=url) as http:
            await child.ready(started, lambda: _answers(http), 10)
        yield url
    finally:
        await started.stop(signal.SIGTERM)


async def _answers(http: httpx.AsyncClient) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        await http.get("/")
        return True
    return False
