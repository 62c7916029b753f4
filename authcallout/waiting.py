# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Logins that wait for their turn: the newest goes first, and who has given up is left out.

Pure. Beyond capacity a queue in order of arrival makes everybody late: each answer is for a client
that is gone and has come back behind all others. The newest first, those that are served are served
in time, and the rest come again.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Waiting(Generic[T]):
    """At most `limit` of them; none is kept for longer than `patience` seconds."""

    def __init__(self, patience: float, limit: int) -> None:
        self._patience = patience
        self._limit = limit
        self._arrived: deque[tuple[float, T]] = deque()

    def __len__(self) -> int:
        return len(self._arrived)

    def add(self, now: float, one: T) -> list[T]:
        """Take one that has come now; those who had to be given up for it."""
        self._arrived.append((now, one))
        given_up = self.forget_late(now)
        if len(self._arrived) > self._limit:
            given_up.append(self._arrived.popleft()[1])
        return given_up

    def forget_late(self, now: float) -> list[T]:
        """Leave out those who have waited too long; who that were."""
        late = []
        while self._arrived and now - self._arrived[0][0] >= self._patience:
            late.append(self._arrived.popleft()[1])
        return late

    def newest(self) -> tuple[float, T]:
        """The one that came last, and when; only while there is one."""
        return self._arrived.pop()
