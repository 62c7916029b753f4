# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The outgoing side of one connection, whatever its wire: WebSocket, plain ASGI or SSE.

What it decides: when bytes leave, when a reader counts as behind, and when a peer is stuck.
The first message of a tick leaves at once, the others of that tick in one write behind it
(docs/facts/realtime.md 2.2). There is no task, no future and no queue object per message. A reader
that is behind is not fed any more: whoever feeds it goes back to the stream (`consumer`), so a send
buffer never holds more than twice its high-water mark and one message or batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from wsproxy.transport.frames import Message

HIGH_WATER = 64 * 1024
"""Bytes waiting for one peer from which on it is behind. Each slow peer may cost this much."""
NO_PROGRESS_SECONDS = 60.0
"""A peer that took no byte for so long, though there are some for it, and whose kernel has not said
a word either, is cut."""
STUCK_SECONDS = 900.0
"""So is one that took none for so long though its kernel answers. A proxy with ordinary buffers
takes megabytes at once, and then nothing until a slow reader behind it has read half of them."""
_REASON_BYTES = 123
"""The close code and its reason stand in one control frame (RFC 6455 5.5)."""
CLOSE_SECONDS = 10.0
"""How long a peer has for its half of the closing handshake."""


class Wire(Protocol):
    """What carries the bytes of a send buffer."""

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


class Tick:
    """The turns of the loop: what send buffers gather in one is flushed at its end."""

    def __init__(self) -> None:
        self.turning = False
        """Whether anything was written in this turn of the loop."""
        self.turn = 1
        """Number of the loop's turn, as far as anything was written in it."""
        self._due: list[SendBuffer] = []

    def begin(self) -> None:
        """Flush at the end of this turn what has gathered in it."""
        self.turning = True
        asyncio.get_running_loop().call_soon(self._flush)

    def flush_later(self, send_buffer: SendBuffer) -> None:
        self._due.append(send_buffer)

    def _flush(self) -> None:
        self.turning = False
        self.turn += 1
        due, self._due = self._due, []
        for send_buffer in due:
            send_buffer.flush()


class SendBuffer:
    """One connection's outgoing side; made by `SendBuffers.open`, which `forget`s it at its end."""

    __slots__ = (
        "_behind_at",
        "_forget",
        "_handed",
        "_moved_at",
        "_paused",
        "_queue",
        "_queued",
        "_taken",
        "_tick",
        "_turn",
        "_waiters",
        "closed",
        "lagging",
        "wire",
    )

    def __init__(self, tick: Tick, wire: Wire, forget: Callable[[SendBuffer], None]) -> None:
        self._tick = tick
        self._forget = forget
        self.wire = wire
        self._queue: list[bytes] = []
        self._queued = 0
        self._turn = 0
        self._paused = False
        self._waiters: list[asyncio.Future[None]] = []
        self._handed = 0
        self._taken = 0
        self._moved_at = 0.0
        self._behind_at = 0.0
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
        tick = self._tick
        if self._turn == tick.turn:
            if not self._queue:
                tick.flush_later(self)
            self._queue.append(piece)
            self._queued += len(piece)
            if self._queued > HIGH_WATER:
                self.lagging = True
            return
        if not tick.turning:
            tick.begin()
        self._turn = tick.turn
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

    def may_live(self, still_for: float) -> bool:
        """Whether a peer that has taken nothing for so long may be reading all the same."""
        silent_for = getattr(self.wire, "silent_for", None)  # not every wire has a socket to ask
        return (
            still_for < STUCK_SECONDS
            and silent_for is not None
            and silent_for() < NO_PROGRESS_SECONDS
        )

    def owes_an_answer(self, heard_at: float, now: float) -> bool:
        """Whether a ping must have been answered by now: nothing of ours can stand before it.

        What a proxy has taken may take a slow reader minutes.
        """
        reads_on = heard_at < self._behind_at and now - self._behind_at < STUCK_SECONDS
        return not self.pending and not reads_on

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
        self._forget(self)

    def progress(self, now: float) -> tuple[int, float]:
        """Bytes waiting, and for how many seconds the peer has taken none of them."""
        unsent = self.wire.unsent
        taken = self._handed - unsent
        if taken > self._taken or not unsent or not self._moved_at:
            self._moved_at = now
        if self.lagging:
            self._behind_at = now
        self._taken = taken  # less than before: a ping stands in the wire's buffer
        return self._queued + unsent, now - self._moved_at


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
