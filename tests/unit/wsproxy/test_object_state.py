# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The state of an object: a record, and verified changes laid over it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from arvados_nats.contract import events, subjects
from arvados_nats.errors import BadInput
from wsproxy.objects import state as object_state

CONTAINER = "zzzzz-dz642-000000000000001"


def event(**properties: Any) -> events.Event:
    return events.Event(
        id=1,
        uuid="zzzzz-57u5n-000000000000001",
        event_type="update",
        event_at=None,
        created_at="2026-01-01T00:00:00Z",
        object_uuid=CONTAINER,
        object_kind="arvados#container",
        object_owner_uuid=None,
        verified=True,
        audience=[],
        properties=properties,
    )


def state(**values: Any) -> object_state.State:
    return object_state.state_of(CONTAINER, {"uuid": CONTAINER, **values})


def test_a_change_replaces_what_it_names() -> None:
    """The rest stays, and so does what events never name."""
    before = state(state="Queued", priority=1, modified_at="2026-01-01T00:00:00.5Z")
    new = {"state": "Locked", "modified_at": "2026-01-01T00:00:01Z", "gateway_address": "x"}
    after = object_state.changed(before, event(new_attributes=new))
    assert after == {**before, "state": "Locked", "modified_at": "2026-01-01T00:00:01Z"}


def test_an_older_change_changes_nothing() -> None:
    """The record was read after it; going back for a moment would show a lie."""
    now = state(state="Running", modified_at="2026-01-01T00:00:02.000000000Z")
    old = {"state": "Locked", "modified_at": "2026-01-01T00:00:01Z"}
    assert object_state.changed(now, event(new_attributes=old)) == now


@pytest.mark.parametrize("properties", [{}, {"truncated": True}, {"text": "x"}])
def test_an_event_that_does_not_tell_asks_for_a_read(properties: dict[str, Any]) -> None:
    """None: what is known may be old."""
    assert object_state.changed(state(), event(**properties)) is None


def test_integers_that_a_browser_can_not_hold_are_text() -> None:
    """A container's priority is of the order of 10^18 (docs/facts/arvados.md 9)."""
    assert state(priority=562948157849891079)["priority"] == "562948157849891079"
    assert state(priority=500)["priority"] == 500


def test_equal_records_have_equal_etags() -> None:
    """Whatever the order of their keys."""
    assert object_state.etag({"a": 1, "b": 2}) == object_state.etag({"b": 2, "a": 1})
    assert object_state.etag({"a": 1}) != object_state.etag({"a": 2})


@pytest.mark.parametrize(
    "uuid", ["zzzzz-gj3su-000000000000001", "zzzzz-tpzed-000000000000001", "x"]
)
def test_kinds_that_differ_by_reader_have_no_state(uuid: str) -> None:
    """Tokens, users, links and the like."""
    with pytest.raises(BadInput):
        object_state.attributes(uuid)


def test_attributes_are_columns_of_arvados(golden: Path) -> None:
    """A `select` with an unknown one would be refused with 422."""
    tables = json.loads((golden / "schema.json").read_text())["tables"]
    for kind, names in object_state.ATTRIBUTES.items():
        columns = {column["name"] for column in tables[subjects.KIND_OF_NAME[kind].path]["columns"]}
        assert set(names) <= columns, kind
