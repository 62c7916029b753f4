# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The client's side of protocol v1 reads all that the server's side writes."""

from __future__ import annotations

from typing import Any

import pytest

from arvados_nats.errors import BadInput
from terminal import messages
from wsproxy import messages_v1

SENT: list[tuple[messages_v1.ServerMessage, messages.Message]] = [
    (
        messages_v1.Hello("u", "t", 25.0, messages_v1.Limits(10, 1000)),
        messages.Hello("u", "t", 25.0),
    ),
    (messages_v1.Subscribed("1"), messages.Subscribed("1")),
    (messages_v1.Error("c", "m", True, "1"), messages.Error("c", "m", True, "1")),
    (messages_v1.Error("c", "m", False), messages.Error("c", "m")),
    (
        messages_v1.Log("c", "f", 2, 5, 8, text="é\n"),
        messages.Log("c", "f", 2, 5, "é\n".encode()),
    ),
    (
        messages_v1.Log("c", "f", 0, 0, 3, base64="/wBh"),
        messages.Log("c", "f", 0, 0, b"\xff\x00a"),
    ),
    (
        messages_v1.Object("u", "e", {"uuid": "u"}, "x"),
        messages.Object("u", "e", {"uuid": "u"}, "x"),
    ),
    (
        messages_v1.Event(1, "l", None, None, "t", None, "", None, False, {"a": 1}, "x"),
        messages.Event(1, "l", None, None, "t", None, "", None, False, {"a": 1}, "x"),
    ),
    (messages_v1.CaughtUp("1"), messages.CaughtUp("1")),
    (messages_v1.CaughtUp("1", "x"), messages.CaughtUp("1", "x")),
    (
        messages_v1.Gap("1", "gone", "c", "f", 1, 5, None),
        messages.Gap("1", "gone", "c", "f", 1, 5, None),
    ),
    (messages_v1.Gap("1", "gone", cursor="x"), messages.Gap("1", "gone", cursor="x")),
    (messages_v1.Attempt("1", "r", "c", 2), messages.Attempt("1", "r", "c", 2)),
    (
        messages_v1.End(container="c", file="f", epoch=1, size=9, confirmed=False),
        messages.End(container="c", file="f", epoch=1, size=9, confirmed=False),
    ),
    (
        messages_v1.End(container="c", state="Complete", exit_code=3, confirmed=True),
        messages.End(container="c", state="Complete", exit_code=3, confirmed=True),
    ),
    (messages_v1.Revoked("expired"), messages.Revoked("expired")),
    (messages_v1.Ping(), messages.Ping()),
    (messages_v1.Goodbye("drain", (1, 2)), messages.Goodbye("drain", (1, 2))),
]


@pytest.mark.parametrize(("sent", "read"), SENT)
def test_client_reads_what_the_server_writes(
    sent: messages_v1.ServerMessage, read: messages.Message
) -> None:
    """Message by message, with and without what may be absent."""
    assert messages.decode(messages_v1.encode(sent)) == read


def test_no_message_of_the_server_is_left_out() -> None:
    """A new one has to be added here, and to the client."""
    assert {type(sent) for sent, _ in SENT} == set(messages_v1.SERVER_KEYS.values())
    assert messages.SUBPROTOCOL == messages_v1.SUBPROTOCOL


@pytest.mark.parametrize(
    ("key", "body", "read"),
    [
        ("auth", {"token": "t"}, messages_v1.Auth("t")),
        ("unsubscribe", {"id": "1"}, messages_v1.Unsubscribe("1")),
        ("pong", {}, messages_v1.Pong()),
        (
            "subscribe",
            {"id": "1", "object": {"uuid": "u"}},
            messages_v1.Subscribe("1", object=messages_v1.ObjectTarget("u")),
        ),
    ],
)
def test_server_reads_what_the_client_writes(
    key: str, body: dict[str, Any], read: messages_v1.ClientMessage
) -> None:
    """The other way round."""
    assert messages_v1.decode(messages.encode(key, body)) == read


def test_what_a_newer_server_sends_is_ignored() -> None:
    """Unknown messages and unknown keys do no harm."""
    assert messages.decode(b'{"weather":{"id":"1"}}') is None
    assert messages.decode(b'{"ping":{"new":1}}') == messages.Ping()


NO_MESSAGES: list[bytes | str] = [
    b"",
    b"[]",
    b'{"log":{}}',
    b'{"hello":1}',
    "\ud800",
    b'{"log":1}',
    b'{"log":{"container":"c","file":"f","offset":0,"base64":"%%"}}',
]


@pytest.mark.parametrize("frame", NO_MESSAGES)
def test_what_is_no_message_is_bad_input(frame: bytes | str) -> None:
    """One kind of error for all that can not be read."""
    with pytest.raises(BadInput):
        messages.decode(frame)
