# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A search tells each line that has the text once, by its first byte, however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from arvados_nats.errors import BadInput
from wsproxy.logs import search
from wsproxy.logs.search import Found, Scan, Sought

_LINE = st.lists(
    st.sampled_from([b"a", b"NEEDLE", b"nee", b"dle", b"\x1b[31m", b"\xc3\xa9", b" ", b"\xff"]),
    max_size=12,
).map(b"".join)


def found(data: bytes, size: int, text: str = "needle") -> list[Found]:
    """What is told of bytes that come in pieces of a size."""
    scan = Scan(text, 1000)
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    told = [line for piece in pieces for line in scan.add(piece)]
    return [*told, *scan.add(b"", last=True)]


@pytest.mark.parametrize("longest", [1_000_000, 50])
@example(b"x" * 45 + b"needle" + b"x" * 80 + b"needle\n needle", 7)
@given(st.lists(_LINE, max_size=8).map(b"\n".join), st.integers(1, 30))
def test_each_line_once_in_any_cuts(longest: int, data: bytes, size: int) -> None:
    """Colours within a word do not hide it, nor does the border of two parts of a long line."""
    wanted, offset = [], 1000
    for line in data.split(b"\n"):
        if b"needle" in line.replace(b"\x1b[31m", b"").lower():
            wanted.append(offset)
        offset += len(line) + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_LONGEST_LINE", longest)
        patch.setattr(search, "_ACROSS", 40)
        assert [line.offset for line in found(data, size)] == wanted


def test_the_time_stamp_comes_with_it() -> None:
    """By which lines of several files are put in order."""
    stamp = "2026-11-25T01:02:03.000000001Z"
    assert found(f"{stamp} a needle\n".encode(), 7) == [Found(1000, stamp)]


@pytest.mark.parametrize(
    ("text", "start", "stop"), [("", 0, 1), ("x" * 1001, 0, 1), ("x", 2, 1), ("x", -1, 1)]
)
def test_what_cannot_be_sought(text: str, start: int, stop: int) -> None:
    """It is refused at once."""
    with pytest.raises(BadInput):
        Sought("zzzzz-dz642-000000000000000", "stdout.txt", text, start, stop)
