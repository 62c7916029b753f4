# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Ranges as the controller reads them, and bytes held between the questions of many readers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arvados_nats.arvados.log_folder import entries
from arvados_nats.errors import Unavailable
from sandbox.api.handlers import webdav
from sandbox.logs.log_files import GrowingFile
from wsproxy.log_folder import ahead, ranges
from wsproxy.log_folder.ahead import Ahead

ends = st.one_of(st.just(""), st.integers(0, 60).map(str))


@given(st.tuples(ends, ends).map("-".join), st.integers(1, 50))
def test_a_range_is_read_as_the_controller_reads_it(asked: str, size: int) -> None:
    """Status, bytes and Content-Range, or left to it."""
    ours, theirs = ranges.part(f"bytes={asked}", size), webdav.part(f"bytes={asked}", size)
    if ours is None:
        assert theirs.status == 416
        assert theirs.content_range is None
    else:
        assert (ours.status, ours.start, ours.stop) == (theirs.status, theirs.start, theirs.stop)
        assert ours.content_range == theirs.content_range


@pytest.mark.parametrize(
    "header",
    ["", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=0-1,2-3", "lines=0-1", "BYTES=0-",
     "bytes=0-1 ", "bytes=1234567890123456789012-", "bytes=٣-"],
)  # fmt: skip
def test_what_is_no_single_range_is_left(header: str) -> None:
    """To the controller."""
    assert ranges.part(header, 10) is None


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(1, 40)), max_size=20))
def test_what_is_held_is_the_files(put: list[tuple[int, int]]) -> None:
    """However pieces come, what is read at a place are the bytes of the file there."""
    content, held = bytes(range(200)), Ahead()
    for at, size in put:
        held.put(("c", "f", 0), at, content[at : at + size])
        assert (
            held.read(("c", "f", 0), at)
            == content[at : at + len(held.read(("c", "f", 0), at))]
            != b""
        )
        for start in range(140):
            found = held.read(("c", "f", 0), start)
            assert found == content[start : start + len(found)]


def test_what_is_held_is_bounded() -> None:
    """Of a file its last bytes, of all files those that were used last."""
    held = Ahead()
    held.put(("c", "f", 0), 0, bytes(2 * ahead.MOST_OF_A_FILE))
    assert held.read(("c", "f", 0), 0) == b""
    assert len(held.read(("c", "f", 0), ahead.MOST_OF_A_FILE)) == ahead.MOST_OF_A_FILE
    most = ahead.MOST // ahead.MOST_OF_A_FILE
    for number in range(most):
        held.put(("c", str(number), 0), 0, bytes(ahead.MOST_OF_A_FILE))
    assert held.read(("c", "f", 0), ahead.MOST_OF_A_FILE) == b""
    assert held.read(("c", "0", 0), 0) != b""


@pytest.mark.parametrize(
    ("at", "stored", "joins", "left"),
    [
        (2, b"234", True, b"56789"),
        (4, b"4", True, b"56789"),
        (2, b"2345678901", True, b""),
        (2, b"abc", False, b""),
        (2, b"23456789x", True, b""),
        (0, b"01234", False, b""),
    ],
)
def test_what_was_read_ahead_must_agree(at: int, stored: bytes, joins: bool, left: bytes) -> None:
    """With what the stream got since: else they are of two lives of the file, which nobody saw
    change, and neither is followed by the other's rest."""
    held, key = Ahead(), ("c", "f", 0)
    held.put(key, 2, b"23456789")
    assert held.joins(key, at, stored) is joins
    assert held.read(key, at + len(stored)) == left


def test_a_listing_says_what_headers_say() -> None:
    """Names are those of the path, whatever characters they have; folders are left out."""
    file = GrowingFile(b"12345")
    listed = entries(webdav.multistatus("/log/c", {"a b<&>é.txt": file, "folder": None}))
    assert list(listed) == ["a b<&>é.txt"]
    entry = listed["a b<&>é.txt"]
    assert (entry.size, entry.etag) == (5, webdav.etag(file))
    assert entry.last_modified == webdav.time_of(file)
    for broken in (b"", b"<a>", b"not xml"):
        with pytest.raises(Unavailable):
            entries(broken)
