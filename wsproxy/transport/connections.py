# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""All connections of the process, whatever their protocol: their clock, and their end at SIGTERM.

uvicorn would close every socket in the same instant, and all clients would come back in the same
second (docs/facts/realtime.md 3, rows 6 and 17). `drain` closes them one by one over a given time,
before the server itself is stopped; meanwhile new ones are sent away.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator, Sequence
from typing import Protocol

from wsproxy import metrics
from wsproxy.transport import failures
from wsproxy.transport.pacing import STEP_SECONDS, spread
from wsproxy.transport.send_buffer import SendBuffer

_TICK_SECONDS = 1.0


class Connection(Protocol):
    """One open connection."""

    @property
    def send_buffer(self) -> SendBuffer:
        """Its outgoing side."""

    def tick(self, now: float) -> None:
        """Called about every second, first within two, with the loop's time. Never waits."""

    def drain(self) -> None:
        """Say goodbye and close: the client is to connect again, elsewhere. Never waits."""


class Served(Connection, Protocol):
    """One that a door serves."""

    def end(self) -> None:
        """Free everything; the connection is over."""


class Connections:
    """The open ones, and whether new ones are welcome."""

    def __init__(self) -> None:
        self._open: set[Connection] = set()
        self._empty = asyncio.Event()
        self.draining = False
        self.gone = 0
        """How many have ended so far."""

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        return iter(tuple(self._open))

    @contextlib.contextmanager
    def opened(self, connection: Served, version: str) -> Iterator[None]:
        """It is one of them while the block runs, and frees everything after it."""
        gauge = metrics.sockets.labels(version)
        self.add(connection)
        gauge.inc()
        try:
            yield
        finally:
            gauge.dec()
            self.remove(connection)
            connection.end()

    def add(self, connection: Connection) -> None:
        self._open.add(connection)
        self._empty.clear()

    def remove(self, connection: Connection) -> None:
        self._open.discard(connection)
        self.gone += 1
        if not self._open:
            self._empty.set()

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            async for portion in spread(tuple(self._open), _TICK_SECONDS):
                self._tick(portion)
            metrics.sent.tell()

    def _tick(self, portion: Sequence[Connection]) -> None:
        now = asyncio.get_running_loop().time()

        def tick(connection: Connection) -> None:
            if connection in self._open:
                connection.tick(now)

        failures.each(portion, tick)

    async def linger(self, seconds: float) -> None:
        """Let all stay as they are until they have left by themselves, or the time is over."""
        if self._open and seconds:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._empty.wait()

    async def drain(self, seconds: float, grace: float = 2.0) -> None:
        """Close all, spread evenly over `seconds`; then give the last `grace` seconds to go."""
        self.draining = True
        waiting = list(self)
        random.shuffle(waiting)
        steps = max(1, min(len(waiting), round(seconds / STEP_SECONDS)))
        for step in range(steps):
            failures.each(waiting[step::steps], lambda connection: connection.drain())
            if step + 1 < steps:
                await asyncio.sleep(seconds / steps)
        if self._open:
            try:
                async with asyncio.timeout(grace):
                    await self._empty.wait()
            except TimeoutError:
                return
