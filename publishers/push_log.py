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
import functools
import logging
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from arvados_nats import nats_client, subjects
from arvados_nats.errors import Refused, Unavailable
from arvados_nats.log_chunks import MAX_CHUNK_BYTES, Chunk, cut
from arvados_nats.nats_client import Nats
from arvados_nats.tokens import Token
from publishers.cancelled import raise_if_cancelled
from publishers.log_file import Stored
from publishers.log_writer import Fenced, LogWriter
from publishers.push_spool import Spool

logger = logging.getLogger(__name__)

_READ_BYTES = 64 * 1024
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


class Pipe:
    """What came in by a pipe and is not in the stream yet."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.closed = False
        self._news = asyncio.Event()

    async def fill(self, source: int) -> None:
        """Read a file descriptor to its end."""
        async with _opened(source) as read:
            while data := await read():
                if not self.spool.append(data):
                    logger.warning(
                        "no room for log bytes, the log publisher has to read them",
                        extra={"action": "push.no_room", "bytes": len(data)},
                    )
                self._news.set()
        self.closed = True
        self._news.set()

    async def until_beyond(self, offset: int) -> None:
        """Return when there are bytes from `offset` on, or nothing more can come."""
        while self.spool.end <= offset and not self.closed:
            self._news.clear()
            await self._news.wait()

    async def take(self, offset: int) -> bytes:
        """The next bytes from `offset`, whole lines if one ends soon; none at the end.

        None also, after a while, where there was no room for them.
        """
        await self.until_beyond(offset)
        data = self.spool.read(offset, MAX_CHUNK_BYTES + 1)
        if not data and offset < self.spool.end:
            await asyncio.sleep(_GAP_PATIENCE)
        if data and b"\n" not in data and len(data) <= MAX_CHUNK_BYTES:
            await self._line_end(offset + len(data))
            data = self.spool.read(offset, MAX_CHUNK_BYTES + 1)
        if len(data) > MAX_CHUNK_BYTES:
            return cut(data)[0]
        lines = data.rfind(b"\n") + 1
        return data[:lines] if lines else data

    async def _line_end(self, offset: int) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINE_PATIENCE):
                await self.until_beyond(offset)


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
                "log can not be pushed now",
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
        ) as nats,
        asyncio.TaskGroup() as tasks,
    ):
        watching = tasks.create_task(nats.until_closed())
        yield nats
        watching.cancel()


async def send(nats: Nats, target: Target, pipe: Pipe) -> None:
    """`push` on a connection that is there; Unavailable when the stream can not be asked."""
    writer = LogWriter(nats, target.container_uuid)
    last = await writer.last(target.file)
    while True:
        raise_if_cancelled()
        pipe.spool.discard(last.offset)
        if pipe.closed and last.offset >= pipe.spool.end:
            return
        data = await pipe.take(last.offset)
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


@asynccontextmanager
async def _opened(source: int) -> AsyncIterator[Callable[[], Awaitable[bytes]]]:
    """A function that reads from a file descriptor without stopping the loop."""
    if stat.S_ISREG(os.fstat(source).st_mode):
        yield functools.partial(asyncio.to_thread, os.read, source, _READ_BYTES)
        return
    reader = asyncio.StreamReader(limit=_READ_BYTES)
    with os.fdopen(os.dup(source), "rb", buffering=0) as pipe:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        try:
            yield functools.partial(reader.read, _READ_BYTES)
        finally:
            transport.close()
