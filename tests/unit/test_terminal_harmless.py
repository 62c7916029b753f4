# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A log can colour a terminal, and do nothing else to it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arvados_nats.commands.sanitize import RESET, Harmless

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
    harmless = Harmless(colours=colours)
    for line in lines:
        shown = harmless.line(line)
        rest = re.sub(r"\x1b\[[0-9;:]*m", "" if colours else "kept", shown)
        assert not re.search("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", rest)
        assert "kept" not in rest or b"kept" in line
        assert "\x1b" not in shown or shown.endswith(RESET)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"plain \xc3\xa9", "plain é"),
        (b"a\tb", "a\tb"),
        (b"\x1b[1;31mred\x1b[0m", f"\x1b[1;31mred\x1b[0m{RESET}"),
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
    assert Harmless().line(line) == shown


def test_colours_go_on_to_the_next_line_of_the_file() -> None:
    """A program may colour many lines at once; no line leaves its colour to what follows it."""
    harmless = Harmless()
    assert harmless.line(b"\x1b[31mone") == f"\x1b[31mone{RESET}"
    assert harmless.line(b"two") == f"\x1b[31mtwo{RESET}"
    assert harmless.line(b"three\x1b[m end") == f"\x1b[31mthree\x1b[m end{RESET}"
    assert harmless.line(b"four") == "four"


def test_colours_that_begin_afresh_do_not_add_up() -> None:
    """A state that is set again and again stays short, and one that grows for ever is dropped."""
    harmless = Harmless()
    for _ in range(100):
        harmless.line(b"\x1b[0;32mgreen")
    assert harmless.line(b"x") == f"\x1b[0;32mx{RESET}"
    for _ in range(100):
        harmless.line(b"\x1b[1m\x1b[4m")
    assert len(harmless.line(b"x")) < 100


def test_without_colours_the_text_is_left() -> None:
    """Where colours are not wanted, none are shown."""
    assert Harmless(colours=False).line(b"\x1b[31mred\x1b[0m") == "red"
