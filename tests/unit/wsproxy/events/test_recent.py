# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The newest events, bounded, and honest about what is gone."""

from __future__ import annotations

from tests.support.made_events import made
from wsproxy.events.recent import Recent


def sequences(recent: Recent, after: int, limit: int = 100) -> list[int] | None:
    found = recent.after(after, limit)
    return None if found is None else [stored.sequence for stored in found]


def filled(*numbers: int, limit: int = 100, **bounds: int) -> Recent:
    recent = Recent(limit, **bounds)
    for number in numbers:
        recent.add(made(number))
    return recent


def test_gives_what_follows_in_pages() -> None:
    """Holes of the stream are no matter."""
    recent = filled(1, 2, 5, 6, 9)
    assert sequences(recent, 0) == [1, 2, 5, 6, 9]
    assert sequences(recent, 2, limit=2) == [5, 6]
    assert sequences(recent, 3) == [5, 6, 9]
    assert sequences(recent, 9) == []


def test_says_so_when_events_are_gone() -> None:
    """None is not the same as nothing."""
    recent = filled(*range(1, 21), limit=5)
    assert len(recent) == 5
    assert sequences(recent, 14) is None
    assert sequences(recent, 15) == [16, 17, 18, 19, 20]


def test_bytes_bound_it_as_well() -> None:
    """Large events push out more."""
    size = made(1).size
    recent = filled(*range(1, 21), max_bytes=3 * size + size // 2)
    assert sequences(recent, 17) == [18, 19, 20]
    assert sequences(recent, 16) is None


def test_reset_begins_at_a_place() -> None:
    """What came before it is not here."""
    recent = filled(1, 2, 3)
    recent.reset(10)
    assert sequences(recent, 5) is None
    assert sequences(recent, 9) == []
    recent.add(made(10))
    assert sequences(recent, 9) == [10]


def test_rows_are_remembered_longer_than_events() -> None:
    """Their place in the stream, by id; bounded too."""
    recent = filled(*range(1, 11), limit=3, rows=8)
    assert recent.sequence_of(3) == 3
    assert recent.sequence_of(2) is None
    assert recent.sequence_of(99) is None


def test_long_use_keeps_to_the_bounds() -> None:
    """Whatever the internal list does."""
    recent = filled(*range(1, 1001), limit=7)
    assert len(recent) == 7
    assert sequences(recent, 993) == list(range(994, 1001))
