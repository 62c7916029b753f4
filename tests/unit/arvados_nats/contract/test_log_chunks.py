# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Chunks and end markers survive the way through headers and subjects, and cuts fall well."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arvados_nats.contract import log_chunks, subjects
from arvados_nats.contract.log_chunks import Chunk, ContainerEnd, FileEnd, cut
from arvados_nats.errors import BadInput

CONTAINER = "zzzzz-dz642-000000000000001"
OTHER = "zzzzz-dz642-000000000000002"
CHUNK = Chunk(CONTAINER, "stdout.txt", 2, 17, b"a\0b\n")
END = ContainerEnd(CONTAINER, "Complete", 0, {"stdout.txt": FileEnd(2, 21, confirmed=True)})


@pytest.mark.parametrize("place", [str, subjects.stored])
@pytest.mark.parametrize("pushed", [False, True])
def test_chunk_is_read_back_as_it_was(place: type[str], pushed: bool) -> None:
    """From the stream and from what the server republishes."""
    chunk = Chunk(CONTAINER, "stdout.txt", 2, 17, b"a\0b\n", pushed)
    assert log_chunks.parse(place(chunk.subject), chunk.headers, chunk.data) == chunk


def test_chunk_is_read_back_from_the_live_tree() -> None:
    """The container and the file are the last two tokens there, too."""
    subject = subjects.live_log(
        "zzzzz-j7d0g-0", "zzzzz-j7d0g-0", "zzzzz-xvhdp-0", CONTAINER, "stdout.txt"
    )
    assert log_chunks.parse(subject, CHUNK.headers, CHUNK.data) == CHUNK


def test_end_marker_is_read_back_as_it_was() -> None:
    """An end marker has a subject that no file of crunch-run has."""
    assert log_chunks.parse(END.subject, END.headers, END.payload) == END
    assert END.subject == f"arvados.logs.{CONTAINER}.end"


def test_where_a_chunk_ends() -> None:
    """The next chunk joins at offset plus length."""
    assert CHUNK.end == 21


def test_message_id_names_the_bytes() -> None:
    """A retry has the same id; the same offset in another epoch has not."""
    again = Chunk(CONTAINER, "stdout.txt", 3, 17, b"a\0b\n")
    assert CHUNK.headers["Nats-Msg-Id"] == f"{CONTAINER}/stdout.txt/2/17"
    assert again.headers["Nats-Msg-Id"] != CHUNK.headers["Nats-Msg-Id"]


@pytest.mark.parametrize(
    ("changed", "id"),
    [
        ({"Arvados-File": None}, "no file"),
        ({"Arvados-File": "stderr.txt"}, "the bytes of another file"),
        ({"Arvados-Offset": None}, "no offset"),
        ({"Arvados-Offset": "-1"}, "a negative offset"),
        ({"Arvados-Offset": "1e3"}, "an offset that is no number"),
        ({"Arvados-Offset": "٣"}, "digits that are not ASCII"),
        ({"Arvados-Offset": "9" * 5000}, "more digits than Python reads"),
        ({"Arvados-Epoch": ""}, "an empty epoch"),
        ({"Arvados-Epoch": str(2**53)}, "an epoch that no browser counts"),
        ({"Arvados-Offset": str(2**53 - 2)}, "bytes that no browser counts"),
        ({"Arvados-File": "stdout.txt "}, "a name that a header loses"),
        ({"Arvados-File": "stdout\n.txt"}, "a name of two lines"),
        ({"Arvados-File": "stdout/txt"}, "a name of another folder"),
    ],
)
def test_headers_that_a_container_made_up(changed: dict[str, str | None], id: str) -> None:
    """What is not a chunk is BadInput, whatever is wrong with it."""
    headers = {k: v for k, v in {**CHUNK.headers, **changed}.items() if v is not None}
    with pytest.raises(BadInput):
        log_chunks.parse(CHUNK.subject, headers, CHUNK.data)


def test_a_chunk_is_no_larger_than_one_may_be() -> None:
    """64 KiB are, a byte more is not; nor has an end marker more."""
    largest = bytes(log_chunks.MAX_CHUNK_BYTES)
    assert log_chunks.parse(CHUNK.subject, CHUNK.headers, largest)
    for subject, data in ((CHUNK.subject, largest + b"x"), (END.subject, END.payload + largest)):
        with pytest.raises(BadInput):
            log_chunks.parse(subject, CHUNK.headers, data)


@pytest.mark.parametrize(
    "subject",
    [
        f"arvados.logs.{OTHER}.{CONTAINER}.stdout_txt",
        f"arvados.logs.{OTHER}.{CONTAINER}.end",
        "arvados.logs.stdout_txt",
        "stdout_txt",
        f"arvados.live.{CONTAINER}.stdout_txt",
        f"arvados.events.{CONTAINER}.stdout_txt",
    ],
)
def test_a_subject_with_more_or_less_is_no_log(subject: str) -> None:
    """A container may not add tokens in order to be taken for another."""
    for headers, data in ((CHUNK.headers, CHUNK.data), (END.headers, END.payload)):
        with pytest.raises(BadInput):
            log_chunks.parse(subject, headers, data)


def test_only_the_subject_says_that_it_is_the_end() -> None:
    """With its header elsewhere it is bytes; there it needs none, and is never bytes."""
    assert isinstance(
        log_chunks.parse(CHUNK.subject, {**CHUNK.headers, **END.headers}, END.payload), Chunk
    )
    assert log_chunks.parse(END.subject, {}, END.payload) == END
    with pytest.raises(BadInput):
        log_chunks.parse(END.subject, {**CHUNK.headers, "Arvados-File": "end"}, b"x")


@pytest.mark.parametrize("change", [{"epoch": -1}, {"size": -1}, {"epoch": 2**53}, {"size": 2**53}])
def test_an_end_with_numbers_that_no_file_has(change: dict[str, int]) -> None:
    """Beyond what a browser counts, or below nothing."""
    ends = {"a": {"epoch": 0, "size": 0, "confirmed": True, **change}}
    end = {"container_uuid": CONTAINER, "state": "Complete", "exit_code": 0, "files": ends}
    with pytest.raises(BadInput):
        log_chunks.parse(END.subject, END.headers, msgspec.json.encode(end))


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b"\xff", END.payload[:-1]])
def test_end_marker_that_is_none(payload: bytes) -> None:
    """What is not an end marker is BadInput."""
    with pytest.raises(BadInput):
        log_chunks.parse(END.subject, END.headers, payload)


def test_no_container_ends_the_log_of_another() -> None:
    """The container in the marker must be the one of the subject."""
    forged = ContainerEnd(OTHER, "Complete", 0, {})
    with pytest.raises(BadInput):
        log_chunks.parse(END.subject, END.headers, forged.payload)


@pytest.mark.parametrize("subject", ["", "logs", "arvados.logs"])
def test_subject_that_is_too_short(subject: str) -> None:
    """A message from anywhere else is BadInput."""
    with pytest.raises(BadInput):
        log_chunks.parse(subject, CHUNK.headers, CHUNK.data)


def test_no_headers_at_all() -> None:
    """nats-py gives None where there are none."""
    with pytest.raises(BadInput):
        log_chunks.parse(CHUNK.subject, None, b"")


@given(st.binary(max_size=2000), st.integers(4, 300))
def test_cut_pieces_are_the_bytes(data: bytes, limit: int) -> None:
    """Joined they are the same; none is empty or longer than the limit."""
    pieces = cut(data, limit=limit)
    assert b"".join(pieces) == data
    assert all(0 < len(piece) <= limit for piece in pieces)


@given(st.lists(st.binary(max_size=50), max_size=60), st.integers(60, 300))
def test_cuts_fall_after_line_ends(lines: list[bytes], limit: int) -> None:
    """Where every line fits, no line is cut."""
    data = b"".join(line.replace(b"\n", b" ") + b"\n" for line in lines)
    assert all(piece.endswith(b"\n") for piece in cut(data, limit=limit))


@given(st.text(max_size=2000), st.integers(4, 100))
def test_no_character_is_cut(text: str, limit: int) -> None:
    """A line longer than a chunk is cut between two characters (docs/facts/arvados-
    demand.md G14)."""
    pieces = cut(text.encode(errors="replace"), limit=limit)
    assert "".join(piece.decode() for piece in pieces) == text.encode(errors="replace").decode()


@pytest.mark.parametrize("before", range(8))
def test_emoji_at_every_place_of_the_edge(before: int) -> None:
    """A character of four bytes at the edge goes whole into the next piece."""
    data = b"x" * before + "\N{GRINNING FACE}".encode() * 3
    assert all(piece.decode() for piece in cut(data, limit=8))


def test_broken_characters_do_not_stop_a_cut() -> None:
    """Bytes that only continue a character are cut at the limit."""
    assert [len(piece) for piece in cut(b"\x80" * 20, limit=8)] == [8, 8, 4]
