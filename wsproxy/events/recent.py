# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The newest events, kept decoded: what most readers that are behind need is still here.

Pure. Also remembers where the newest log rows stand in the stream, for v0's `last_log_id`.
Bounded by number and bytes; older events are read from the stream (`history`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import attrgetter

from wsproxy.events.stored_event import StoredEvent

_sequence = attrgetter("sequence")


class Recent:
    """Events in stream order, without a hole from `begins` on."""

    def __init__(
        self, limit: int = 10_000, max_bytes: int = 32 * 1024 * 1024, rows: int = 65_536
    ) -> None:
        self.begins = 1
        """Every event with this sequence or a higher one, that the process has seen, is here."""
        self._limit = limit
        self._max_bytes = max_bytes
        self._max_rows = rows
        self._bytes = 0
        self._events: list[StoredEvent] = []
        self._start = 0
        self._rows: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._events) - self._start

    def reset(self, begins: int) -> None:
        """Forget all; the next event to come has a sequence of at least `begins`."""
        self.begins = begins
        self._events, self._start, self._bytes = [], 0, 0
        self._rows = {}

    def add(self, stored: StoredEvent) -> None:
        """Take the next event of the stream."""
        self._events.append(stored)
        self._bytes += stored.size
        self.note(stored.event.id, stored.sequence)
        while len(self) > self._limit or self._bytes > self._max_bytes:
            oldest = self._events[self._start]
            self._bytes -= oldest.size
            self._start += 1
            self.begins = oldest.sequence + 1
        if self._start > self._limit:
            del self._events[: self._start]
            self._start = 0

    def note(self, row_id: int, sequence: int) -> None:
        """Remember where a log row stands."""
        self._rows[row_id] = sequence
        if len(self._rows) > self._max_rows:
            del self._rows[next(iter(self._rows))]

    def sequence_of(self, row_id: int) -> int | None:
        """Where a log row stands in the stream, if it is one of the newest."""
        return self._rows.get(row_id)

    def after(self, sequence: int, limit: int) -> Sequence[StoredEvent] | None:
        """At most `limit` events that follow `sequence`; None if some are gone from here."""
        if sequence + 1 < self.begins:
            return None
        first = bisect_right(self._events, sequence, lo=self._start, key=_sequence)
        return self._events[first : first + limit]
