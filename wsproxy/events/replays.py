# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who may read the past out of the stream: so many at once, the others in the order they came.

Whoever waits reads nothing and holds nobody up. A place is for as long as its holder goes on: who
is given more than they take gives it up, and comes again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from wsproxy import metrics

AT_ONCE = 4
"""More would make each slower, and have no more of the stream in common."""
_PATIENCE = 0.1
"""Seconds that a place is kept for somebody who does not take what they were given."""


class Replays:
    """All places of a process."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._waiting = 0

    async def enter(self, queued: Callable[[int], None]) -> None:
        """Return when a place is free; `queued` is told how many are before, if it is not yet."""
        if self._places.locked():
            queued(self._waiting)
        self._waiting += 1
        metrics.replays_waiting.inc()
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
            metrics.replays_waiting.dec()

    def leave(self) -> None:
        """Give the place up."""
        self._places.release()


class Turn:
    """One reader's place, if they have one."""

    def __init__(self, replays: Replays, queued: Callable[[int], None]) -> None:
        self._replays = replays
        self._queued = queued
        self._held = False

    async def take(self) -> None:
        """Return when the reader has a place."""
        if not self._held:
            await self._replays.enter(self._queued)
            self._held = True

    def give_up(self) -> None:
        """Let the next one in; nothing where there is no place."""
        if self._held:
            self._held = False
            self._replays.leave()

    async def keep_while(self, waiting: Callable[[], Awaitable[None]]) -> None:
        """Wait with the place; give it up where that takes long."""
        if not self._held:
            await waiting()
            return
        timer = asyncio.get_running_loop().call_later(_PATIENCE, self.give_up)
        try:
            await waiting()
        finally:
            timer.cancel()
