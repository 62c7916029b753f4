# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The WAMP session alone: what it does with any frame, and when."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arvados_nats.errors import Unavailable
from wsproxy.transport.close_codes import CloseCode
from wsproxy.transport.limits import Kept
from wsproxy.wamp.messages import Code, publication_of
from wsproxy.wamp.session import AUTH_SECONDS, Bounds, SessionWamp
from wsproxy.wamp.steps import Admit, Ask, Begin, Close, Say, Step, Stop

USER, TOKEN = "zzzzz-tpzed-000000000000001", "zzzzz-gj3su-000000000000001"
HELLO = json.dumps([1, "arvados", {"authmethods": ["ticket"]}])
TOPIC = "arvados.event.zzzzz-tpzed-000000000000001.collection.update"

_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)
_messages = st.tuples(st.sampled_from([*Code, 7, 37, -1]), st.lists(_values, max_size=5))


def fresh(**bounds: Any) -> SessionWamp:
    return SessionWamp(Bounds(**{"subscriptions": 3, "subscription_bytes": 4096, **bounds}), 7, 0.0)


def joined(**bounds: Any) -> SessionWamp:
    session = fresh(**bounds)
    session.received(HELLO)
    assert session.received('[5, "token", {}]') == [Admit("token")]
    session.admitted(USER, TOKEN, Kept(100_000))
    return session


def send(session: SessionWamp, *message: Any) -> list[Step]:
    return session.received(json.dumps(message))


def ends(steps: list[Step]) -> CloseCode | int | None:
    return next((step.code for step in steps if isinstance(step, Close)), None)


@given(st.lists(_messages, max_size=6), st.booleans())
def test_any_messages_are_answered_or_end_it_once(
    messages: list[tuple[int, list[Any]]], known: bool
) -> None:
    """Nothing raises; after the end nothing is said; without a token nothing begins."""
    session, closed = joined() if known else fresh(), 0
    for code, rest in messages:
        steps = send(session, int(code), *rest)
        assert not (closed and steps)
        closed += sum(isinstance(step, Close) for step in steps)
        assert known or not any(isinstance(step, Begin | Ask) for step in steps)
    assert closed <= 1


@given(st.binary(max_size=40) | st.text(max_size=40))
def test_what_is_no_message_ends_it(frame: bytes | str) -> None:
    """With a protocol violation, which holds none of it."""
    steps = fresh().received(frame)
    assert ends(steps) == CloseCode.BAD_REQUEST
    assert isinstance(steps[0], Say) and steps[0].message[2] == "wamp.error.protocol_violation"


def test_who_sends_no_token_is_sent_away_in_time() -> None:
    """Not while Arvados is being asked about it."""
    session = fresh()
    session.received(HELLO)
    assert session.tick(AUTH_SECONDS) == []
    session.received('[5, "token", {}]')
    assert session.tick(AUTH_SECONDS + 1) == []
    assert ends(session.not_admitted(Unavailable("no"))) == CloseCode.RESYNC
    assert ends(fresh().tick(AUTH_SECONDS + 1)) == CloseCode.AUTH_TIMEOUT


def test_an_old_connection_is_to_come_back() -> None:
    """As on a drain; each says so once."""
    session = joined(max_age=60.0)
    assert session.tick(60.0) == []
    assert ends(session.tick(61.0)) == CloseCode.MAX_AGE
    assert session.drain() == session.tick(62.0) == []
    assert ends(joined().drain()) == CloseCode.DRAIN


def test_bytes_of_subscriptions_are_bounded() -> None:
    """What they came in counts until they end."""
    session = joined(subscription_bytes=400)
    options = {"x_arvados": {"objects": ["x" * 100]}}
    (begun,) = send(session, 32, 1, options, TOPIC)
    assert isinstance(begun, Begin)
    other = TOPIC.replace("update", "create")
    (refused,) = send(session, 32, 2, options, other)
    assert isinstance(refused, Say) and refused.message[4] == "arvados.error.too_many"
    assert send(session, 34, 3, begun.topic.id) == [Stop(begun.topic.id), Say([35, 3])]
    assert isinstance(send(session, 32, 4, options, other)[0], Begin)


@pytest.mark.parametrize("revocable", [True, False])
def test_what_ended_can_be_subscribed_to_anew(revocable: bool) -> None:
    """Also by a client that could not be told of the end."""
    session = SessionWamp(Bounds(3, 4096), 7, 0.0, revocable=revocable)
    for frame in (HELLO, '[5, "token", {}]'):
        session.received(frame)
    session.admitted(USER, TOKEN, Kept(100_000))
    (begun,) = send(session, 32, 1, {}, TOPIC)
    assert isinstance(begun, Begin)
    said = [step for step in session.over(begun.topic.id, "why") if isinstance(step, Say)]
    assert bool(said) == revocable
    assert session.over(begun.topic.id, "why") == []
    assert isinstance(send(session, 32, 2, {}, TOPIC)[0], Begin)


@given(st.binary(max_size=100))
def test_publications_that_are_no_events_have_ids_that_no_event_has(text: bytes) -> None:
    """Sequences of a stream are far below, and JavaScript holds both."""
    assert 2**52 <= publication_of(text) < 2**53
