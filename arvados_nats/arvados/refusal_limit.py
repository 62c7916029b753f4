# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Slow down an address that keeps coming with tokens that Arvados does not know.

Pure. Clients of some languages retry a refused login for ever (docs/facts/nats-callout.md 2), and a
guesser would too. Only questions that Arvados answered with no count. Beyond its allowance the
questions of an address have few turns (`turns`), with those of others like it: a token that is
known already asks none, and a good one from the same address gets its turn among the bad ones.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

_REMEMBERED = 100_000


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
