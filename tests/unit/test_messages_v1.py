# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The messages of v1: one key each, unknown keys ignored, secrets never shown."""

from __future__ import annotations

import json

import msgspec
import pytest

from arvados_nats.errors import BadInput
from wsproxy import messages_v1
from wsproxy.messages_v1 import (
    Auth,
    EventsTarget,
    From,
    Gap,
    Log,
    LogTarget,
    ObjectTarget,
    Ping,
    Pong,
    Subscribe,
    Unsubscribe,
)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ('{"auth":{"token":"v2/x/y"}}', Auth("v2/x/y")),
        ('{"pong":{}}', Pong()),
        ('{"unsubscribe":{"id":"a"}}', Unsubscribe("a")),
        ('{"subscribe":{"id":"a","events":{}}}', Subscribe("a", events=EventsTarget())),
        (
            '{"subscribe":{"id":"a","object":{"uuid":"u","etag":"e"}}}',
            Subscribe("a", object=ObjectTarget("u", "e")),
        ),
        (
            '{"subscribe":{"id":"a","log":{"uuid":"u","files":["f"],"tail":3,"x":1,'
            '"from":{"f":{"offset":7}}}}}',
            Subscribe("a", log=LogTarget("u", ["f"], {"f": From(7)}, 3)),
        ),
        ('{"later":{}, "pong":{"at":1}}', Pong()),
    ],
)
def test_what_clients_say(frame: str, message: messages_v1.ClientMessage) -> None:
    """Each message as it comes; keys that are not known are left out."""
    assert messages_v1.decode(frame) == message


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "x",
        "null",
        "[]",
        "{}",
        '{"later":{}}',
        '{"auth":{}}',
        '{"auth":{"token":5}}',
        '{"pong":{},"unsubscribe":{"id":"a"}}',
        '{"subscribe":{"events":{}}}',
        '{"subscribe":{"id":"' + "a" * 65 + '","events":{}}}',
        '{"subscribe":{"id":"a","log":{"uuid":"u","tail":-1}}}',
        '{"subscribe":{"id":"a","log":{"uuid":"u","tail":10001}}}',
        '{"subscribe":{"id":"a","events":{"owners":"x"}}}',
        '{"subscribe":{"id":"a","events":{"begin":"yesterday"}}}',
        "[" * 100_000,
    ],
)
def test_what_makes_no_sense_is_bad_input(frame: str) -> None:
    """And nothing else, whatever it is."""
    with pytest.raises(BadInput):
        messages_v1.decode(frame)


@pytest.mark.parametrize("body", ['{"id":"a"}', '{"id":"a","events":{},"object":{"uuid":"u"}}'])
def test_a_subscription_has_exactly_one_target(body: str) -> None:
    """None and two are refused when the target is asked for."""
    message = messages_v1.decode('{"subscribe":' + body + "}")
    assert isinstance(message, Subscribe)
    with pytest.raises(BadInput):
        _ = message.target


def test_a_token_is_never_shown() -> None:
    """Neither by repr, nor in the error about a frame that holds one."""
    assert "secret" not in repr(messages_v1.decode('{"auth":{"token":"secret"}}'))
    for frame in (
        '{"auth":{"token":"secret"',
        '{"auth":"secret"}',
        '{"auth":{"token":["secret"]}}',
    ):
        with pytest.raises(BadInput) as raised:
            messages_v1.decode(frame)
        assert "secret" not in str(raised.value)


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
    assert set(messages_v1.CLIENT_KEYS.values()) == set(messages_v1.ClientMessage.__args__)
    for kind in messages_v1.SERVER_KEYS.values():
        assert issubclass(kind, msgspec.Struct)
