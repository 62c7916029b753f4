# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How many logins are decided at the same time: fewer while they hold each other up.

Pure. When a machine is short of time, a thousand logins begun at once are all too late. So what a
decision takes is compared with the quickest of late: where it is long because many are under way,
fewer are begun; where Arvados is slow for everybody, that is no reason.
"""

from __future__ import annotations

_FEWEST, _FIRST = 4, 128
_LONG = 1 / 3
"""Part of the budget that a decision may take before anything is done about it."""
_SLOWER = 1.5
_LESS = 0.8
_WINDOW = 10.0
"""Seconds that the quickest is remembered, at least."""


class Pace:
    """At most `most` at once, each with `budget` seconds."""

    def __init__(self, most: int, budget: float) -> None:
        self._most = most
        self._fewest = min(_FEWEST, most)
        self._budget = budget
        self._limit = float(min(most, _FIRST))
        self._lowered = float("-inf")
        self._quickest = [float("inf"), float("inf")]
        self._turned = float("-inf")

    @property
    def at_once(self) -> int:
        return int(self._limit)

    def took(self, now: float, seconds: float, under_way: int, *, decided: bool) -> None:
        """One came to its end, decided or given up, while so many were under way."""
        if now - self._turned > _WINDOW:
            self._quickest = [float("inf"), self._quickest[0]]
            self._turned = now
        if decided:
            self._quickest[0] = min(self._quickest[0], seconds)
        if self._is_slow(seconds, decided=decided):
            if now - self._lowered > _LONG * self._budget:
                self._limit = max(self._limit * _LESS, self._fewest)
                self._lowered = now
        elif decided and under_way >= self.at_once - 1:
            self._limit = min(self._limit + 1, self._most)

    def _is_slow(self, seconds: float, *, decided: bool) -> bool:
        if seconds <= _LONG * self._budget:
            return False
        quickest = min(self._quickest)
        if quickest == float("inf"):
            return True
        return seconds > quickest * (_SLOWER if decided else 1)
