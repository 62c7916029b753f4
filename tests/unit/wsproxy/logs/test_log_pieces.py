# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Pages of stored chunks as bytes from a place on."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arvados_nats.contract.log_chunks import Chunk
from wsproxy.logs.pieces import PIECE_BYTES, After, Found, StreamPage, join, pieces
from wsproxy.logs.place import LogPlace
from wsproxy.logs.tail import start_of_last


def page(*chunks: tuple[int, int, bytes], joined: bool = False, more: bool = False) -> StreamPage:
    made = [
        (number, Chunk("c", "f", epoch, offset, data))
        for number, (epoch, offset, data) in enumerate(chunks, 1)
    ]
    return StreamPage(made, joined, more, len(made))


A, B, NEXT = (0, 0, b"abc"), (0, 3, b"def"), (1, 0, b"new")


@pytest.mark.parametrize(
    ("given", "place", "stop", "found"),
    [
        (page(A, B), LogPlace(0, 0), 6, Found(b"abcdef", After.STOP, True)),
        (page(A, B), LogPlace(0, 0), 4, Found(b"abcd", After.STOP, True)),
        (page(A, B), LogPlace(0, 2), 6, Found(b"cdef", After.STOP, True)),
        (page(A, B), LogPlace(0, 0), 9, Found(b"abcdef", After.DRY, True)),
        (page(A, B, more=True), LogPlace(0, 0), 9, Found(b"abcdef", After.MORE, True)),
        (page(B), LogPlace(0, 0), 6, Found(b"", After.HOLE, True, LogPlace(0, 3))),
        (page(A, (0, 5, b"f")), LogPlace(0, 1), 6, Found(b"bc", After.HOLE, True, LogPlace(0, 5))),
        (page(A, NEXT), LogPlace(0, 1), None, Found(b"bc", After.EPOCH, True, LogPlace(1, 0))),
        (page(A, NEXT), LogPlace(0, 3), None, Found(b"", After.EPOCH, True, LogPlace(1, 0))),
        (page(A, NEXT), LogPlace(0, 9), None, Found(b"", After.EPOCH, False, LogPlace(1, 0))),
        (
            page(NEXT, joined=True),
            LogPlace(0, 9),
            None,
            Found(b"", After.EPOCH, True, LogPlace(1, 0)),
        ),
        (page(A, NEXT), LogPlace(1, 0), 3, Found(b"new", After.STOP, True)),
        (page(), LogPlace(0, 4), 9, Found(b"", After.DRY, False)),
    ],
)
def test_join(given: StreamPage, place: LogPlace, stop: int | None, found: Found) -> None:
    """Every way a page can go on from a place."""
    assert join(given, place, stop) == found


@given(st.binary(max_size=3 * PIECE_BYTES), st.booleans())
def test_pieces_are_the_bytes(data: bytes, whole: bool) -> None:
    """In order, none too long; only a begun character may be left off, and only if more follows."""
    made = pieces("c", "f", LogPlace(0, 100), data, whole=whole)
    joined = b"".join(piece.data for piece in made)
    assert data.startswith(joined)
    assert len(data) - len(joined) <= (0 if whole else 3)
    offset = 100
    for piece in made:
        assert piece.offset == offset and 0 < len(piece.data) <= PIECE_BYTES
        offset = piece.next.offset


def test_a_piece_builds_its_message_once() -> None:
    """All readers at its place get the same frame."""
    (piece,) = pieces("c", "f", LogPlace(2, 5), b"hello", whole=True)
    assert piece.message is piece.message
    assert json.loads(piece.message.text)["log"] == {
        "container": "c",
        "file": "f",
        "epoch": 2,
        "offset": 5,
        "next": 10,
        "text": "hello",
    }


@pytest.mark.parametrize(
    ("data", "lines", "start"),
    [
        (b"", 1, 0),
        (b"a", 1, 0),
        (b"a\n", 1, 0),
        (b"a\nb\n", 1, 2),
        (b"a\nb", 1, 2),
        (b"a\nb\n", 2, 0),
        (b"a\nb\n", 9, 0),
        (b"\n\n\n", 1, 2),
        (b"\n\n\n", 2, 1),
    ],
)
def test_where_the_last_lines_begin(data: bytes, lines: int, start: int) -> None:
    """As tail(1): an open line at the end counts as one."""
    assert start_of_last(data, lines) == start
