# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`arvados-nats publishers push-log` as a process, fed through a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from sandbox.model.actors import Actor
from sandbox.stack import Stack


@contextlib.asynccontextmanager
async def push_log(
    stack: Stack, actor: Actor | None, container_uuid: str, spool: Path, *options: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command with a pipe as its standard input; killed at the end if it still runs."""
    environment = {key: value for key, value in os.environ.items() if "ARVADOS" not in key}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "arvados_nats", "publishers", "push-log"),
        *("-c", container_uuid, "-f", "stdout.txt", *options),
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            **environment,
            "ARVADOS_API_TOKEN": actor.token if actor else "",
            "ARVADOS_NATS_NATS_URL": stack.sandbox.nats.url,
            "ARVADOS_NATS_PUSH_SPOOL": str(spool),
            "ARVADOS_NATS_PUSH_LINGER_SECONDS": "5",
        },
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def write(process: asyncio.subprocess.Process, data: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(data)
    await process.stdin.drain()


async def close(process: asyncio.subprocess.Process) -> int:
    """End the input; the exit code."""
    assert process.stdin is not None
    process.stdin.close()
    return await process.wait()
