# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the server of v1 says: one key each, bytes whole, whatever is newer ignored."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arvados_nats.errors import BadInput
from arvados_nats.protocol_v1 import messages as messages_v1
from arvados_nats.protocol_v1.messages import (
    Attempt,
    Attempts,
    CaughtUp,
    End,
    Error,
    Event,
    Gap,
    Gone,
    Goodbye,
    Hello,
    Limits,
    Log,
    Narrowed,
    Object,
    Ping,
    Place,
    Places,
    Queued,
    Revoked,
    ServerMessage,
    Subscribed,
    Unsubscribed,
)

SENT: list[ServerMessage] = [
    Hello("u", "t", 25.0, Limits(10, 1000)),
    Subscribed("1"),
    Unsubscribed("1"),
    Error("c", "m", True, "1"),
    Error("c", "m", False),
    Log("c", "f", 2, 5, 8, text="é\n"),
    Log("c", "f", 0, 0, 3, base64="/wBh"),
    Places("1", "c", {"f": Place(0, 5)}),
    Object("u", "e", {"uuid": "u"}, "x"),
    Event(1, "l", None, None, "t", None, "", None, False, {"a": 1}, "x"),
    Gone("u", "arvados#collection", "x"),
    Narrowed("1"),
    Queued("1", 4),
    CaughtUp("1"),
    CaughtUp("1", "x"),
    Gap("1", "gone", "c", "f", 1, 5, None),
    Gap("1", "gone", cursor="x"),
    Attempt("1", "r", "c", 2),
    Attempts("1", "r", {"b": 1, "c": 2}),
    End(container="c", file="f", epoch=1, size=9, confirmed=False),
    End(container="c", state="Complete", exit_code=None, confirmed=True),
    Revoked("expired"),
    Ping(),
    Goodbye("drain", (1, 2)),
]


@pytest.mark.parametrize("sent", SENT)
def test_client_reads_what_the_server_writes(sent: ServerMessage) -> None:
    """Message by message, with and without what may be absent."""
    assert messages_v1.decode(messages_v1.encode(sent)) == sent


def test_no_message_is_left_out_here() -> None:
    """A new one has to be added to what is read back."""
    assert {type(sent) for sent in SENT} == set(messages_v1.SERVER_KEYS.values())


def test_what_a_newer_server_sends_is_ignored() -> None:
    """Unknown messages and unknown keys do no harm."""
    assert messages_v1.decode(b'{"weather":{"id":"1"}}') is None
    assert messages_v1.decode(b'{"ping":{"new":1}}') == Ping()


_LOG = b'{"log":{"container":"c","file":"f","epoch":0,"offset":0,"next":'
NO_MESSAGES: list[bytes | str] = [
    b"",
    b"[]",
    b'{"log":{}}',
    b'{"hello":1}',
    "\ud800",
    b'{"log":1}',
    _LOG + b'1,"base64":"%%"}}',
    _LOG + b'2,"text":"x"}}',
]


@pytest.mark.parametrize("frame", NO_MESSAGES)
def test_what_is_no_message_is_bad_input(frame: bytes | str) -> None:
    """One kind of error for all that cannot be read."""
    with pytest.raises(BadInput):
        messages_v1.decode(frame)


@given(st.binary(max_size=200), st.integers(0, 2**50))
def test_any_bytes_come_back(data: bytes, offset: int) -> None:
    """Text if all of it is UTF-8, base64 otherwise; `next` is the offset after it."""
    message = messages_v1.decode(messages_v1.encode(Log.of("c", "f", 1, offset, data)))
    assert isinstance(message, Log)
    assert message.data == data
    assert message.next == offset + len(data)


def test_a_server_message_has_one_key_and_no_empty_fields() -> None:
    """What is not said is left out; null is said."""
    assert messages_v1.encode(Ping()) == b'{"ping":{}}'
    log = json.loads(messages_v1.encode(Log("c", "f", 0, 1, 3, text="é")))
    assert log == {
        "log": {"container": "c", "file": "f", "epoch": 0, "offset": 1, "next": 3, "text": "é"}
    }
    gap = json.loads(messages_v1.encode(Gap("a", "lost", file="f", from_=3, to=None)))
    assert gap == {"gap": {"id": "a", "reason": "lost", "file": "f", "from": 3, "to": None}}


def test_every_message_has_a_key() -> None:
    """The union of server messages and the table of keys name the same types."""
    assert set(messages_v1.SERVER_KEYS.values()) == set(messages_v1.ServerMessage.__args__)
    for kind in messages_v1.SERVER_KEYS.values():
        assert issubclass(kind, msgspec.Struct)
