# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Slow down an address that keeps coming with tokens that Arvados does not know.

Clients of some languages retry a refused login for ever (docs/facts/nats-callout.md 2), and a
guesser would too. Only questions that Arvados answered with no count. Beyond its allowance the
questions of an address take turns with those of others like it: a token that is known already asks
none, and a good one from the same address gets its turn among the bad ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Hashable
from dataclasses import dataclass

from arvados_nats.errors import Refused

_REMEMBERED = 100_000
TURNS = 8
"""Questions under way for all addresses beyond their allowance."""
WAITING = 200
"""More that may wait for their turn; of more the oldest is refused."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """`burst` refusals at once, and `per_second` more as time goes."""

    burst: float
    per_second: float


class RefusalLimit:
    """A token bucket a key, which is an address."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._spent: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def exhausted(self, key: Hashable, now: float | None = None) -> bool:
        """Whether this one has been refused too often."""
        return self._level(key, time.monotonic() if now is None else now) >= self._allowance.burst

    def count(self, key: Hashable, now: float | None = None) -> None:
        """Note one more refusal."""
        now = time.monotonic() if now is None else now
        self._spent[key] = (self._level(key, now) + 1, now)
        self._spent.move_to_end(key)
        while len(self._spent) > _REMEMBERED:
            self._spent.popitem(last=False)

    def _level(self, key: Hashable, now: float) -> float:
        level, at = self._spent.get(key, (0.0, now))
        return max(0.0, level - (now - at) * self._allowance.per_second)


class Turns:
    """Lets questions about unknown tokens pass, those of exhausted addresses a few at once.

    Of those that wait the newest is next: whoever asks gives up after a second or two, so the
    oldest would be asked in vain, and in a flood nobody would be answered in time.
    """

    def __init__(self, limit: RefusalLimit) -> None:
        self._limit = limit
        self._under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @contextlib.asynccontextmanager
    async def of(self, address: str) -> AsyncIterator[None]:
        """While a question for this address is under way; Refused where too many are newer."""
        if not self._limit.exhausted(address):
            yield
            return
        await self._turn()
        try:
            yield
        finally:
            self._next()

    async def _turn(self) -> None:
        if self._under_way < TURNS:
            self._under_way += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        if len(self._waiting) > WAITING:
            oldest = self._waiting.popleft()
            if not oldest.done():
                text = "too many tokens of this address have been refused in a short time"
                oldest.set_exception(Refused(text))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._next()
            raise

    def _next(self) -> None:
        while self._waiting:
            turn = self._waiting.pop()
            if not turn.done():
                turn.set_result(None)
                return
        self._under_way -= 1
