# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The outgoing side of one connection, whatever its wire: WebSocket, plain ASGI or SSE.

What it decides: when bytes leave, when a reader counts as behind, and when a peer is stuck.
The first message of a tick leaves at once, the others of that tick in one write behind it
(facts/realtime.md 2.2). There is no task, no future and no queue object per message. A reader that
is behind is not fed any more: whoever feeds it goes back to the stream (`feed`), so an outlet never
holds more than twice its high-water mark and one message or batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from wsproxy.transport.frames import Message
from wsproxy.transport.pacing import spread

HIGH_WATER = 64 * 1024
"""Bytes waiting for one peer from which on it is behind. Each slow peer may cost this much."""
NO_PROGRESS_SECONDS = 60.0
"""A peer whose kernel took no byte for so long, though there are some for it, is cut."""
_REASON_BYTES = 123
"""The close code and its reason stand in one control frame (RFC 6455 5.5)."""
CLOSE_SECONDS = 10.0
"""How long a peer has for its half of the closing handshake."""


class Wire(Protocol):
    """What carries the bytes of an outlet."""

    joins: bool
    """Whether encoded messages, one after the other, are one piece as good as several."""

    @property
    def unsent(self) -> int:
        """Bytes handed over and not yet taken by the kernel."""

    def encode(self, message: Message) -> bytes:
        """A message in this wire's form: `frame`, `text` or `sse`."""

    def write(self, pieces: Sequence[bytes]) -> None:
        """Take these encoded messages, in order; never waits."""

    def close(self, code: int, reason: str) -> None:
        """Say goodbye after what was written before; never waits.

        A peer that does not do its half within `CLOSE_SECONDS` is dropped.
        """

    def abort(self) -> None:
        """Drop the connection and everything unsent."""


class Outlets:
    """All outlets of the process: flushed once a tick, swept for stuck peers, counted together."""

    def __init__(self, budget: int = 256 * 1024 * 1024) -> None:
        self.budget = budget
        self.pending = 0
        """Bytes waiting for all peers, as of the last sweep."""
        self._open: set[Outlet] = set()
        self._due: list[Outlet] = []
        self.turning = False
        """Whether anything was written in this turn of the loop."""
        self.turn = 1
        """Number of the loop's turn, as far as anything was written in it."""

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Outlet]:
        return iter(tuple(self._open))

    def open(self, wire: Wire) -> Outlet:
        """A new outlet over `wire`; `Outlet.gone` ends it."""
        outlet = Outlet(self, wire)
        self._open.add(outlet)
        return outlet

    def begin(self) -> None:
        """Flush at the end of this turn what has gathered in it."""
        self.turning = True
        asyncio.get_running_loop().call_soon(self._flush)

    def flush_later(self, outlet: Outlet) -> None:
        self._due.append(outlet)

    def _flush(self) -> None:
        self.turning = False
        self.turn += 1
        due, self._due = self._due, []
        for outlet in due:
            outlet.flush()

    def forget(self, outlet: Outlet) -> None:
        self._open.discard(outlet)

    def sweep(self, now: float) -> list[Outlet]:
        """Look at all peers at once and cut those that are stuck; those that were cut.

        `now` is the loop's time. Over the process' budget, the peers with most bytes waiting and no
        progress since the last sweep are cut as well.
        """
        sweep = _Sweep()
        sweep.look(self._open, now)
        return self._cut(sweep)

    async def watch(
        self,
        cut: Callable[[int], None] = lambda _: None,
        queued: Callable[[int], None] = lambda _: None,
        interval: float = 1.0,
    ) -> None:
        """Sweep until cancelled, each time spread over `interval` seconds.

        Tells how many peers were `cut`, and the bytes `queued`.
        """
        loop = asyncio.get_running_loop()
        while True:
            sweep = _Sweep()
            async for portion in spread(tuple(self._open), interval):
                sweep.look((outlet for outlet in portion if outlet in self._open), loop.time())
            if stuck := self._cut(sweep):
                cut(len(stuck))
            queued(self.pending)

    def _cut(self, sweep: _Sweep) -> list[Outlet]:
        self.pending = sweep.pending
        cut = [outlet for outlet in sweep.chosen(self.budget) if outlet in self._open]
        for outlet in cut:
            outlet.abort()
        return cut


class _Sweep:
    """What was seen in one look at every outlet."""

    def __init__(self) -> None:
        self.pending = 0
        self._stuck: list[Outlet] = []
        self._idle: list[tuple[int, Outlet]] = []

    def look(self, outlets: Iterable[Outlet], now: float) -> None:
        for outlet in outlets:
            waiting, still_for = outlet.progress(now)
            self.pending += waiting
            if still_for > NO_PROGRESS_SECONDS:
                self._stuck.append(outlet)
            elif waiting and still_for:
                self._idle.append((waiting, outlet))

    def chosen(self, budget: int) -> list[Outlet]:
        """Peers to cut: the stuck ones, and the fullest idle ones while there is too much."""
        excess = self.pending - budget
        chosen = self._stuck
        self._idle.sort(key=lambda item: item[0])
        while excess > 0 and self._idle:
            waiting, outlet = self._idle.pop()
            excess -= waiting
            chosen.append(outlet)
        return chosen


class Outlet:
    """One connection's outgoing side; made by `Outlets.open`."""

    __slots__ = (
        "_handed",
        "_moved_at",
        "_outlets",
        "_paused",
        "_queue",
        "_queued",
        "_taken",
        "_turn",
        "_waiters",
        "closed",
        "lagging",
        "wire",
    )

    def __init__(self, outlets: Outlets, wire: Wire) -> None:
        self._outlets = outlets
        self.wire = wire
        self._queue: list[bytes] = []
        self._queued = 0
        self._turn = 0
        self._paused = False
        self._waiters: list[asyncio.Future[None]] = []
        self._handed = 0
        self._taken = 0
        self._moved_at = 0.0
        self.closed = False
        """Nothing is written any more: closing, or the peer is gone."""
        self.lagging = False
        """Whether the peer takes less than it is given: stop, and wait for `writable`."""

    def write(self, message: Message) -> None:
        """Send one message, behind all written before it."""
        self.put(self.wire.encode(message))

    def put(self, piece: bytes) -> None:
        """Send bytes that are in the wire's form already."""
        if self.closed:
            return
        outlets = self._outlets
        if self._turn == outlets.turn:
            if not self._queue:
                outlets.flush_later(self)
            self._queue.append(piece)
            self._queued += len(piece)
            if self._queued > HIGH_WATER:
                self.lagging = True
            return
        if not outlets.turning:
            outlets.begin()
        self._turn = outlets.turn
        self._handed += len(piece)
        self.wire.write((piece,))

    def flush(self) -> None:
        """Hand over what has gathered; called once a tick."""
        if not self._queue:
            return
        handed = self._queued
        queue = self._take()
        self._handed += handed
        if not self.closed:
            self.wire.write(queue)

    def _take(self) -> list[bytes]:
        queue, self._queue = self._queue, []
        self._queued = 0
        self.lagging = self._paused
        return queue

    @property
    def pending(self) -> int:
        """Bytes that wait for this peer in the process."""
        return self._queued + self.wire.unsent

    async def writable(self) -> None:
        """Return when the peer has taken most of what it was given, or is gone."""
        while self.lagging and not self.closed:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            if self._paused:
                self._waiters.append(future)
            else:
                asyncio.get_running_loop().call_soon(_wake, future)
            await future

    def paused(self) -> None:
        """The wire's buffer is above its high-water mark."""
        self._paused = self.lagging = True

    def resumed(self) -> None:
        """The wire's buffer is below its low-water mark."""
        self._paused = False
        self.lagging = self._queued > HIGH_WATER
        waiters, self._waiters = self._waiters, []
        for future in waiters:
            _wake(future)

    def discard(self) -> int:
        """Drop what was written and not yet handed to the transport; how many messages."""
        return len(self._take())

    def close(self, code: int, reason: str = "") -> None:
        """Close after what was written; of a long reason goes what has room."""
        if self.closed:
            return
        self.flush()
        self.closed = True
        self.resumed()
        self.wire.close(code, reason.encode()[:_REASON_BYTES].decode(errors="ignore"))

    def abort(self) -> None:
        """Drop the connection now."""
        self.gone()
        self.wire.abort()

    def gone(self) -> None:
        """The connection is no more."""
        self.closed = True
        self._take()
        self.resumed()
        self._outlets.forget(self)

    def progress(self, now: float) -> tuple[int, float]:
        """Bytes waiting, and for how many seconds the peer has taken none of them."""
        unsent = self.wire.unsent
        taken = self._handed - unsent
        if taken > self._taken or not unsent or not self._moved_at:
            self._moved_at = now
        self._taken = taken  # less than before: a ping stands in the wire's buffer
        return self._queued + unsent, now - self._moved_at


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
