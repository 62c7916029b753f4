# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A few at once; of those who wait the newest is next, and whoever goes `first` before the others.

Whoever asks about a login gives up after a second or two: in a flood the oldest would be asked in
vain, and nobody be answered in time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator

from arvados_nats.errors import Unavailable

WAITING = 200
"""Of more that wait the oldest has to go."""


class Turns:
    """So many turns at once."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._first: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many have no turn yet."""
        return len(self._first) + len(self._waiting)

    @contextlib.asynccontextmanager
    async def taken(self, *, first: bool = False) -> AsyncIterator[None]:
        """While it is one's turn; Unavailable where too many are newer."""
        await self._turn(self._first if first else self._waiting)
        try:
            yield
        finally:
            self._next()

    async def _turn(self, waiting: deque[asyncio.Future[None]]) -> None:
        if self._under_way < self._width:
            self._under_way += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        if len(waiting) > WAITING:
            oldest = waiting.popleft()
            if not oldest.done():
                oldest.set_exception(Unavailable("too many questions are waiting: try again"))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._next()
            raise

    def _next(self) -> None:
        while waiting := self._first or self._waiting:
            turn = waiting.pop()
            if not turn.done():
                turn.set_result(None)
                return
        self._under_way -= 1
