# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The end of a pipe: bytes come in as they are written, and wait on disk until they are taken."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from publishers.pipes.spool import Spool

logger = logging.getLogger(__name__)

_READ_BYTES = 64 * 1024


class Pipe:
    """What came in by a pipe and is not in the stream yet.

    `no_room` is told how many bytes were let go, each time that the spool is full.
    """

    def __init__(self, spool: Spool, no_room: Callable[[int], None] | None = None) -> None:
        self.spool = spool
        self.closed = False
        self._no_room = no_room
        self._news = asyncio.Event()

    async def fill(self, source: int) -> None:
        """Read a file descriptor to its end."""
        async with _opened(source) as read:
            while data := await read():
                if not self.spool.append(data):
                    self._let_go(len(data))
                self._news.set()
        self.closed = True
        self._news.set()

    def _let_go(self, size: int) -> None:
        logger.warning(
            "no room on disk for bytes that wait, they are let go",
            extra={"action": "push.no_room", "bytes": size},
        )
        if self._no_room:
            self._no_room(size)

    async def until_beyond(self, offset: int) -> None:
        """Return when there are bytes from `offset` on, or nothing more can come."""
        while self.spool.end <= offset and not self.closed:
            self._news.clear()
            await self._news.wait()


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
