# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Protocol v0 down to its bytes; what needs a server is in tests/v0."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arvados_nats.contract.events import Event
from arvados_nats.errors import BadInput
from tests.support.made_events import made
from wsproxy.transport import frames
from wsproxy.v0 import messages as messages_v0
from wsproxy.v0.messages import NumberedEvent, Subscribe, Unsubscribe


def event(**changes: Any) -> Event:
    return made(1, **changes).event


def text(frame: bytes) -> bytes:
    """What stands in a frame."""
    return frame[2 if frame[1] < 126 else 4 :]


@pytest.mark.parametrize("msg_id", [1, 9, 10, 99, 12345, 2**40])
def test_frame_is_the_text_with_its_number_in_front(msg_id: int) -> None:
    """Whatever the number of digits, the length in the header is right."""
    frame = NumberedEvent(event()).frame(msg_id)
    assert frame == frames.text_frame(text(frame))
    decoded = json.loads(text(frame))
    assert next(iter(decoded.items())) == ("msgID", msg_id)


def test_connections_that_count_alike_share_a_frame() -> None:
    """The bytes are the same object."""
    numbered = NumberedEvent(event())
    assert numbered.frame(7) is numbered.frame(7)
    assert numbered.frame(8) != numbered.frame(7)


def test_absent_columns_are_empty_texts() -> None:
    """As Go writes its zero values; the properties are an object all the same."""
    absent = event(event_type=None, object_owner_uuid=None, properties={})
    sent = json.loads(text(NumberedEvent(absent).frame(1)))
    assert (sent["event_type"], sent["object_owner_uuid"]) == ("", "")
    assert sent["properties"] == {}


def test_attributes_beyond_the_six_are_left_out() -> None:
    """Of old and new alike."""
    attributes = {"name": "n", "state": "s", "priority": 1, "output": "o"}
    properties = {"old_attributes": attributes, "new_attributes": attributes, "etag": "e"}
    sent = json.loads(text(NumberedEvent(event(properties=properties)).frame(1)))
    cut = {"name": "n", "state": "s"}
    assert sent["properties"] == {"old_attributes": cut, "new_attributes": cut}


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_no_input_does_more_than_fail_cleanly(data: bytes | str) -> None:
    """Anything is a command or BadInput."""
    try:
        assert isinstance(messages_v0.command(data), Subscribe | Unsubscribe)
    except BadInput:
        pass


def test_equal_commands_of_all_clients_share_one_value() -> None:
    """Ten thousand pages with the same ten filters hold them once."""
    text = json.dumps({"method": "subscribe", "filters": [["event_type", "in", ["update"]]]})
    assert messages_v0.command(text) is messages_v0.command(str(text.encode(), "utf-8"))
    long = text + " " * 5000
    assert messages_v0.command(long) == messages_v0.command(text)


def test_deeply_nested_json_is_bad_input() -> None:
    """Not a crash of the parser."""
    with pytest.raises(BadInput):
        messages_v0.command("[" * 100_000)


@pytest.mark.parametrize(
    ("op", "operand", "passes"),
    [
        (">=", "2026-01-02T03:04:05.678901Z", True),
        (">", "2026-01-02T03:04:05.678901Z", False),
        ("=", "2026-01-02T03:04:05.678901Z", True),
        ("=", "2026-01-02T05:04:05.678901+02:00", True),
        ("<=", "2026-01-02T03:04:05.678901Z", True),
        ("<", "2026-01-02T03:04:05.678902Z", True),
        ("<", "2026-01-02T03:04:05Z", False),
        (">", "2026-01-02T03:04:05Z", True),
        ("<", "1999-13-01T00:00:00Z", True),  # no time at all: ignored
        ("<", "1999-01-01t00:00:00z", True),
    ],
)
def test_created_at(op: str, operand: str, passes: bool) -> None:
    """Compared as times; what Go cannot parse is ignored."""
    wanted = messages_v0.command(
        json.dumps({"method": "subscribe", "filters": [["created_at", op, operand]]})
    )
    assert isinstance(wanted, Subscribe)
    assert wanted.matches(event(created_at="2026-01-02T03:04:05.678901Z")) is passes


def test_the_start_of_a_replay_is_the_latest_lower_bound() -> None:
    """Nothing before it can match."""
    filters = [
        ["created_at", ">=", "2026-01-01T00:00:00Z"],
        ["created_at", ">", "2026-01-03T00:00:00Z"],
        ["created_at", "<", "2026-02-01T00:00:00Z"],
    ]
    wanted = messages_v0.command(json.dumps({"method": "subscribe", "filters": filters}))
    assert isinstance(wanted, Subscribe)
    assert wanted.created_since is not None
    assert wanted.created_since.isoformat() == "2026-01-03T00:00:00+00:00"
