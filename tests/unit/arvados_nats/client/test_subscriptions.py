# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Subscriptions take what is theirs once, and resume where they were."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from arvados_nats.client.subscriptions import (
    EventsSubscription,
    LogSubscription,
    ObjectSubscription,
    Subscription,
)
from arvados_nats.protocol_v1 import requests as requests_v1
from arvados_nats.protocol_v1.messages import (
    Attempt,
    CaughtUp,
    End,
    Event,
    Gap,
    Log,
    Object,
    Place,
    Places,
    ServerMessage,
    Subscribed,
)

C1, C2 = "zzzzz-dz642-000000000000001", "zzzzz-dz642-000000000000002"
REQUEST = "zzzzz-xvhdp-000000000000001"


def log(offset: int, data: bytes, *, file: str = "a", container: str = C1, epoch: int = 0) -> Log:
    return Log.of(container, file, epoch, offset, data)


def target(subscription: Subscription) -> Any:
    """What the server understands of a request."""
    frame = requests_v1.encode(requests_v1.Subscribe.to("1", subscription.request()))
    message = requests_v1.decode(frame)
    assert isinstance(message, requests_v1.Subscribe)
    return message.target


def event(cursor: str) -> Event:
    return Event(1, "l", "update", None, "t", C1, "arvados#container", None, True, {}, cursor)


@given(
    st.binary(min_size=1, max_size=60),
    st.lists(st.tuples(st.integers(0, 59), st.integers(1, 20)), max_size=30),
)
def test_bytes_come_once_however_frames_overlap(data: bytes, cuts: list[tuple[int, int]]) -> None:
    """Frames doubled, overlapping or meant for others: the bytes taken join and are right."""
    subscription, taken = LogSubscription(C1), b""
    for start, length in [*cuts, (0, 30), (20, 60)]:
        message = subscription.take(log(start, data[start : start + length]))
        if isinstance(message, Log):
            assert message.offset == len(taken)
            taken += message.data
    assert taken == data
    assert target(subscription).from_ == {"a": requests_v1.From(len(data), 0)}


def begun(uuid: str, files: list[str] | None = None, **begins: int) -> LogSubscription:
    """With the last 5 lines of its files, which begin at these bytes."""
    subscription = LogSubscription(uuid, files, 5)
    subscription.take(Subscribed("1"))
    if uuid == REQUEST:
        subscription.take(Attempt("1", REQUEST, C1, 1))
    subscription.take(Places("1", C1, {file: Place(0, at) for file, at in begins.items()}))
    return subscription


def test_last_lines_begin_where_the_server_says() -> None:
    """What comes before is of another subscription, whose lines begin elsewhere; what is not named
    begins at 0."""
    subscription = LogSubscription(C1, tail=5)
    assert target(subscription) == requests_v1.LogTarget(C1, tail=5)
    subscription.take(Subscribed("1"))
    assert subscription.take(log(900, b"of another")) is None
    subscription.take(Places("1", C1, {"a": Place(0, 700)}))
    assert subscription.take(log(900, b"of another")) is None
    assert subscription.take(log(700, b"last\n")) == log(700, b"last\n")
    assert subscription.take(log(900, b"later", file="b")) is None
    assert subscription.take(log(0, b"new\n", file="b")) == log(0, b"new\n", file="b")


def test_tail_is_of_the_attempt_that_is_shown_first() -> None:
    """The next one begins at its beginning, also where another subscription is in its midst."""
    subscription = begun(REQUEST, a=700)
    subscription.take(CaughtUp("1"))
    subscription.take(Attempt("1", REQUEST, C2, 2))
    assert subscription.take(log(700, b"x")) == log(700, b"x")
    assert subscription.take(log(700, b"x", container=C2)) is None
    assert subscription.take(log(0, b"x", container=C2)) == log(0, b"x", container=C2)


def test_resume_in_the_middle_of_a_tail_keeps_it_for_the_other_files() -> None:
    """A file of which nothing came before the line broke is not sent from its beginning."""
    subscription = begun(C1, ["a", "b"], a=700, b=20)
    subscription.take(log(700, b"last\n"))
    places = {"a": requests_v1.From(705, 0), "b": requests_v1.From(20, 0)}
    assert target(subscription) == requests_v1.LogTarget(C1, ["a", "b"], places, 5)
    subscription.take(CaughtUp("1"))
    assert target(subscription) == requests_v1.LogTarget(C1, ["a", "b"], places)


def test_other_containers_and_files_are_not_taken() -> None:
    """Frames carry no subscription id, so each looks for its own."""
    subscription = LogSubscription(C1, ["a"])
    for strange in (log(0, b"x", file="b"), log(0, b"x", container=C2), event("x")):
        assert subscription.take(strange) is None
    assert subscription.take(End(container=C2)) is None
    assert not subscription.ended


def test_new_epoch_begins_at_its_own_offset() -> None:
    """A file that began anew is followed, and what comes late of the old one is dropped."""
    subscription = LogSubscription(C1)
    subscription.take(log(0, b"old old"))
    assert subscription.take(log(700, b"elsewhere", epoch=1)) is None, "of another subscription"
    assert subscription.take(log(0, b"new", epoch=1)) == log(0, b"new", epoch=1)
    assert subscription.take(log(7, b"late")) is None
    assert target(subscription).from_ == {"a": requests_v1.From(3, 1)}


def test_gap_moves_the_place() -> None:
    """After bytes that are lost the next ones join behind them."""
    subscription = LogSubscription(C1)
    subscription.take(log(0, b"ab"))
    assert subscription.take(log(9, b"x")) is None
    gap = Gap("1", "lost", C1, "a", 0, 2, 9)
    assert subscription.take(gap) is gap
    assert subscription.take(log(9, b"x")) == log(9, b"x")


def test_a_file_goes_on_in_a_stream_that_was_made_anew() -> None:
    """Its epochs are counted anew, so the next one may be lower than the one before."""
    subscription = LogSubscription(C1)
    subscription.take(log(0, b"ab", epoch=3))
    assert subscription.take(Gap("1", "lost", C1, "a", 3, 2, None))
    assert target(subscription).from_ is None
    assert subscription.take(log(5, b"elsewhere")) is None
    assert subscription.take(log(0, b"ab")) == log(0, b"ab")


def test_an_attempt_can_be_begun_with() -> None:
    """It is asked for until it has begun, and told then; the next is followed as ever."""
    subscription = LogSubscription(REQUEST, first=C1)
    assert target(subscription).container == C1
    assert subscription.take(Attempt("1", REQUEST, C1, 1))
    assert subscription.take(Attempt("1", REQUEST, C2, 2))
    assert target(subscription).container == C2


def test_request_follows_attempts() -> None:
    """Places are those of the container that is being shown (docs/facts/arvados-demand.md W2)."""
    subscription = LogSubscription(REQUEST)
    assert subscription.take(log(0, b"too early")) is None
    for number, container in enumerate((C1, C2), start=1):
        assert subscription.take(Attempt("1", REQUEST, container, number))
        assert subscription.take(log(0, b"text", container=container))
        expected = requests_v1.LogTarget(
            REQUEST, from_={"a": requests_v1.From(4, 0)}, container=container
        )
        assert target(subscription) == expected
        assert subscription.take(End(container=container))
        assert not subscription.ended
    assert subscription.take(Attempt("1", REQUEST, C2, 2)) is None, "told again on resuming"
    assert target(subscription).from_ == {"a": requests_v1.From(4, 0)}
    assert subscription.take(End(request=REQUEST))
    assert subscription.ended


def test_former_attempt_is_read_to_its_end() -> None:
    """The next one does not wait for it; on resuming, the places of both are named."""
    subscription = LogSubscription(REQUEST)
    subscription.take(Attempt("1", REQUEST, C1, 1))
    subscription.take(log(0, b"text"))
    subscription.take(Attempt("1", REQUEST, C2, 2))
    assert subscription.take(log(4, b"late")) == log(4, b"late")
    assert subscription.take(log(4, b"late")) is None
    subscription.take(log(0, b"new", container=C2))
    subscription.take(Gap("1", "lost", C1, "a", 0, 8, 10))
    assert target(subscription) == requests_v1.LogTarget(
        REQUEST,
        from_={"a": requests_v1.From(3, 0)},
        container=C2,
        former={C1: {"a": requests_v1.From(10, 0)}},
    )
    assert subscription.take(End(container=C1, state="Cancelled"))
    assert target(subscription).former is None
    assert subscription.take(log(10, b"x")) is None
    assert not subscription.ended


def test_former_attempt_that_is_not_known_any_more() -> None:
    """Told as a gap without a file: it is not asked for again."""
    subscription = LogSubscription(REQUEST)
    subscription.take(Attempt("1", REQUEST, C1, 1))
    subscription.take(Attempt("1", REQUEST, C2, 2))
    assert subscription.take(Gap("1", "this attempt is not known any more", C1))
    assert target(subscription).former is None


def test_container_ends_after_its_files() -> None:
    """The end of a file is not the end; ends of files that are not wanted are not told."""
    subscription = LogSubscription(C1, ["a"])
    assert subscription.take(End(container=C1, file="b")) is None
    assert subscription.take(End(container=C1, file="a"))
    assert not subscription.ended
    assert subscription.take(End(container=C1, exit_code=0))
    assert subscription.ended


def test_object_is_taken_when_it_is_another() -> None:
    """The state that the client has already is not told again after a reconnect."""
    subscription = ObjectSubscription(C1, etag="e1")
    assert target(subscription) == requests_v1.ObjectTarget(C1, "e1")
    assert subscription.take(Object(C1, "e1", {}, "c")) is None
    assert subscription.take(Object(C2, "e2", {}, "c")) is None
    assert subscription.take(Object(C1, "e2", {}, "c"))
    assert target(subscription) == requests_v1.ObjectTarget(C1, "e2")


def test_events_resume_after_the_last_cursor() -> None:
    """Every message that carries a cursor counts."""
    subscription = EventsSubscription(requests_v1.EventsTarget(kinds=["container"], begin="oldest"))
    assert target(subscription) == requests_v1.EventsTarget(kinds=["container"], begin="oldest")
    cursors: list[ServerMessage] = [event("c1"), CaughtUp("1", "c2"), Gap("1", "old", cursor="c3")]
    for number, message in enumerate(cursors, start=1):
        assert subscription.take(message) is message
        assert target(subscription) == requests_v1.EventsTarget(
            kinds=["container"], cursor=f"c{number}"
        )
    assert subscription.take(Subscribed("1"))
    assert subscription.take(log(0, b"x")) is None
