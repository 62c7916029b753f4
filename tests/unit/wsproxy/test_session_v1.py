# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a v1 connection answers, step by step, with no socket and no clock."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arvados_nats.errors import ArvadosNatsError, BadInput, Refused, Unavailable
from arvados_nats.protocol_v1 import messages
from arvados_nats.protocol_v1.requests import EventsTarget
from wsproxy.transport.close_codes import CloseCode
from wsproxy.transport.limits import SUBSCRIPTION_BYTES, Kept
from wsproxy.v1 import session
from wsproxy.v1.session import Admit, Begin, Bounds, Close, Say, SessionV1, Step, Stop

USER, OTHER = "zzzzz-tpzed-000000000000001", "zzzzz-tpzed-000000000000002"
TOKEN = "zzzzz-gj3su-000000000000001"


def frame(kind: str, **fields: Any) -> str:
    return json.dumps({kind: fields})


def subscribe(id: str = "a", **fields: Any) -> str:
    return frame("subscribe", id=id, **fields or {"events": {}})


def new(subscriptions: int = 2, *, size: int = 1000, max_age: float = 0.0) -> SessionV1:
    return SessionV1(Bounds(subscriptions, size, max_age), now=100.0)


def ready(subscriptions: int = 2, kept: int = 100_000, **bounds: Any) -> SessionV1:
    one = new(subscriptions, **bounds)
    one.received(frame("auth", token="v2/x/y"))
    one.admitted(USER, TOKEN, Kept(kept))
    return one


def codes(steps: list[Step]) -> list[Any]:
    """Errors and goodbyes by what they are called, other steps as they are."""
    return [
        step.message.code
        if isinstance(step, Say) and isinstance(step.message, messages.Error)
        else step.code
        if isinstance(step, Close)
        else step
        for step in steps
    ]


def test_the_token_comes_first() -> None:
    """Nothing is begun before; a pong is heard from anybody."""
    one = new()
    assert codes(one.received(subscribe())) == ["not_authenticated"]
    assert codes(one.received(frame("unsubscribe", id="a"))) == ["not_authenticated"]
    assert one.received(frame("pong")) == []
    assert one.received(frame("auth", token="v2/x/y")) == [Admit("v2/x/y")]
    (hello,) = one.admitted(USER, TOKEN, Kept(100_000))
    assert isinstance(hello, Say) and isinstance(hello.message, messages.Hello)
    assert one.received(subscribe()) == [Begin("a", EventsTarget())]


@pytest.mark.parametrize("data", [b"{}", "{}", "x", '{"auth": 7}', '{"auth": {}, "pong": {}}'])
def test_what_is_no_message_is_an_error_and_nothing_else(data: str | bytes) -> None:
    """Binary frames too."""
    assert codes(ready().received(data)) == ["bad_message"]


def test_a_subscription_has_a_name_of_its_own() -> None:
    """It is free again when the subscription is over, for whatever reason."""
    one = ready()
    assert codes(one.received(subscribe())) == [Begin("a", EventsTarget())]
    assert codes(one.received(subscribe())) == ["id_in_use"]
    assert one.received(frame("unsubscribe", id="a")) == [
        Stop("a"),
        Say(messages.Unsubscribed("a")),
    ]
    assert codes(one.received(frame("unsubscribe", id="a"))) == ["no_such_id"]
    for over in (
        lambda: one.failed("a", Refused("no")),
        lambda: one.revoked("a", "unshared"),
        lambda: one.forget("a"),
    ):
        assert codes(one.received(subscribe())) == [Begin("a", EventsTarget())]
        over()


@pytest.mark.parametrize("target", [{}, {"events": {}, "log": {"uuid": "x"}}])
def test_a_subscription_without_one_target_takes_no_place(target: dict[str, Any]) -> None:
    """None, or two."""
    one = ready(1)
    assert codes(one.received(frame("subscribe", id="a", **target))) == ["bad_message"]
    assert codes(one.received(subscribe())) == [Begin("a", EventsTarget())]


def test_subscriptions_are_bounded_in_number_and_size() -> None:
    """The size is that of the messages that made those there are."""
    one = ready(2)
    assert [codes(one.received(subscribe(id)))[-1] for id in "abc"][-1] == "too_many"
    long = subscribe("a", events={"owners": ["x" * 200]})
    one = ready(100, size=2 * len(long))
    assert "too_many" not in codes(one.received(long)) + codes(
        one.received(long.replace("a", "b", 1))
    )
    assert codes(one.received(subscribe("c"))) == ["too_many"]
    assert one.received(frame("unsubscribe", id="a"))
    assert "too_many" not in codes(one.received(subscribe("c")))


@pytest.mark.parametrize(
    ("error", "code", "temporary"),
    [
        (Refused("no"), "not_found", False),
        (BadInput("no"), "bad_message", False),
        (Unavailable("no"), "unavailable", True),
    ],
)
def test_a_subscription_that_cannot_begin_says_whether_to_try_again(
    error: ArvadosNatsError, code: str, temporary: bool
) -> None:
    """Once, and only while it is one."""
    one = ready()
    one.received(subscribe())
    (said,) = one.failed("a", error)
    assert isinstance(said, Say) and isinstance(said.message, messages.Error)
    assert (said.message.code, said.message.temporary, said.message.id) == (code, temporary, "a")
    assert one.failed("a", error) == []


def test_what_may_not_be_read_any_more_is_stopped_before_it_is_told() -> None:
    """And told once."""
    one = ready()
    one.received(subscribe())
    assert one.revoked("a", "unshared") == [Stop("a"), Say(messages.Revoked("unshared", "a"))]
    assert one.revoked("a", "unshared") == []


def test_a_connection_stays_with_its_user() -> None:
    """A new token of the same user renews; another user's changes nothing."""
    one = ready()
    assert one.stays_with(USER) and not one.stays_with(OTHER)
    assert codes(one.admitted(OTHER, TOKEN, Kept(0))) == ["other_user"]
    assert one.user == USER
    assert len(one.admitted(USER, TOKEN, Kept(100_000))) == 1


def test_a_refused_token_ends_what_has_not_begun() -> None:
    """A connection that had a good one keeps it; a doubt ends nothing."""
    assert codes(new().not_admitted(Refused("no"))) == ["token_invalid", CloseCode.TOKEN_INVALID]
    assert codes(ready().not_admitted(Refused("no"))) == ["token_invalid"]
    assert codes(new().not_admitted(Unavailable("no"))) == ["unavailable"]


def test_who_sends_no_token_in_time_is_closed() -> None:
    """But nobody whose token is being looked at; where Arvados did not answer, they come back."""
    late = 100.0 + session.AUTH_SECONDS + 1
    one = new()
    assert one.tick(late - 2, late - 2, pending=False) == []
    assert codes(one.tick(late, late, pending=False)) == ["auth_timeout", CloseCode.AUTH_TIMEOUT]
    one = new()
    one.received(frame("auth", token="v2/x/y"))
    assert one.tick(late, late, pending=False) == []
    one.not_admitted(Unavailable("no"))
    assert codes(one.tick(late, late, pending=False)) == [CloseCode.RESYNC]


def test_silence_ends_a_connection_unless_our_own_bytes_wait() -> None:
    """A pong may stand behind them."""
    silent = 100.0 + session.SILENT_SECONDS + 1
    assert codes(ready().tick(silent, 100.0, pending=False)) == [CloseCode.NO_PONG]
    assert codes(ready().tick(silent, 100.0, pending=True)) == [Say(messages.Ping())]


def test_pings_have_their_distance() -> None:
    """One, then none for as long."""
    one, first = ready(), 100.0 + session.PING_SECONDS
    seen = [one.tick(first + n, first + n, pending=False) for n in range(26)]
    assert [bool(steps) for steps in seen] == [True] + [False] * 24 + [True]


@pytest.mark.parametrize("end", ["age", "drain", "token"])
def test_an_end_says_whether_to_come_back(end: str) -> None:
    """The server's business names a time to wait; a dead token does not."""
    one = ready(max_age=50)
    if end == "token":
        said, close = one.token_ended("expired")
        assert said == Say(messages.Revoked("token expired"))
        assert close == Close(CloseCode.TOKEN_INVALID, "token expired", "token")
        return
    said, close = one.drain() if end == "drain" else one.tick(151.0, 151.0, pending=False)
    assert isinstance(said, Say) and isinstance(said.message, messages.Goodbye)
    assert said.message.reconnect_after_ms == session.RECONNECT_MS
    assert isinstance(close, Close) and close.cause == end


@given(st.lists(st.sampled_from("ABab-xy"), max_size=40))
def test_what_is_begun_is_stopped_or_told_once(moves: list[str]) -> None:
    """Whatever the order: capitals subscribe, letters unsubscribe, - revokes, x fails, y ends."""
    one, alive = ready(10), set[str]()
    for move in moves:
        if move in "AB":
            steps = one.received(subscribe(move))
            assert bool([s for s in steps if isinstance(s, Begin)]) == (move not in alive)
            alive.add(move)
        elif move in "ab":
            steps = one.received(frame("unsubscribe", id=move.upper()))
            assert (Stop(move.upper()) in steps) == (move.upper() in alive)
            alive.discard(move.upper())
        else:
            over = {"-": one.revoked, "x": lambda id, _: one.failed(id, Refused("no"))}.get(
                move, lambda id, _: one.forget(id)
            )
            assert bool(over("A", "why")) == ("A" in alive)
            alive.discard("A")


def test_a_users_connections_share_what_they_may_keep() -> None:
    """One more is told so, and may begin when another is over."""
    kept = Kept(2 * SUBSCRIPTION_BYTES + 300)
    sessions = [new(), new()]
    for one in sessions:
        one.admitted(USER, TOKEN, kept)
        (begun,) = one.received(subscribe("a"))
        assert isinstance(begun, Begin)
    assert codes(sessions[1].received(subscribe("b"))) == ["too_many"]
    sessions[0].end()
    assert isinstance(sessions[1].received(subscribe("b"))[0], Begin)
    sessions[1].end()
    assert kept.bytes == 0
