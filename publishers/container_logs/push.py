# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Push a log file from a compute node as it is written, instead of having it read.

Reads bytes from a pipe, keeps them on disk until NATS has them, and writes them to the stream as
the container itself, at their offset in the file. Where the file stands is asked of the
stream, so a restart, a lost acknowledgement or a log publisher that has read ahead neither doubles
nor misses a byte; bytes that there was no room for are left to the log publisher, which reads them
when the push stands still.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from arvados_nats.arvados.tokens import Token
from arvados_nats.contract import subjects
from arvados_nats.contract.log_chunks import MAX_CHUNK_BYTES, Chunk, cut
from arvados_nats.errors import Refused, Unavailable
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Nats
from publishers.container_logs.file import Stored
from publishers.container_logs.writer import Fenced, LogWriter
from publishers.pipes.pipe import Pipe

logger = logging.getLogger(__name__)

_LINE_PATIENCE = 0.25
_GAP_PATIENCE = 1.0
_RECONNECT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Target:
    """Which file is pushed, where to, and as whom."""

    servers: list[str]
    token: Token
    container_uuid: str
    file: str
    ca_file: str | None = None


async def push(target: Target, pipe: Pipe) -> None:
    """Send what the pipe holds until it is closed and all of it is in the stream."""
    done = False
    while not done:
        try:
            async with _connected(target) as nats:
                await send(nats, target, pipe)
            done = True
        except* (Refused, Unavailable) as errors:
            logger.warning(
                "log cannot be pushed now",
                extra={"action": "push.wait", "error": str(errors.exceptions[0])},
            )
            await asyncio.sleep(_RECONNECT_SECONDS)


@asynccontextmanager
async def _connected(target: Target) -> AsyncIterator[Nats]:
    """A connection with the container's token; when it ends for good, so does the block."""
    async with (
        nats_client.connect(
            target.servers,
            name=f"arvados-nats push-log {target.container_uuid}",
            token=target.token.secret,
            inbox_prefix=subjects.inbox_prefix(target.token.uuid or ""),
            ca_file=target.ca_file,
        ) as nats,
        asyncio.TaskGroup() as tasks,
    ):
        watching = tasks.create_task(nats.until_closed())
        yield nats
        watching.cancel()


async def send(nats: Nats, target: Target, pipe: Pipe) -> None:
    """`push` on a connection that is there; Unavailable when the stream cannot be asked."""
    writer = LogWriter(nats, target.container_uuid)
    last = await writer.last(target.file)
    while True:
        pipe.spool.discard(last.offset)
        if pipe.closed and last.offset >= pipe.spool.end:
            return
        data = await _take(pipe, last.offset)
        last = await _append(writer, target, last, data)


async def _append(writer: LogWriter, target: Target, last: Stored, data: bytes) -> Stored:
    """Write after `last`, or look where the file stands; where it stands then."""
    if not data:
        return await writer.last(target.file)
    chunk = Chunk(target.container_uuid, target.file, last.epoch, last.offset, data, pushed=True)
    try:
        await writer.append(chunk)
    except Fenced as fenced:
        return fenced.last
    return Stored(last.sequence, chunk.epoch, chunk.end, pushed=True)


async def _take(pipe: Pipe, offset: int) -> bytes:
    """The next bytes from `offset`, whole lines if one ends soon; none at the end.

    None also, after a while, where there was no room for them.
    """
    await pipe.until_beyond(offset)
    data = pipe.spool.read(offset, MAX_CHUNK_BYTES + 1)
    if not data and offset < pipe.spool.end:
        await asyncio.sleep(_GAP_PATIENCE)
    if data and b"\n" not in data and len(data) <= MAX_CHUNK_BYTES:
        await _line_end(pipe, offset + len(data))
        data = pipe.spool.read(offset, MAX_CHUNK_BYTES + 1)
    if len(data) > MAX_CHUNK_BYTES:
        return cut(data)[0]
    lines = data.rfind(b"\n") + 1
    return data[:lines] if lines else data


async def _line_end(pipe: Pipe, offset: int) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINE_PATIENCE):
            await pipe.until_beyond(offset)
