# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The frontier of a file: joined bytes go on, anything else is a jump, nothing is guessed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from arvados_nats.contract.log_chunks import Chunk
from wsproxy.logs.frontier import Frontier, Jump, Run
from wsproxy.logs.place import LogPlace


def chunk(offset: int, data: bytes, epoch: int = 0) -> Chunk:
    return Chunk("c", "f", epoch, offset, data)


def accept(
    frontier: Frontier, given: Chunk, sequence: int = 0, previous: int | None = None
) -> list[Run | Jump]:
    return list(frontier.accept(given, sequence, previous))


def test_what_joins_goes_on() -> None:
    """Chunk after chunk."""
    frontier = Frontier()
    assert accept(frontier, chunk(0, b"ab")) == [Run(0, 0, b"ab")]
    assert accept(frontier, chunk(2, b"c")) == [Run(0, 2, b"c")]
    assert frontier.place == LogPlace(0, 3)


def test_what_was_sent_is_not_sent_again() -> None:
    """A doubled chunk gives nothing, an overlapping one only its new bytes."""
    frontier = Frontier()
    accept(frontier, chunk(0, b"abc"))
    assert accept(frontier, chunk(0, b"abc")) == []
    assert accept(frontier, chunk(1, b"bcde")) == [Run(0, 3, b"de")]


def test_a_hole_leaves_the_readers_where_they_are() -> None:
    """The jump tells where; the bytes behind the hole are for nobody yet."""
    frontier = Frontier()
    accept(frontier, chunk(0, b"abc"))
    steps = accept(frontier, chunk(7, b"xyz"))
    assert steps == [Jump(LogPlace(0, 3)), Run(0, 7, b"xyz")]
    assert frontier.place == LogPlace(0, 10)


def test_a_begun_character_waits_for_its_rest() -> None:
    """Held over any number of chunks; sent at the end of the file as it is."""
    frontier = Frontier()
    assert accept(frontier, chunk(0, b"a\xf0")) == [Run(0, 0, b"a")]
    assert accept(frontier, chunk(2, b"\x9f")) == []
    assert (frontier.place, frontier.edge) == (LogPlace(0, 1), 3)
    assert accept(frontier, chunk(3, b"\x98\x80!")) == [Run(0, 1, b"\xf0\x9f\x98\x80!")]
    assert accept(frontier, chunk(6, b"\xe2\x82")) == []
    assert list(frontier.finish(0, 8)) == [Run(0, 6, b"\xe2\x82")]


def test_a_new_epoch_that_follows_on_ends_the_old_one() -> None:
    """The stream's numbers prove that nothing was missed."""
    frontier = Frontier()
    accept(frontier, chunk(0, b"old\xc3"), 5, 0)
    steps = accept(frontier, chunk(0, b"new", 1), 9, 5)
    assert steps == [Run(0, 3, b"\xc3"), Run(1, 0, b"new")]


def test_a_new_epoch_after_something_unseen_is_a_jump() -> None:
    """Readers fetch the end of the old epoch themselves."""
    frontier = Frontier()
    accept(frontier, chunk(0, b"old"), 5, 0)
    steps = accept(frontier, chunk(0, b"new", 1), 9, 7)
    assert steps == [Jump(LogPlace(0, 3)), Run(1, 0, b"new")]
    assert accept(frontier, chunk(3, b"late"), 6, 5) == []


def test_an_end_beyond_what_was_heard_is_a_jump() -> None:
    """And one before it takes nothing back."""
    frontier = Frontier()
    accept(frontier, chunk(0, b"abc"))
    assert list(frontier.finish(0, 2)) == []
    assert list(frontier.finish(0, 9)) == [Jump(LogPlace(0, 3))]
    assert list(frontier.finish(1, 4)) == [Jump(LogPlace(0, 9))]
    assert frontier.place == LogPlace(1, 4)


@given(
    st.binary(min_size=1, max_size=60),
    st.lists(st.tuples(st.integers(0, 59), st.integers(1, 20)), max_size=30),
)
def test_runs_are_the_file_whatever_comes(content: bytes, pieces: list[tuple[int, int]]) -> None:
    """Between jumps the runs join, and each run holds the file's own bytes."""
    frontier, position = Frontier(), 0
    for offset, length in pieces:
        data = content[offset : offset + length]
        for step in frontier.accept(chunk(offset, data), 0, None) if data else ():
            if isinstance(step, Jump):
                assert step.place.offset == position
                position = -1
            else:
                assert position in (-1, step.offset)
                assert step.data == content[step.offset : step.offset + len(step.data)]
                position = step.offset + len(step.data)
        if position == -1:
            position = frontier.end
