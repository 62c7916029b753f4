# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Ids of log rows that PostgreSQL's NOTIFY has named, in the order of their commits.

A payload is whatever somebody sent: any role that can connect may NOTIFY (docs/facts/arvados.md
10).
"""

from __future__ import annotations

import asyncio
from collections import deque

from publishers import metrics

_MOST = 200_000
_MOST_DIGITS = 19
_BIGINT = range(-(2**63), 2**63)


class Notified:
    """A queue that never grows without bound: what does not fit, the scan finds."""

    def __init__(self) -> None:
        self._ids: deque[int] = deque()
        self._news = asyncio.Event()
        self._overflowed = False

    def __len__(self) -> int:
        return len(self._ids)

    def heard(self, payload: str) -> None:
        """Take the payload of one NOTIFY; what is no bigint is counted and skipped."""
        row_id = bigint(payload)
        if row_id is None:
            metrics.skipped("bad_payload")
        elif len(self._ids) >= _MOST:
            self._overflowed = True
        else:
            self._ids.append(row_id)
            self._news.set()

    def take(self, most: int) -> list[int]:
        """The `most` oldest ids, each once."""
        taken = [self._ids.popleft() for _ in range(min(most, len(self._ids)))]
        if not self._ids:
            self._news.clear()
        return list(dict.fromkeys(taken))

    def take_overflow(self) -> bool:
        """Whether ids were dropped since the last call."""
        overflowed, self._overflowed = self._overflowed, False
        return overflowed

    async def wait(self, timeout: float) -> None:
        """Return when there are ids, or after `timeout` seconds."""
        try:
            async with asyncio.timeout(max(timeout, 0)):
                await self._news.wait()
        except TimeoutError:
            return


def bigint(payload: str) -> int | None:
    """The number in a payload, if it is one that an id can be."""
    digits = payload.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS):
        return None
    value = int(payload)
    return value if value in _BIGINT else None
