# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What is kept of the properties of a log row, whatever stands there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arvados_nats.contract import events
from arvados_nats.contract.events import Event, kept_properties
from arvados_nats.errors import BadInput

KEPT = {
    "null": (None, {}),
    "empty": ("", {}),
    "blank": (" \n", {}),
    "nothing": ("{}", {}),
    "create": (
        '{"old_attributes": null, "new_attributes": {"name": "a", "manifest_text": "x"}}',
        {"new_attributes": {"name": "a"}},
    ),
    "update": (
        '{"old_etag": "1", "old_attributes": {"state": "Queued", "x": 1},'
        ' "new_attributes": {"state": "Locked", "mounts": {}}}',
        {"old_attributes": {"state": "Queued"}, "new_attributes": {"state": "Locked"}},
    ),
    "delete": ('{"old_attributes": {"name": "a"}}', {"old_attributes": {"name": "a"}}),
    "text": ('{"text": "hello", "other": [1]}', {"text": "hello", "other": [1]}),
    "text beside attributes": (
        '{"text": "", "new_attributes": {"manifest_text": "x"}}',
        {"text": "", "new_attributes": {"manifest_text": "x"}},
    ),
    "text that is null": ('{"text": null}', {}),
    "null in JSON": ("null", {}),
    "text that is a mapping": ('{"text": {"a": 1}}', {"text": {"a": 1}}),
    "attributes that are a list": ('{"new_attributes": [1], "old_attributes": 5}', {}),
    "a large number": (
        '{"new_attributes": {"priority": 1013308120587374083, "version": 3}}',
        {"new_attributes": {"priority": "1013308120587374083"}},
    ),
    "numbers out of range": (
        '{"text": [1e999, 36893488147419103232]}',
        {"text": ["1e999", "36893488147419103232"]},
    ),
    "an attribute out of range": (
        '{"new_attributes": {"name": 1e999}}',
        {"new_attributes": {"name": "1e999"}},
    ),
    "old YAML": (
        "---\nold_attributes: \nnew_attributes:\n  name: a\n  modified_at: 2014-01-02 03:04:05.6Z",
        {"new_attributes": {"name": "a", "modified_at": "2014-01-02T03:04:05.6Z"}},
    ),
    "old YAML text": ("---\ntext: hello\n", {"text": "hello"}),
}


@pytest.mark.parametrize(("text", "kept"), KEPT.values(), ids=KEPT.keys())
def test_properties_are_cut_to_what_travels(text: str | None, kept: dict[str, Any]) -> None:
    """The attributes of the kind, or all there is beside a text."""
    assert kept_properties(text, "container") == kept


@pytest.mark.parametrize(
    "text",
    ["bad properties", "[1, 2]", "5", '"text"', "{", "---\n- a\n", "\x00", "{" * 99_999],
)
def test_what_is_no_mapping_is_refused(text: str) -> None:
    """The row is skipped and counted by whoever reads it."""
    with pytest.raises(BadInput):
        kept_properties(text, "container")


def test_a_long_text_is_read_as_what_it_is() -> None:
    """JSON of any length is JSON; only YAML has a limit."""
    text = "x" * 5_000_000
    assert kept_properties(json.dumps({"text": text}), "collection") == {"text": text}
    with pytest.raises(BadInput):
        kept_properties(f"---\ntext: {text}\n", "collection")


numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
plain = st.none() | st.booleans() | numbers | st.text(max_size=5)
values = (
    plain | st.lists(plain, max_size=3) | st.dictionaries(st.text(max_size=3), plain, max_size=3)
)
names = st.sampled_from(["text", "old_attributes", "new_attributes", "name", "state", "priority"])


@given(st.dictionaries(names, values | st.dictionaries(names, values, max_size=3), max_size=4))
def test_any_mapping_gives_json_that_a_browser_reads_without_loss(posted: dict[str, Any]) -> None:
    """Only known attributes without a text, no number beyond 2^53, and v0 frames can be made."""
    kept = kept_properties(json.dumps(posted), "container")
    assert "text" in posted or kept.keys() <= {"old_attributes", "new_attributes"}
    assert all(abs(number) <= 2**53 for number in _integers(kept))
    event = _event(kept)
    assert events.decode(events.encode(event)).properties == json.loads(json.dumps(kept))
    assert isinstance(events.v0_properties(event), dict)


@pytest.mark.parametrize("said", [{}, {"new_attributes": None}, {"new_attributes": 5}])
def test_a_change_with_a_text_has_attributes_all_the_same(said: dict[str, Any]) -> None:
    """Workbench reads what is in them, on everybody's page who may read the object."""
    shown = events.v0_properties(_event({"text": "x", "junk": 1, **said}))
    assert shown == {"text": "x", "junk": 1, "new_attributes": {}}
    kept = {"text": "x", "new_attributes": {"name": "a"}}
    assert events.v0_properties(_event(kept)) == kept


def _integers(value: Any) -> list[int]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for item in value for number in _integers(item)]
    return [value] if isinstance(value, int) else []


def _event(properties: dict[str, Any]) -> Event:
    return Event(
        id=1,
        uuid="zzzzz-57u5n-aaaaaaaaaaaaaaa",
        event_type="update",
        event_at=None,
        created_at="2026-11-25T12:00:00Z",
        object_uuid=None,
        object_kind="",
        object_owner_uuid=None,
        verified=False,
        audience=[],
        properties=properties,
    )


def test_an_event_that_is_too_long_says_so_and_keeps_the_rest() -> None:
    """No message is longer than NATS takes."""
    payload = events.encode(_event({"text": "x" * events.MAX_EVENT_BYTES}))
    assert len(payload) < 1000
    assert events.decode(payload).properties == {"truncated": True}
