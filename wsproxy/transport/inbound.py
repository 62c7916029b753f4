# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What one peer sends, read a slice a turn, at its pace, while there is somebody to hear it.

So neither the number of its frames nor their kind lets it keep others waiting, and what is not
looked at yet stays with the kernel, and then with the peer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from wsproxy.transport.limits import Pace

SLICE_BYTES = 4096
"""Read in one turn of the loop."""
DENSE_BYTES = 512
"""The same of a peer whose frames are tiny, as far as is known: at most 86 frames."""
_TINY = 64
"""Bytes of a frame, with what it counts for (`Pace`)."""
LINGER_BYTES = 1024 * 1024
"""Taken and dropped of a peer after the connection has failed."""


class Inbound:
    """`hear` takes a slice and says what it cost; nothing is read while somebody `waits`."""

    __slots__ = (
        "_hear",
        "_lingers",
        "_loop",
        "_next",
        "_size",
        "_transport",
        "_unread",
        "_waits",
        "pace",
    )

    def __init__(self, hear: Callable[[bytes], int], waits: Callable[[], bool]) -> None:
        self._hear = hear
        self._waits = waits
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._unread: deque[memoryview] = deque()
        self._size = DENSE_BYTES
        self._next: asyncio.Handle | None = None
        self._lingers = 0
        self.pace: Pace | None = None

    def begin(self, transport: asyncio.Transport) -> None:
        """Read from here."""
        self._transport = transport

    def take(self, data: bytes) -> None:
        """Look at what has come, in its turn."""
        if self._lingers:
            self._drop(len(data))
            return
        self._unread.append(memoryview(data))
        if self._next is None:
            self._look()

    def go_on(self) -> None:
        """Somebody has waited, and may not any more."""
        if self._next is None:
            self._arrange(0.0)

    def linger(self) -> None:
        """Drop what still comes: of a connection closed with that unread, no word would arrive."""
        self._lingers = LINGER_BYTES
        unread = sum(map(len, self._unread))
        self._unread.clear()
        self._drop(unread)

    def end(self) -> None:
        """The connection is no more."""
        self._transport = None
        self._unread.clear()
        if self._next is not None:
            self._next.cancel()

    @property
    def paused(self) -> bool:
        """Whether nothing is read for now."""
        return self._transport is not None and not self._transport.is_reading()

    def _look(self) -> None:
        self._next = None
        if not self._unread:
            return
        piece = self._unread.popleft()
        if len(piece) > self._size:
            self._unread.appendleft(piece[self._size :])
            piece = piece[: self._size]
        units = self._hear(bytes(piece))
        if units:
            self._size = DENSE_BYTES if units * _TINY > len(piece) else SLICE_BYTES
        self._arrange(self.pace.wait(self._loop.time(), units) if self.pace and units else 0.0)

    def _arrange(self, pause: float) -> None:
        """When the next slice is looked at, and whether more is read until then."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        waits = self._waits()
        if pause:
            self._next = self._loop.call_later(pause, self._rested)
        elif self._unread and not waits:
            self._next = self._loop.call_soon(self._look)
        reads = not waits and self._next is None
        if reads != transport.is_reading():
            if reads:
                transport.resume_reading()
            else:
                transport.pause_reading()

    def _rested(self) -> None:
        self._next = None
        self._arrange(0.0)

    def _drop(self, length: int) -> None:
        self._lingers = max(1, self._lingers - length)
        if self._lingers == 1 and self._transport is not None:
            self._transport.close()
