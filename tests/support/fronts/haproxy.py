# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""An HAProxy that compresses what it passes on, as a site may have set it up."""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from sandbox import child, ports

_CONF = """
defaults
  mode http
  timeout connect 10s
  timeout client 60s
  timeout server 60s
  compression algo gzip
  compression type text/event-stream text/plain application/json
listen site
  bind 127.0.0.1:{port}
  server wsproxy {behind}
"""


@contextlib.asynccontextmanager
async def in_front(behind: str, folder: Path) -> AsyncIterator[str]:
    """The address of an HAProxy that passes everything to `behind`."""
    program = shutil.which("haproxy")
    if program is None:
        pytest.skip("no HAProxy on this machine: apt-get install haproxy")
    port = next(port for port in ports.candidates() if ports.is_free(port))
    conf = folder / "haproxy.conf"
    conf.write_text(_CONF.format(port=port, behind=urlsplit(behind).netloc))
    running = child.start([program, "-db", "-f", str(conf)], log=folder / "haproxy.out")
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient(base_url=url) as http:
            await child.ready(running, lambda: _answers(http), 10)
        yield url
    finally:
        await running.stop(signal.SIGTERM)


async def _answers(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/")).status_code < 500
    except httpx.HTTPError:
        return False
