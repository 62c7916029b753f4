# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The last bytes of files: all of a range or nothing, and never more than is meant for all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wsproxy.logs.place import LogPlace
from wsproxy.logs.recent_bytes import _FILE, RecentBytes

MOST = 200_000
PIECE = st.tuples(st.integers(0, 3), st.binary(min_size=1, max_size=50_000))


@given(st.lists(PIECE, max_size=15))
def test_the_last_bytes_are_at_hand(pieces: list[tuple[int, bytes]]) -> None:
    """Of the file that was written to last for certain, of others if there is room."""
    recent, contents = RecentBytes(MOST), dict.fromkeys(range(4), b"")
    for file, piece in pieces:
        recent.append(file, LogPlace(0, len(contents[file])), piece)
        contents[file] += piece
        assert sum(len(held.data) + _FILE for held in recent._files.values()) == recent._bytes
        assert recent._bytes <= MOST
        content = contents[file]
        assert recent.read(file, LogPlace(0, len(content) - 1), len(content)) == content[-1:]
    for file, content in contents.items():
        for start in (0, len(content) // 2, max(len(content) - 100, 0)):
            found = recent.read(file, LogPlace(0, start), len(content))
            assert found in (b"", content[start:])


def test_what_does_not_join_begins_anew() -> None:
    """After a hole, and in another epoch, the former bytes are no answer."""
    recent = RecentBytes()
    recent.append("f", LogPlace(0, 0), b"abc")
    recent.append("f", LogPlace(0, 5), b"fg")
    assert recent.read("f", LogPlace(0, 0), 3) == b""
    assert recent.read("f", LogPlace(0, 5), 7) == b"fg"
    recent.append("f", LogPlace(1, 7), b"hi")
    assert recent.read("f", LogPlace(0, 5), 7) == b""
    assert recent.read("f", LogPlace(1, 7), 9) == b"hi"
    recent.forget("f")
    assert recent.read("f", LogPlace(1, 7), 9) == b""


def test_a_slow_log_holds_its_last_minute() -> None:
    """Else each of many grows for ten minutes, until it holds what only a fast one has use for."""
    now = 0
    recent = RecentBytes(now=lambda: float(now))
    for now in range(600):
        recent.append("f", LogPlace(0, 200 * now), b"x" * 200)
        assert recent._bytes <= 200 * 62 + _FILE
        begin = 200 * max(now - 29, 0)
        assert recent.read("f", LogPlace(0, begin), 200 * (now + 1))
