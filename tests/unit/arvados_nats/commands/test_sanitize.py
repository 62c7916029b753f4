# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A log can colour a terminal, and do nothing else to it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arvados_nats.commands.sanitize import RESET, Harmless, harmless

NASTY = st.lists(
    st.one_of(
        st.binary(max_size=8),
        st.sampled_from(
            b"\x1b[31m \x1b[0m \x1b[ \x1b]0;t\x07 \x1b]8;;x \x1b\\ \x9b2J \xc2\x9b2J".split(b" ")
        ),
        st.sampled_from(
            ["\u202e".encode(), b"\x1b[2K", b"\x1bP1;2q", b"\x1b", b"m", b"0;1"],
        ),
    ),
    max_size=12,
).map(lambda parts: b"".join(parts).replace(b"\n", b""))


@given(st.lists(NASTY, max_size=4), st.booleans())
def test_only_colours_pass(lines: list[bytes], colours: bool) -> None:
    """Whatever the bytes: what is shown holds no control character outside a complete SGR."""
    screen = Harmless(colours=colours)
    rows = [row for line in lines for row in screen.line(line)]
    for shown in [*rows, *screen.rest()]:
        rest = re.sub(r"\x1b\[[0-9;:]*m", "" if colours else "kept", shown)
        assert not re.search("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", rest)
        assert "kept" not in rest
        assert not shown.rpartition("\x1b[m")[2].rpartition(RESET)[2].count("\x1b")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"plain \xc3\xa9", "plain é"),
        (b"a\tb", "a\tb"),
        (b"\x1b[1;31mred\x1b[0m", f"\x1b[1;31mred{RESET}"),
        (b"\x1b[2Kcleared", "cleared"),
        (b"\x1b]0;title\x07text", "text"),
        (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        (b"\x1b]0;never ended", "^[]0;never ended"),
        (b"bell\x07 nul\x00 del\x7f", "bell^G nul^@ del^?"),
        (b"bad \xff\xfe utf-8", "bad \\xff\\xfe utf-8"),
        ("\u202egpj.exe".encode(), "<U+202E>gpj.exe"),
        (b"\xc2\x9b2J", "<U+009B>2J"),
        (b"10 %\r20 %\r", "20 %"),
        (b"\r", ""),
        (b"", ""),
    ],
)
def test_what_a_terminal_gets(line: bytes, shown: str) -> None:
    """Sequences that are no colours are left out; single control characters are made visible."""
    screen = Harmless()
    assert [*screen.line(line), *screen.rest()] == [shown]


def test_colours_go_on_to_the_next_line_of_the_file() -> None:
    """A program may colour many lines at once; no line leaves its colour to what follows it."""
    screen = Harmless()
    assert screen.line(b"\x1b[31mone") == [f"\x1b[31mone{RESET}"]
    assert screen.line(b"two") == [f"\x1b[31mtwo{RESET}"]
    assert screen.line(b"three\x1b[m end") == [f"\x1b[31mthree{RESET} end"]
    assert screen.line(b"four") == ["four"]


def test_colours_do_not_add_up() -> None:
    """A state that is set again and again stays short."""
    screen = Harmless()
    for _ in range(100):
        screen.line(b"\x1b[0;32mgreen\x1b[1m\x1b[4m")
    assert screen.line(b"x") == [f"\x1b[1;4;32mx{RESET}"]


def test_without_colours_the_text_is_left() -> None:
    """Where colours are not wanted, none are shown."""
    assert harmless(b"\x1b[31mred\x1b[0m") == "red"


def test_a_time_stamp_is_kept_or_left_out_whatever_a_program_rewrites() -> None:
    """It is the line's, not the program's."""
    line = b"2026-11-25T01:02:03.000000001Z 10 %\r20 %"
    assert Harmless().line(line) == ["2026-11-25T01:02:03.000000001Z 20 %"]
    assert Harmless(stamps=False).line(line) == ["20 %"]
    assert Harmless(stamps=False).line(line[:-5]) == ["10 %"]


def nested_bars(steps: int) -> bytes:
    """What tqdm writes for one bar within another, and a line after them."""
    inner = b"".join(
        b"\n\r inner: %3d%%\x1b[A\r outer: %3d%%" % (100 * n // steps, n) for n in range(steps + 1)
    )
    return b"before\nbegin\n" + inner + b"\n\n" + b"".join(b"after %d\n" % n for n in range(9))


def test_bars_are_printed_when_they_are_final() -> None:
    """Not once for each step: the first state, since nobody knows that another will come, and the
    last. What comes after them is not held back for ever."""
    screen = Harmless()
    rows = [row for line in nested_bars(120).split(b"\n")[:-1] for row in screen.line(line)]
    assert rows[-9:] == [f"after {n}" for n in range(9)]
    assert rows[:2] == ["before", "begin"]
    bars = rows[2:-9]
    assert bars[-2:] == [" outer: 120%", " inner: 100%"]
    assert len(bars) <= 5
    assert screen.rest() == []
