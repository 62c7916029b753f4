# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Merging log files by time stamp: nothing lost, no file reordered, live lines at once."""

from __future__ import annotations

import itertools
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arvados_nats.commands.log_lines import merge
from arvados_nats.commands.log_lines.merge import Line, Merge

BYTES = st.one_of(
    st.binary(max_size=40),
    st.lists(
        st.sampled_from(
            [
                b"2026-01-02T03:04:05.000000001Z a\n",
                b"2026-01-02T03:04:05.000000002Z b\n",
                b"2026-01-02T03:04:06Z short stamp\n",
                b"Traceback\n",
                b"  69.01998901367188\n",
                b"\n",
                b"no end",
                b"\r\n",
            ]
        ),
        max_size=6,
    ).map(b"".join),
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]), BYTES, st.sampled_from(["add", "take", "live", "behind"])
    ),
    max_size=30,
)


def at(second: int, text: str = "") -> bytes:
    return f"2026-01-02T03:04:{second:02d}.000000000Z {text}\n".encode()


def texts(lines: list[Line]) -> list[str]:
    return [line.data.decode().rpartition("Z ")[2].strip() for line in lines]


@given(STEPS)
def test_every_file_comes_out_byte_for_byte(steps: list[tuple[str, bytes, str]]) -> None:
    """Whatever is cut anyhow and taken at any time, each file's bytes are all there, in order."""
    given_bytes: defaultdict[str, bytes] = defaultdict(bytes)
    taken: list[Line] = []
    merged = Merge(held_bytes=100)
    for now, (file, data, what) in enumerate(steps):
        merged.add(file, data, now)
        given_bytes[file] += data
        if what == "live":
            merged.caught_up()
        if what == "behind":
            merged.behind()
        if what != "add":
            taken += merged.take(now)
    taken += merged.end(len(steps))
    for file, data in given_bytes.items():
        assert b"".join(line.data for line in taken if line.file == file) == data


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 59)), max_size=40))
def test_lines_of_history_come_out_by_time(written: list[tuple[str, int]]) -> None:
    """When each file is in order by itself, the whole is."""
    merged = Merge()
    for file, second in sorted(written, key=lambda one: one[1]):
        merged.add(file, at(second), 0)
    taken = merged.end(0)
    assert [line.key for line in taken] == sorted(line.key for line in taken)


@given(STEPS)
def test_a_line_is_cut_only_at_line_ends_and_at_the_end(
    steps: list[tuple[str, bytes, str]],
) -> None:
    """Before the end only whole lines come out; at the end at most one open line of each file."""
    merged = Merge(held_bytes=100)
    for now, (file, data, what) in enumerate(steps):
        merged.add(file, data, now)
        if what == "live":
            merged.caught_up()
        if what == "behind":
            merged.behind()
        assert all(line.whole and line.data.count(b"\n") == 1 for line in merged.take(now + 1))
    last: dict[str, bool] = {}
    for line in merged.end(len(steps)):
        assert last.get(line.file, True), "nothing follows an open line"
        last[line.file] = line.whole


def test_traceback_stays_with_its_line() -> None:
    """Lines without stamp keep with the line before, whatever other files wrote meanwhile."""
    merged = Merge()
    merged.add("stderr.txt", at(5, "boom") + b"Traceback\n  69.01998901367188\n" + at(9, "on"), 0)
    merged.add("stdout.txt", at(4, "four") + at(6, "six"), 0)
    assert texts(merged.end(0)) == ["four", "boom", "Traceback", "69.01998901367188", "six", "on"]


def test_stamp_that_goes_back_reorders_nothing() -> None:
    """A clock that was set back does not move a line before the one before it."""
    merged = Merge()
    merged.add("a", at(5, "first") + at(3, "second"), 0)
    merged.add("b", at(4, "other"), 0)
    assert texts(merged.end(0)) == ["other", "first", "second"]


def test_lines_of_one_millisecond_alternate_as_they_were_written() -> None:
    """stdout and stderr in turns, each flushed: their stamps have nanoseconds
    (docs/facts/arvados-demand.md G19)."""
    stamp = b"2026-01-02T03:04:05.000%06dZ "
    merged = Merge()
    merged.add("stdout.txt", stamp % 100 + b"out 1\n" + stamp % 300 + b"out 3\n", 0)
    merged.add("stderr.txt", stamp % 200 + b"err 2\n" + stamp % 400 + b"err 4\n", 0)
    assert [line.data[31:] for line in merged.end(0)] == [
        b"out 1\n",
        b"err 2\n",
        b"out 3\n",
        b"err 4\n",
    ]


def test_equal_stamps_keep_each_file_together() -> None:
    """Lines of one time come file by file, in the order the files appeared."""
    merged = Merge()
    merged.add("b", at(1, "b1") + at(1, "b2"), 0)
    merged.add("a", at(1, "a1"), 0)
    assert texts(merged.end(0)) == ["b1", "b2", "a1"]


def test_live_line_waits_a_tenth_of_a_second() -> None:
    """A live line is shown at once, but for the moment in which an earlier one may come."""
    merged = Merge()
    merged.caught_up()
    merged.add("a", at(5, "later"), 100.0)
    assert merged.take(100.05) == []
    assert merged.due() == pytest.approx(100.0 + merge.HOLD_SECONDS)
    merged.add("b", at(4, "earlier"), 100.06)
    assert texts(merged.take(100.0 + merge.HOLD_SECONDS)) == ["earlier", "later"]
    assert merged.due() is None


def test_live_line_does_not_wait_for_a_quiet_file() -> None:
    """A file that says nothing, or has an open line, holds up nobody."""
    merged = Merge()
    merged.add("quiet", b"no end", 0)
    merged.caught_up()
    merged.add("a", at(5, "line"), 1)
    assert texts(merged.take(2)) == ["line"]


def test_history_after_a_lost_connection_is_put_in_order_again() -> None:
    """What was missed comes file by file in turns, like the history at the beginning."""
    merged = Merge()
    merged.caught_up()
    merged.add("a", at(1, "live"), 0)
    assert texts(merged.take(1)) == ["live"]
    merged.behind()
    merged.add("a", at(4, "four"), 1)
    assert merged.take(2) == []
    merged.add("b", at(3, "three"), 2)
    merged.caught_up()
    assert texts(merged.take(3)) == ["three", "four"]


def test_open_line_is_shown_at_the_end() -> None:
    """The half line that a program leaves is not lost."""
    merged = Merge()
    merged.caught_up()
    merged.add("a", b"--en", 0)
    assert merged.take(10) == []
    merged.add("a", b"d--", 11)
    assert [line.data for line in merged.end(12)] == [b"--end--"]


def test_history_waits_for_a_file_that_may_have_earlier_lines() -> None:
    """Files come in turns: no line is printed before each file has shown what it has next."""
    merged = Merge()
    for number in range(20):
        merged.add("late", at(30 + number, "x" * 1000) * 100, 0)
        merged.add("early", at(number) * 10, 0)
    taken = merged.take(0)
    assert taken
    assert {line.file for line in taken} == {"early"}


def test_history_goes_on_when_the_small_files_are_through() -> None:
    """A large file is printed while it loads, once the others have sent nothing for long."""
    merged = Merge()
    merged.add("small", at(1), 0)
    taken = []
    for number in range(300):
        merged.add("large", at(2, "x" * 80) * 400, 0)
        taken += merged.take(0)
        if number == 5:
            assert taken == []
    assert merged.exact
    assert len(taken) > 250 * 400


def test_what_waits_is_bounded() -> None:
    """Two files of different times that are too large to hold: order gives way, and it is said."""
    merged = Merge(held_bytes=100_000)
    largest = 0
    for number in itertools.count():
        merged.add("early", at(1, "x" * 50) * 100, 0)
        merged.add("late", at(2, "x" * 50) * 100, 0)
        merged.take(0)
        largest = max(largest, merged.waiting)
        if number == 200:
            break
    assert not merged.exact
    assert largest <= 100_000


def test_line_without_end_is_given_out_in_pieces() -> None:
    """A gigabyte without a line end does not have to fit into memory."""
    merged = Merge()
    merged.caught_up()
    for _ in range(3):
        merged.add("a", b"x" * merge.LONGEST_LINE, 0)
    merged.add("a", b"y\nnext\n", 0)
    taken = merged.take(1)
    assert [line.whole for line in taken] == [False, True, True]
    assert b"".join(line.data for line in taken).endswith(b"xy\nnext\n")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b"2026-01-02T03:04:05.123456789Z x", b"2026-01-02T03:04:05.123456789Z"),
        (b"2026-01-02T03:04:05.5Z x", b"2026-01-02T03:04:05.500000000Z"),
        (b"2026-01-02T03:04:05Z x", b"2026-01-02T03:04:05.000000000Z"),
        (b" 2026-01-02T03:04:05.123456789Z x", b""),
        (b"69.01998901367188", b""),
        (b"2026-01-02T03:04:05.123456789", b""),
        (b"", b""),
    ],
)
def test_what_counts_as_a_stamp(line: bytes, found: bytes) -> None:
    """RFC 3339 in UTC at the very beginning, with any number of decimals up to nine."""
    assert merge.stamp(line) == found
