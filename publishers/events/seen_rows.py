# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which log rows were handed out already, over a window of time.

Pure. Rows are known by uuid, in slices of ten seconds of their created_at, so that a scan compares
a count for each slice with PostgreSQL and lists only the slices that differ. Half an hour of a busy
site is a million rows, so eight bytes stand for a uuid: Python's hash of a text, which has a key of
its own in each process, since any user may choose one. Ids are remembered for a moment, to spare
the reading of a row that is notified again; they decide nothing (docs/facts/arvados.md 0.3).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

SLICE = timedelta(seconds=10)
SLICE_SECONDS = 10

_EPOCH = datetime(1970, 1, 1)


def slice_of(moment: datetime) -> int:
    """The number of the slice that a created_at (UTC, no zone) falls into."""
    return (moment - _EPOCH) // SLICE


def start_of(number: int) -> datetime:
    """The first moment of a slice."""
    return _EPOCH + number * SLICE


_RECENT = 12
"""Slices whose ids are remembered: those that were begun last."""


@dataclass(slots=True)
class _Slice:
    """The rows of ten seconds, in order of what stands for their uuids."""

    rows: array[int] = field(default_factory=lambda: array("q"))
    ids: list[int] | None = field(default_factory=list)
    """None when they are remembered no more."""

    def has(self, uuid: str) -> bool:
        short = hash(uuid)
        place = bisect_left(self.rows, short)
        return place < len(self.rows) and self.rows[place] == short

    def add(self, uuid: str) -> bool:
        """False if it is there."""
        short = hash(uuid)
        place = bisect_left(self.rows, short)
        if place < len(self.rows) and self.rows[place] == short:
            return False
        self.rows.insert(place, short)
        return True


class KnownRows:
    """The rows of the window that begins at `floor`; what is older is not known either way."""

    def __init__(self, floor: datetime) -> None:
        self._first = slice_of(floor)
        self._slices: dict[int, _Slice] = {}
        self._ids: set[int] = set()
        self._recent: deque[_Slice] = deque()

    @property
    def floor(self) -> datetime:
        return start_of(self._first)

    def __len__(self) -> int:
        return sum(len(one.rows) for one in self._slices.values())

    def reaches(self, created_at: datetime) -> bool:
        """Whether a row of this time would be known, had it been handed out."""
        return slice_of(created_at) >= self._first

    def has_id(self, row_id: int) -> bool:
        """Whether a row with this id was handed out a moment ago."""
        return row_id in self._ids

    def has(self, uuid: str, created_at: datetime) -> bool:
        one = self._slices.get(slice_of(created_at))
        return one is not None and one.has(uuid)

    def add(self, row_id: int | None, uuid: str, created_at: datetime) -> bool:
        """Remember a row; False if it is known, or older than the window. `row_id`: None where it
        was not read of the database that there is now."""
        number = slice_of(created_at)
        if number < self._first:
            return False
        one = self._slices.get(number) or self._begin(number)
        if not one.add(uuid):
            return False
        if one.ids is not None and row_id is not None and row_id not in self._ids:
            self._ids.add(row_id)
            one.ids.append(row_id)
        return True

    def _begin(self, number: int) -> _Slice:
        one = self._slices[number] = _Slice()
        self._recent.append(one)
        if len(self._recent) > _RECENT:
            self._forget_ids(self._recent.popleft())
        return one

    def _forget_ids(self, one: _Slice) -> None:
        self._ids.difference_update(one.ids or ())
        one.ids = None

    def forget_before(self, moment: datetime) -> None:
        """Move the beginning of the window forward."""
        first = slice_of(moment)
        if first <= self._first:
            return
        self._first = first
        for number in [number for number in self._slices if number < first]:
            self._forget_ids(self._slices.pop(number))

    def counts(self) -> dict[int, int]:
        """How many rows of each slice are known."""
        return {number: len(one.rows) for number, one in self._slices.items()}

    def differing(
        self, counts: Mapping[int, int], before: Mapping[int, int]
    ) -> Iterable[tuple[datetime, datetime]]:
        """Spans [from, to) of neighbouring slices whose counts in PostgreSQL are not ours.

        `before` is what `counts()` was when PostgreSQL was asked: rows were added while it counted.
        """
        now, span = self.counts(), list[int]()
        for number in sorted(counts):
            known = before.get(number, 0) <= counts[number] <= now.get(number, 0)
            if number < self._first or known:
                continue
            if span and number != span[1]:
                yield start_of(span[0]), start_of(span[1])
                span = []
            span = [span[0] if span else number, number + 1]
        if span:
            yield start_of(span[0]), start_of(span[1])

    def keep_only(self, begin: datetime, end: datetime, listed: set[str]) -> None:
        """Forget rows of whole slices that PostgreSQL no longer has, so that counts agree again."""
        short = set(map(hash, listed))
        for number in range(slice_of(begin), slice_of(end)):
            if one := self._slices.get(number):
                one.rows = array("q", (row for row in one.rows if row in short))
