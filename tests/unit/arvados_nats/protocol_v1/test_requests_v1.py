# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What clients of v1 say: one key each, unknown keys ignored, secrets never shown."""

from __future__ import annotations

import msgspec
import pytest

from arvados_nats.errors import BadInput
from arvados_nats.protocol_v1 import requests as requests_v1
from arvados_nats.protocol_v1.requests import (
    Auth,
    EventsTarget,
    From,
    LogTarget,
    ObjectTarget,
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
            '{"subscribe":{"id":"a","log":{"uuid":"u","files":["f"],"tail":3,'
            '"from":{"f":{"offset":7}}}}}',
            Subscribe("a", log=LogTarget("u", ["f"], {"f": From(7)}, 3)),
        ),
    ],
)
def test_what_clients_say(frame: str, message: requests_v1.ClientMessage) -> None:
    """Each message as it comes."""
    assert requests_v1.decode(frame) == message


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
        requests_v1.decode(frame)


@pytest.mark.parametrize(
    "frame",
    [
        '{"auth":{"token":"t","tial":1}}',
        '{"pong":{"tial":1}}',
        '{"unsubscribe":{"id":"a","tial":1}}',
        '{"subscribe":{"id":"a","events":{},"tial":1}}',
        '{"subscribe":{"id":"a","events":{"tial":1}}}',
        '{"subscribe":{"id":"a","object":{"uuid":"u","tial":1}}}',
        '{"subscribe":{"id":"a","log":{"uuid":"u","tial":1}}}',
        '{"subscribe":{"id":"a","log":{"uuid":"u","from":{"f":{"offset":0,"tial":1}}}}}',
        '{"subscribe":{"id":"a","log":{"uuid":"u","former":{"c":{"f":{"offset":0,"tial":1}}}}}}',
        '{"pong":{},"tial":1}',
    ],
)
def test_what_is_not_known_is_refused_by_its_name(frame: str) -> None:
    """Wherever it stands: misspelled it would be a request for something else."""
    with pytest.raises(BadInput, match="tial"):
        requests_v1.decode(frame)


@pytest.mark.parametrize("body", ['{"id":"a"}', '{"id":"a","events":{},"object":{"uuid":"u"}}'])
def test_a_subscription_has_exactly_one_target(body: str) -> None:
    """None and two are refused when the target is asked for."""
    message = requests_v1.decode('{"subscribe":' + body + "}")
    assert isinstance(message, Subscribe)
    with pytest.raises(BadInput):
        _ = message.target


def test_a_token_is_never_shown() -> None:
    """Neither by repr, nor in the error about a frame that holds one."""
    assert "secret" not in repr(requests_v1.decode('{"auth":{"token":"secret"}}'))
    for frame in (
        '{"auth":{"token":"secret"',
        '{"auth":"secret"}',
        '{"auth":{"token":["secret"]}}',
    ):
        with pytest.raises(BadInput) as raised:
            requests_v1.decode(frame)
        assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "message",
    [
        Auth("t"),
        Unsubscribe("1"),
        Pong(),
        Subscribe.to("1", LogTarget("u", ["f"], {"f": From(7, 1)}, 3, "c", {"d": {"f": From(1)}})),
        Subscribe.to("1", ObjectTarget("u")),
        Subscribe.to("1", EventsTarget(kinds=["container"], cursor="c")),
    ],
)
def test_server_reads_what_the_client_writes(message: requests_v1.ClientMessage) -> None:
    """Message by message; what is not said does not travel."""
    frame = requests_v1.encode(message)
    assert requests_v1.decode(frame) == message
    assert "null" not in frame


def test_every_message_has_a_key() -> None:
    """The union of messages and the table of keys name the same types."""
    assert set(requests_v1.CLIENT_KEYS.values()) == set(requests_v1.ClientMessage.__args__)
    for kind in requests_v1.CLIENT_KEYS.values():
        assert issubclass(kind, msgspec.Struct)
