# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy whose connections can fall silent, be cut, be refused, or become slow.

Silence is what a power cut, a lost machine and a forgetful firewall look like: both ends keep
their sockets, and nothing comes. New connections work, unless `closed` says otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Flag, auto


class Way(Flag):
    """Which bytes: those of the client, those of the server, or both."""

    UP = auto()
    DOWN = auto()
    BOTH = UP | DOWN


@dataclass(slots=True, eq=False)
class _Link:
    """One connection through the proxy."""

    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    flowing: dict[Way, asyncio.Event] = field(default_factory=dict)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)


class Cuttable:
    """The proxy; get one from `before`."""

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self.closed = False
        """Whether new connections are swallowed: accepted, and nothing ever comes."""
        self.refusing = False
        """Whether new connections are ended at once."""
        self.rate: float | None = None
        """Bytes a second that each connection carries from the server to the client."""
        self._target = host, port
        self._links: set[_Link] = set()

    @property
    def connections(self) -> int:
        return len(self._links)

    def silence(self, way: Way = Way.BOTH) -> None:
        """Let nothing through any more on the connections that are open now, not even an end."""
        for link in self._links:
            for one, event in link.flowing.items():
                if one in way:
                    event.clear()

    def heal(self) -> None:
        """Let what was held back come through."""
        for link in self._links:
            for event in link.flowing.values():
                event.set()

    def cut(self) -> None:
        """Reset every connection."""
        for link in tuple(self._links):
            for writer in link.writers:
                writer.transport.abort()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(writers=[writer])
        self._links.add(link)
        task = asyncio.current_task()
        assert task is not None
        link.tasks.append(task)
        try:
            if self.refusing:
                return
            if self.closed:
                await asyncio.Event().wait()
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            link.writers.append(far_writer)
            link.flowing = {Way.UP: _set_event(), Way.DOWN: _set_event()}
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(link, Way.UP, reader, far_writer))
                pumps.create_task(self._pump(link, Way.DOWN, far_reader, writer))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            self._links.discard(link)
            for one in link.writers:
                one.transport.abort()

    async def _pump(
        self, link: _Link, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            slow = way is Way.DOWN and self.rate
            data = await reader.read(max(int(self.rate or 0) // 20, 1) if slow else 65536)
            await link.flowing[way].wait()
            if not data:
                writer.close()
                return
            writer.write(data)
            await writer.drain()
            if slow:
                await asyncio.sleep(len(data) / (self.rate or 1))

    def end(self) -> None:
        for link in tuple(self._links):
            for task in link.tasks:
                task.cancel()


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@asynccontextmanager
async def before(host: str, port: int) -> AsyncIterator[Cuttable]:
    """A proxy on a free port of loopback."""
    proxy = Cuttable(host, port)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        proxy.end()
        server.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60):
                await server.wait_closed()
