# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Events and states as lines for a person."""

from __future__ import annotations

from typing import Any

from arvados_nats.commands.watch.text import event_line, object_lines
from arvados_nats.protocol_v1.messages import Event, Object

C1 = "zzzzz-dz642-000000000000001"


def event(properties: dict[str, Any], *, verified: bool = True, kind: str = "update") -> Event:
    at = "2026-01-02T03:04:05.678Z"
    return Event(1, "l", kind, at, at, C1, "arvados#container", None, verified, properties, "c")


def state(etag: str, **record: Any) -> Object:
    return Object(C1, etag, {"uuid": C1, "modified_at": "12:00", **record}, "c")


def test_event_says_what_is_different() -> None:
    """Old and new value of what changed; what is the same is not repeated."""
    properties = {
        "old_attributes": {"state": "Locked", "priority": 1, "modified_at": "a"},
        "new_attributes": {"state": "Running", "priority": 1, "modified_at": "b", "cost": None},
    }
    assert event_line(event(properties)) == (
        f"2026-01-02T03:04:05.678Z update {C1} container state: Locked → Running"
    )


def test_created_object_shows_its_name_and_what_it_has() -> None:
    """There is nothing before it."""
    properties = {"new_attributes": {"name": "x", "uuid": C1, "state": "Queued", "exit_code": None}}
    assert event_line(event(properties, kind="create")).endswith("container 'x' state: Queued")


def test_posted_event_is_marked() -> None:
    """Any user can write one; its text is shown, and shortened."""
    shown = event_line(event({"text": "hello\n" + "x" * 500}, verified=False, kind="blip"))
    assert "blip" in shown
    assert "hello x" in shown
    assert shown.endswith("… (posted by a user)")
    assert len(shown) < 250


def test_texts_of_others_are_harmless() -> None:
    """A name cannot act on the terminal."""
    shown = event_line(event({"new_attributes": {"name": "\x1b[2J\u202e"}}))
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_figures_are_in_people_s_units() -> None:
    """A part is per cent, and a priority of nothing says what it means."""
    properties = {
        "old_attributes": {"progress": 0.0, "priority": 500},
        "new_attributes": {"progress": 0.18095, "priority": 0},
    }
    shown = event_line(event(properties))
    assert "progress: 0% → 18%" in shown
    assert "priority: 500 → 0 (on hold or cancelled)" in shown


def test_event_with_odd_properties() -> None:
    """What a user posts has any form."""
    for properties in ({}, {"new_attributes": 1}, {"text": 5}, {"old_attributes": [1]}):
        assert C1 in event_line(event(properties))


def test_object_shows_all_at_first_and_then_what_changes() -> None:
    """The container in a request's record is told attribute by attribute."""
    first = state("e1", state="Committed", name="x", container={"uuid": C1, "state": "Queued"})
    assert object_lines(None, first) == [
        f"12:00 {C1} state: Committed",
        "  name: x",
        "  container.state: Queued",
    ]
    then = state("e2", state="Committed", name="x", container={"uuid": C1, "state": "Running"})
    assert object_lines(first.record, then) == [f"12:00 {C1} container.state: Queued → Running"]
    last = state("e3", state="Committed", name="x", container=None)
    assert object_lines(then.record, last) == []
