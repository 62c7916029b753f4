# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Slow down whoever keeps coming with tokens that are refused.

Pure. Clients of some languages retry a refused login for ever (docs/facts/nats-callout.md 2), and a
guesser would too. Only refusals count: however many sockets share a good token or an address, they
come in. Beyond the limit a login is refused without a question to anybody.
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
    """A token bucket a key; the key is a token's digest or an address."""

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
