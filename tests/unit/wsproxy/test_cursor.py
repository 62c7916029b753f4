# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Cursors: nobody else can make one, and every one comes back as it was."""

from __future__ import annotations

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arvados_nats.errors import BadInput
from wsproxy.cursors import Codec, LogCursor
from wsproxy.events.cursor import EventCursor
from wsproxy.logs.place import LogPlace

CODEC = Codec(b"seed of wsproxy")

places = st.builds(LogPlace, st.integers(0, 9), st.integers(0, 2**50))
cursors = st.one_of(
    st.builds(
        EventCursor,
        st.text(max_size=30),
        st.integers(0, 2**53),
        st.integers(0, 2**53),
        st.integers(0, 2**32 - 1),
    ),
    st.builds(
        LogCursor,
        st.text(max_size=30),
        st.dictionaries(st.text(max_size=20), places, max_size=12),
        st.booleans(),
        st.dictionaries(
            st.text(max_size=20),
            st.dictionaries(st.text(max_size=20), places, max_size=3),
            max_size=2,
        ),
    ),
)


def decode(text: str, cursor: EventCursor | LogCursor) -> EventCursor | LogCursor:
    return CODEC.events(text) if isinstance(cursor, EventCursor) else CODEC.log(text)


@given(cursors)
def test_every_cursor_comes_back(cursor: EventCursor | LogCursor) -> None:
    """As URL-safe text without padding."""
    text = CODEC.encode(cursor)
    assert decode(text, cursor) == cursor
    assert text.replace("-", "").replace("_", "").isalnum()


@given(cursors, st.data())
def test_one_changed_bit_is_refused(cursor: EventCursor | LogCursor, data: st.DataObject) -> None:
    """Wherever it is."""
    text = CODEC.encode(cursor)
    raw = bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    changed = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    with pytest.raises(BadInput):
        decode(changed, cursor)


@pytest.mark.parametrize("text", ["", "a", "é", "!!!!", "AAAA", "A" * 20_000, "a\nb"])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    """With one kind of error, whatever it is."""
    with pytest.raises(BadInput):
        CODEC.events(text)
    with pytest.raises(BadInput):
        CODEC.log(text)


def test_a_cursor_of_another_cluster_is_refused() -> None:
    """The key is each cluster's own."""
    with pytest.raises(BadInput):
        CODEC.events(Codec(b"another seed").encode(EventCursor("now", 1)))


def test_a_cursor_outlives_the_key_that_sealed_it() -> None:
    """Once: what the key before the former one has sealed is nobody's."""
    cursor = EventCursor("now", 7)
    replaced = Codec(b"new seed of wsproxy", b"seed of wsproxy")
    assert replaced.events(CODEC.encode(cursor)) == cursor
    assert replaced.encode(cursor) == Codec(b"new seed of wsproxy").encode(cursor)
    with pytest.raises(BadInput):
        Codec(b"newer seed", b"new seed of wsproxy").events(CODEC.encode(cursor))


def test_a_cursor_of_before_marks_is_taken() -> None:
    """And a process of before takes ours: what follows the sequence is left out there."""
    former = msgspec.defstruct(
        "Former", [("created", str), ("sequence", int)], tag="e", array_like=True, frozen=True
    )
    old = msgspec.msgpack.encode(former("now", 7))
    assert msgspec.msgpack.decode(old, type=EventCursor) == EventCursor("now", 7)
    new = msgspec.msgpack.encode(EventCursor("now", 7, 9, 5))
    assert msgspec.msgpack.decode(new, type=former) == former("now", 7)


def test_kinds_are_not_mixed_up() -> None:
    """A place in a log is none in the events."""
    with pytest.raises(BadInput):
        CODEC.events(CODEC.encode(LogCursor("c", {})))
    with pytest.raises(BadInput):
        CODEC.log(CODEC.encode(EventCursor("now", 1)))


def test_replicas_understand_each_other() -> None:
    """The same key gives the same cursor."""
    cursor = EventCursor("now", 7)
    assert Codec(b"seed").encode(cursor) == Codec(b"seed").encode(cursor)
