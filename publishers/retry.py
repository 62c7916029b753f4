# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How a part of the publishers goes on when PostgreSQL or NATS is away: it waits, and says so.

A setting that is wrong at the start ends the process; the same complaint later (a password being
changed, a failover) is a fault like any other.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from arvados_nats.errors import ArvadosNatsError, ConfigError, Disagreement
from arvados_nats.service.ops import Health

T = TypeVar("T")

_LONGEST_PAUSE = 2.0
_FORGOTTEN = 10.0
"""Seconds without a failure after which the next one is the first."""


class Attempts:
    """Counts the failures of one part since it last worked."""

    def __init__(self, health: Health, part: str) -> None:
        self.health = health
        self._part = part
        self._failures = 0
        self._failed_at = float("-inf")
        self._proven = False
        health.starting(part)

    def succeeded(self) -> None:
        self._proven = True
        self.health.well(self._part)

    def fault(self, error: object) -> None:
        """Say what is wrong, where waiting is all that can be done."""
        self.health.fault(self._part, error)

    async def failed(self, error: ArvadosNatsError) -> None:
        """Report the fault and pause, longer each time; raises a ConfigError seen at the start,
        unless it is another machine that disagrees."""
        disagrees = isinstance(error, Disagreement)
        if isinstance(error, ConfigError) and not disagrees and not self._proven:
            raise error
        self.health.fault(self._part, error)
        await asyncio.sleep(random.uniform(0.5, 1) * self._pause())

    def _pause(self) -> float:
        """Longer each time, until there was no failure for a while: a part that begins well and
        fails at its first work would otherwise try again at once, for ever."""
        now = time.monotonic()
        if now - self._failed_at > _FORGOTTEN:
            self._failures = 0
        self._failed_at = now
        self._failures = min(self._failures + 1, 16)
        return min(0.05 * 2.0**self._failures, _LONGEST_PAUSE)

    async def until_done(self, act: Callable[[], Awaitable[T]]) -> T:
        """What `act` gives, as soon as it does not fail."""
        while True:
            try:
                return await act()
            except ArvadosNatsError as error:
                await self.failed(error)
