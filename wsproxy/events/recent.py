# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The newest events: what most readers that are behind need is still here.

Pure. The very newest are kept decoded, with the frames that were made of them; the others as the
bytes that the stream has, a tenth of that, and decoded for whoever comes for them. Also remembers
where the newest log rows stand in the stream, for v0's `last_log_id`. Bounded by number and bytes;
older events are read from the stream (`history`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Sequence
from itertools import islice
from operator import attrgetter, itemgetter

from arvados_nats.contract import events
from wsproxy.events import stored_event
from wsproxy.events.stored_event import StoredEvent

_DECODED = 500
_sequence = attrgetter("sequence")


class Recent:
    """Events in stream order, without a hole from `begins` on."""

    def __init__(
        self, limit: int = 10_000, max_bytes: int = 8 * 1024 * 1024, rows: int = 32_768
    ) -> None:
        self.begins = 1
        """Every event with this sequence or a higher one, that the process has seen, is here."""
        self._limit = limit
        self._max_bytes = max_bytes
        self._max_rows = rows
        self._bytes = 0
        self._older: list[tuple[int, bytes]] = []
        self._start = 0
        self._newest: deque[StoredEvent] = deque()
        self._again: OrderedDict[int, StoredEvent] = OrderedDict()
        self._rows: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._older) - self._start + len(self._newest)

    def reset(self, begins: int) -> None:
        """Forget all; the next event to come has a sequence of at least `begins`."""
        self.begins = begins
        self._older, self._start, self._bytes = [], 0, 0
        self._newest.clear()
        self._again.clear()
        self._rows = {}

    def add(self, stored: StoredEvent) -> None:
        """Take the next event of the stream."""
        self._newest.append(stored)
        self._bytes += stored.size
        self.note(stored.event.id, stored.sequence)
        if len(self._newest) > _DECODED:
            grown = self._newest.popleft()
            payload = events.encode(grown.event)
            self._bytes += len(payload) - grown.size
            self._older.append((grown.sequence, payload))
        while len(self) > self._limit or self._bytes > self._max_bytes:
            self._drop()

    def _drop(self) -> None:
        """Forget the oldest."""
        if self._start < len(self._older):
            sequence, payload = self._older[self._start]
            size = len(payload)
            self._older[self._start] = (sequence, b"")
            self._start += 1
        else:
            oldest = self._newest.popleft()
            sequence, size = oldest.sequence, oldest.size
        self._bytes -= size
        self.begins = sequence + 1
        if self._start > self._limit // 8:
            del self._older[: self._start]
            self._start = 0

    def is_at_hand(self, sequence: int) -> bool:
        """Whether what follows `sequence` costs nothing but to be shown."""
        return sequence + 1 >= (self._newest[0].sequence if self._newest else self.begins)

    def _decoded(self, sequence: int, payload: bytes) -> StoredEvent:
        """Those who read the past go together: what one of them needs is decoded for all."""
        stored = self._again.get(sequence)
        if stored is None:
            stored = self._again[sequence] = stored_event.decode(sequence, payload)
            if len(self._again) > _DECODED:
                self._again.popitem(last=False)
        return stored

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
        first = bisect_right(self._older, sequence, lo=self._start, key=itemgetter(0))
        found = [self._decoded(*kept) for kept in self._older[first : first + limit]]
        if len(found) < limit:
            begin = bisect_right(self._newest, sequence, key=_sequence)
            found += islice(self._newest, begin, begin + limit - len(found))
        return found
