# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which events a v0 connection shows, replays included."""

from __future__ import annotations

import json
from typing import Any

from tests.support.made_events import made
from wsproxy.v0 import messages as messages_v0
from wsproxy.v0.messages import Subscribe
from wsproxy.v0.session import SessionV0, Subscription


def wanted(*types: str, last_log_id: int = 0) -> Subscribe:
    message: dict[str, Any] = {"method": "subscribe", "last_log_id": last_log_id}
    if types:
        message["filters"] = [["event_type", "in", types]]
    command = messages_v0.command(json.dumps(message))
    assert isinstance(command, Subscribe)
    return command


def shown(session: SessionV0, *sequences: int, event_type: str = "update") -> list[int]:
    return [s for s in sequences if session.lets_through(made(s, event_type=event_type))]


def subscribed(session: SessionV0, command: Subscribe, position: int) -> Subscription:
    subscription = session.subscribe(command, position)
    assert subscription is not None
    return subscription


def test_a_subscription_takes_what_is_stored_after_it() -> None:
    """Not what was stored before."""
    session = SessionV0(10, 1000)
    subscribed(session, wanted(), 5)
    assert shown(session, 4, 5, 6, 7) == [6, 7]
    assert session.first_place == 5


def test_without_a_subscription_nothing_is_shown() -> None:
    """Also after the last one was removed."""
    session = SessionV0(10, 1000)
    assert shown(session, 1) == []
    command = wanted()
    subscribed(session, command, 0)
    assert session.unsubscribe(command.filters)
    assert not session.unsubscribe(command.filters)
    assert shown(session, 1) == []
    assert session.first_place is None


def test_a_replay_sleeps_until_its_place_is_known() -> None:
    """It can be removed meanwhile."""
    session = SessionV0(10, 1000)
    replay = subscribed(session, wanted(last_log_id=9), 5)
    assert shown(session, 6) == []
    assert session.first_place is None
    session.begin_replay(replay, 2, None, 5)
    assert session.first_place == 2
    assert shown(session, 2, 3, 4) == [3, 4]


def test_a_replay_does_not_repeat_what_others_showed() -> None:
    """Only what no subscription had shown, then live as usual."""
    session = SessionV0(10, 1000)
    subscribed(session, wanted("update"), 0)
    assert shown(session, 1, 2, 3) == [1, 2, 3]
    replay = subscribed(session, wanted("update", "create", last_log_id=1), 3)
    session.begin_replay(replay, 0, None, 3)
    assert shown(session, 1, 2, 3) == []
    assert shown(session, 1, 2, 3, event_type="create") == [1, 2, 3]
    assert shown(session, 4) == [4]


def test_where_the_row_is_not_found_higher_ids_count() -> None:
    """As arvados-ws selects them."""
    session = SessionV0(10, 1000)
    replay = subscribed(session, wanted(last_log_id=4), 9)
    session.begin_replay(replay, 0, 4, 9)
    assert shown(session, 3, 4, 5) == [5]


def test_a_new_stream_is_all_news() -> None:
    """Sequences of the old one mean nothing."""
    session = SessionV0(10, 1000)
    subscribed(session, wanted(), 100)
    session.forget_places()
    assert shown(session, 1, 2) == [1, 2]


def test_the_number_of_subscriptions_is_bounded() -> None:
    """Beyond it there is none."""
    session = SessionV0(2, 1000)
    assert session.subscribe(wanted(), 0) and session.subscribe(wanted(), 0)
    assert session.subscribe(wanted(), 0) is None
    assert len(session) == 2
