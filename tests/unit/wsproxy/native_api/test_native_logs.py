# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The reading of one log file for a native client: bytes, gaps and ends in order."""

from __future__ import annotations

from typing import Any

import pytest

from arvados_nats.contract.answers import Part
from arvados_nats.contract.log_chunks import Chunk, ContainerEnd, FileEnd
from wsproxy.logs.pieces import Found, StreamPage, join
from wsproxy.logs.place import LogPlace
from wsproxy.native_api.log_parts import Log, Reading

CONTAINER = "zzzzz-dz642-000000000000001"
REQUEST = "zzzzz-xvhdp-000000000000001"
OWNER = "zzzzz-j7d0g-000000000000001"
FILE = "stdout.txt"


def log(*, end: ContainerEnd | None = None, over: bool = False) -> Log:
    return Log(CONTAINER, 1, (OWNER, "*", REQUEST), "Running", {}, {}, end, over or end is not None)


def ended(size: int, epoch: int = 0) -> ContainerEnd:
    return ContainerEnd(CONTAINER, "Complete", 0, {FILE: FileEnd(epoch, size, True)})


def reading(place: LogPlace | None = None, *, max_bytes: int = 1000, **log_given: Any) -> Reading:
    return Reading(log(**log_given), FILE, place or LogPlace(0, 0), max_bytes)


def page(*chunks: tuple[int, int, bytes], joined: bool = False, more: bool = False) -> StreamPage:
    """Chunks by (epoch, offset, data)."""
    made = [
        (number, Chunk(CONTAINER, FILE, epoch, offset, data))
        for number, (epoch, offset, data) in enumerate(chunks, 1)
    ]
    return StreamPage(made, joined, more, len(made))


def taken(one: Reading, stream: StreamPage) -> list[Part]:
    found: Found = join(stream, one.place, None)
    return one.take(found, joined=stream.joined)


def shown(parts: list[Part]) -> list[object]:
    """Bytes as (offset, data), gaps as their borders."""
    return [
        part.headers["Arvados-Gap"]
        if "Arvados-Gap" in part.headers
        else (int(part.headers["Arvados-Offset"]), part.data)
        for part in parts
    ]


def test_bytes_carry_what_live_bytes_carry() -> None:
    """File, offset and epoch, and which container and attempt it is."""
    (part,) = taken(reading(), page((0, 0, b"one\n"), (0, 4, b"two\n")))
    assert part.data == b"one\ntwo\n"
    assert part.headers["Arvados-File"] == FILE
    assert part.headers["Arvados-Offset"] == "0"
    assert part.headers["Arvados-Epoch"] == "0"
    assert part.headers["Arvados-Container"] == CONTAINER
    assert part.headers["Arvados-Attempt"] == "1"


def test_a_place_inside_a_chunk() -> None:
    """The answer begins there."""
    one = reading(LogPlace(0, 2))
    assert shown(taken(one, page((0, 0, b"abcdef")))) == [(2, b"cdef")]
    assert one.place == LogPlace(0, 6)
    assert not one.more


def test_no_more_than_was_asked_for() -> None:
    """The rest is told to be there."""
    one = reading(max_bytes=4)
    assert shown(taken(one, page((0, 0, b"abcdef")))) == [(0, b"abcd")]
    assert one.more
    assert one.rest() == []


def test_a_hole_is_told_before_what_follows() -> None:
    """With its borders and where Arvados has the bytes; reading goes on behind it."""
    one = reading()
    parts = taken(one, page((0, 0, b"ab"), (0, 9, b"jk")))
    assert shown(parts) == [(0, b"ab"), "2-9"]
    path = f"/arvados/v1/container_requests/{REQUEST}/log/{CONTAINER}/{FILE}"
    assert parts[1].headers["Arvados-Log-Path"] == path
    assert one.place == LogPlace(0, 9)


@pytest.mark.parametrize(
    ("place", "chunks", "joined", "expected"),
    [
        (LogPlace(0, 0), [(0, 0, b"ab"), (1, 0, b"new")], False, [(0, b"ab")]),
        (LogPlace(0, 2), [(1, 0, b"new")], True, []),
        (LogPlace(0, 2), [(1, 0, b"new")], False, ["2-"]),
        (LogPlace(0, 0), [(1, 0, b"new")], False, ["0-"]),
    ],
    ids=["seen whole", "seen before", "end not seen", "nothing seen"],
)
def test_a_file_that_began_anew(
    place: LogPlace, chunks: list[tuple[int, int, bytes]], joined: bool, expected: list[object]
) -> None:
    """What was before is told missing unless it is known to have been seen to its end."""
    one = reading(place)
    assert shown(taken(one, page(*chunks, joined=joined))) == expected
    assert one.place == LogPlace(1, 0)


def test_the_end_of_a_container() -> None:
    """The size in the end marker tells whether something is missing."""
    one = reading(end=ended(4))
    assert shown(taken(one, page((0, 0, b"abcd")))) == [(0, b"abcd")]
    assert one.rest() == []
    assert one.ended
    other = reading(end=ended(9))
    taken(other, page((0, 0, b"abcd")))
    assert shown(other.rest()) == ["4-9"]
    assert other.place == LogPlace(0, 9)


def test_over_without_an_end_marker() -> None:
    """Nobody can say how large the file is, so its rest is told as not known."""
    one = reading(over=True)
    taken(one, page((0, 0, b"abcd")))
    assert shown(one.rest()) == ["4-"]


def test_a_running_container_has_no_end() -> None:
    """What is not there yet is no gap."""
    one = reading()
    assert taken(one, page()) == []
    assert one.rest() == []
    assert not one.ended
