# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How lines are printed: bytes into a pipe, names and colours on a terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from arvados_nats.commands.log_lines.merge import Line, Merge
from arvados_nats.commands.log_lines.output import LogOutput, Look, without_stamp

STAMP = b"2026-01-02T03:04:05.123456789Z "


def line(data: bytes, file: str = "stdout.txt") -> Line:
    return Line(file, data, b"", 0)


def printed(look: Look, *lines: Line) -> str:
    output = LogOutput(look)
    return (output.render(lines) + output.close()).decode()


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_one_file_into_a_pipe_is_exact(parts: list[bytes]) -> None:
    """Bytes go through unchanged, without an added line end."""
    merged, output = Merge(), LogOutput(Look())
    for part in parts:
        merged.add("a", part, 0)
    assert output.render(merged.end(0)) + output.close() == b"".join(parts)


def test_line_without_end_is_parted_from_another_file() -> None:
    """Two files never share a line; after the last one nothing is added in a pipe."""
    lines = (line(b"half", "a"), line(b"whole\n", "b"), line(b"end", "a"))
    assert printed(Look(), *lines) == "half\nwhole\nend"


def test_pieces_of_one_line_stay_together() -> None:
    """A long line that comes in pieces is named once and not broken."""
    look = Look(safe=True, names=True)
    lines = (line(b"one "), line(b"two\n"), line(b"three\n"))
    assert printed(look, *lines) == "stdout | one two\nstdout | three\n"


def test_terminal_gets_a_last_line_end() -> None:
    """The prompt of the shell begins at the left edge."""
    assert printed(Look(safe=True), line(b"half")) == "half\n"


def test_names_are_of_one_width_and_safe() -> None:
    """Names line up as far as they are known, and cannot act on the terminal."""
    look = Look(safe=True, names=True)
    lines = (line(b"a\n", "crunch-run.txt"), line(b"b\n"), line(b"c\n", "x\x1b[2J.txt"))
    assert printed(look, *lines) == "crunch-run | a\nstdout     | b\nx          | c\n"


def test_wide_names_line_up() -> None:
    """Columns are counted, not letters: also of marks, and where a name is cut."""
    look = Look(safe=True, names=True)
    names = ("標準.txt", "e\u0301tude.txt", "名" * 30 + ".txt")
    shown = printed(look, *(line(b"a\n", name) for name in ("long-enough.txt", *names)))
    rows = [row.partition(" | ")[0] for row in shown.splitlines()]
    assert rows == ["long-enough", "標準       ", "e\u0301tude      ", "名" * 20]


def test_names_have_colours() -> None:
    """Standard error stands out."""
    look = Look(safe=True, names=True, colours=True)
    assert printed(look, line(b"a\n", "stderr.txt")) == "\x1b[31mstderr | \x1b[0ma\n"


def test_stamps_can_be_left_out() -> None:
    """Only a stamp at the beginning, and never what merely looks like one."""
    assert without_stamp(STAMP + b"text\n") == b"text\n"
    assert without_stamp(b"2026-01-02T03:04:05Z text\n") == b"text\n"
    assert without_stamp(STAMP[:-1] + b"\n") == STAMP[:-1] + b"\n"
    assert without_stamp(b"69.01 Z text\n") == b"69.01 Z text\n"
    assert printed(Look(timestamps=False), line(STAMP + b"text\n")) == "text\n"
