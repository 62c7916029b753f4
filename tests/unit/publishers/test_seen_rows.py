# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which rows were handed out, and in which slices of time PostgreSQL has others."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publishers.events.seen_rows import SLICE, KnownRows, slice_of, start_of

NOON = datetime(2026, 11, 25, 12, 0, 0)


def test_a_row_is_new_once() -> None:
    """Adding it again, whatever its id says then, tells that it is known."""
    known = KnownRows(NOON)
    assert known.add(1, "a", NOON)
    assert not known.add(1, "a", NOON)
    assert not known.add(2, "a", NOON)
    assert known.has("a", NOON)
    assert known.has_id(1)
    assert not known.has_id(2)
    assert len(known) == 1


def test_two_rows_may_claim_one_id() -> None:
    """An id decides nothing: a row with a known id and another uuid is new."""
    known = KnownRows(NOON)
    known.add(7, "a", NOON)
    assert known.add(7, "b", NOON)


def test_what_is_older_than_the_window_is_not_known_either_way() -> None:
    """The window begins with a whole slice."""
    known = KnownRows(NOON + timedelta(seconds=3))
    assert known.floor == NOON
    assert known.reaches(NOON)
    assert not known.reaches(NOON - timedelta(microseconds=1))
    assert not known.add(1, "a", NOON - timedelta(microseconds=1))
    assert not known.has("a", NOON - timedelta(microseconds=1))


def test_the_window_moves_forward_only() -> None:
    """Rows before the new beginning are forgotten, with their ids."""
    known = KnownRows(NOON)
    known.add(1, "a", NOON)
    known.add(2, "b", NOON + SLICE)
    known.forget_before(NOON + SLICE)
    assert (known.has_id(1), known.has_id(2)) == (False, True)
    assert not known.reaches(NOON)
    known.forget_before(NOON)
    assert known.floor == NOON + SLICE


def test_ids_are_remembered_for_a_moment_and_rows_for_the_window() -> None:
    """A row that is notified again after minutes costs a read, and is known by its uuid."""
    known = KnownRows(NOON)
    for n in range(60):
        known.add(n, str(n), NOON + n * SLICE)
    assert [n for n in range(60) if known.has_id(n)] == list(range(48, 60))
    assert known.add(99, "late", NOON)
    assert not known.has_id(99)
    assert not any(known.add(n, str(n), NOON + n * SLICE) for n in range(60))


def test_only_slices_with_other_counts_differ_and_neighbours_are_one_span() -> None:
    """Equal counts are left alone, more or fewer rows are looked at."""
    known = KnownRows(NOON)
    first = slice_of(NOON)
    known.add(1, "a", NOON)
    counts = {first - 1: 9, first: 1, first + 1: 2, first + 2: 1, first + 5: 1}
    assert list(known.differing(counts, known.counts())) == [
        (start_of(first + 1), start_of(first + 3)),
        (start_of(first + 5), start_of(first + 6)),
    ]
    assert list(known.differing({first: 0}, known.counts())) == [(NOON, NOON + SLICE)]


@pytest.mark.parametrize(("count", "differs"), [(0, True), (1, False), (3, False), (4, True)])
def test_rows_that_were_added_while_postgresql_counted_are_no_difference(
    count: int, differs: bool
) -> None:
    """One row before and three after: what lies between is not worth a list."""
    known = KnownRows(NOON)
    known.add(1, "a", NOON)
    before = known.counts()
    known.add(2, "b", NOON)
    known.add(3, "c", NOON)
    assert bool(list(known.differing({slice_of(NOON): count}, before))) is differs


def test_a_row_that_postgresql_no_longer_has_is_forgotten() -> None:
    """So that a deleted row cannot hide a late one behind an equal count."""
    known = KnownRows(NOON)
    known.add(1, "a", NOON)
    known.add(2, "b", NOON)
    known.keep_only(NOON, NOON + SLICE, {"b"})
    assert not known.has("a", NOON)
    assert list(known.differing({slice_of(NOON): 1}, known.counts())) == []


moments = st.datetimes(NOON - timedelta(hours=1), NOON + timedelta(hours=1))


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("abcdef"), moments)))
def test_each_row_of_the_window_is_new_exactly_once(
    offered: list[tuple[int, str, datetime]],
) -> None:
    """Whatever is offered, `add` says yes once for each uuid and slice that the window reaches."""
    known = KnownRows(NOON)
    taken = [
        (uuid, slice_of(when)) for row_id, uuid, when in offered if known.add(row_id, uuid, when)
    ]
    wanted = {(uuid, slice_of(when)) for _, uuid, when in offered if when >= NOON}
    assert sorted(taken) == sorted(wanted)


@given(moments)
def test_a_slice_begins_at_or_before_its_moments(moment: datetime) -> None:
    """And ends after them."""
    begin = start_of(slice_of(moment))
    assert begin <= moment < begin + SLICE
