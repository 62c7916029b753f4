# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A few at once, in the order in which they came, and whoever goes `first` before the others.

Whoever asks about a login gives up after a second or two: in a flood the oldest would be asked in
vain, and nobody be answered in time. So those who have waited for longer than that go last: the
answer is there when they come back. (The newest first, as it was, some were never asked about while
others kept coming, though there was time for all.)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator

from arvados_nats.errors import Unavailable

WAITING = 2000
"""So many wait where nothing else is said."""
IN_TIME = 0.8
"""Seconds of waiting after which whoever asked about a login has little more."""


class Crowded(Unavailable):
    """Too many questions are waiting: try again."""


_Waiting = deque[tuple[float, asyncio.Future[None]]]


class Turns:
    """So many turns at once, each of them no shorter than `shortest` seconds, however soon the work
    is done; of more than `most` that wait the oldest has to go."""

    def __init__(self, width: int, most: int | None = None, shortest: float = 0.0) -> None:
        self._width = width
        self._most = WAITING if most is None else most
        self._shortest = shortest
        self._under_way = 0
        self._waiting: _Waiting = deque()
        self._first: _Waiting = deque()

    @property
    def waiting(self) -> int:
        """How many have no turn yet."""
        return len(self._first) + len(self._waiting)

    @contextlib.asynccontextmanager
    async def taken(self, *, first: bool = False) -> AsyncIterator[None]:
        """While it is one's turn; Crowded where too many are newer."""
        loop = asyncio.get_running_loop()
        await self._turn(self._first if first else self._waiting)
        until = loop.time() + self._shortest
        try:
            yield
        finally:
            if (rest := until - loop.time()) > 0:
                loop.call_later(rest, self._next)
            else:
                self._next()

    async def _turn(self, waiting: _Waiting) -> None:
        if self._under_way < self._width:
            self._under_way += 1
            return
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        waiting.append((loop.time(), turn))
        if len(waiting) > self._most:
            _, oldest = waiting.popleft()
            if not oldest.done():
                oldest.set_exception(Crowded())
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._next()
            raise

    def _next(self) -> None:
        since = asyncio.get_running_loop().time() - IN_TIME
        while self.waiting:
            turn = _next_of(self._first, since) or _next_of(self._waiting, since)
            turn = turn or (self._first or self._waiting).popleft()[1]
            if not turn.done():
                turn.set_result(None)
                return
        self._under_way -= 1


def _next_of(waiting: _Waiting, since: float) -> asyncio.Future[None] | None:
    """The oldest of those who are in time."""
    for place, (came, turn) in enumerate(waiting):
        if came >= since:
            del waiting[place]
            return turn
    return None
