# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which facts judge an event, and by which uuids its readers are found."""

from __future__ import annotations

from typing import Any

import pytest

from arvados_nats.errors import BadInput
from tests.support.made_events import COLLECTION, PROJECT, USER, made
from wsproxy.events import stored_event
from wsproxy.events.graph_changes import graph_change

LINK = "zzzzz-o0j2j-link00000000000"
CONTAINER = "zzzzz-dz642-container000000"
REQUEST = "zzzzz-xvhdp-request00000000"
TOKEN = "zzzzz-gj3su-token0000000000"
KEY = "zzzzz-fngyi-key000000000000"
OTHER = "zzzzz-j7d0g-other0000000000"


@pytest.mark.parametrize(
    ("uuid", "facts", "keys"),
    [
        (COLLECTION, {}, {COLLECTION, PROJECT}),
        (OTHER, {"is_role": False}, {OTHER, PROJECT}),
        (OTHER, {"is_role": True}, None),
        (OTHER, {}, None),
        (USER, {}, {USER, PROJECT}),
        (CONTAINER, {"requests": [(REQUEST, PROJECT)]}, {REQUEST, PROJECT}),
        (CONTAINER, {"requests": []}, set()),
        (CONTAINER, {}, None),
        (LINK, {}, None),
        (LINK, {"is_permission": False}, {LINK, PROJECT}),
        (LINK, {"is_permission": True, "tail_uuid": USER, "head_uuid": OTHER}, None),
        (
            LINK,
            {
                "is_permission": True,
                "tail_uuid": USER,
                "head_uuid": OTHER,
                "head_owner_uuid": PROJECT,
            },
            {USER, OTHER, PROJECT},
        ),
        (TOKEN, {}, {PROJECT}),
    ],
)
def test_keys(uuid: str, facts: dict[str, Any], keys: set[str] | None) -> None:
    """One of them is in the grants of whoever the rule can let see the object."""
    found = made(1, uuid, facts=facts).keys
    assert (None if found is None else set(found)) == keys


@pytest.mark.parametrize("uuid", [None, "", "not a uuid", "zzzzz-zzzzz-zzzzzzzzzzzzzzz"])
def test_an_event_about_no_object_has_no_readers(uuid: str | None) -> None:
    """arvados-ws ended every session on such a row (docs/facts/arvados.md 0.4)."""
    stored = made(1, uuid)
    assert stored.facts is None
    assert stored.keys == ()


def test_an_object_that_the_publisher_did_not_find_has_no_readers() -> None:
    """Whatever owner the row claims."""
    stored = made(1, facts={}, audience=[])
    assert made(1).facts is not None
    stored = stored_event.decode(
        1,
        b'{"id":1,"uuid":"zzzzz-57u5n-000000000000001","event_type":"update","event_at":null,'
        b'"created_at":"2026-01-01T00:00:00Z","object_uuid":"zzzzz-4zz18-collection00000",'
        b'"object_kind":"","object_owner_uuid":"zzzzz-j7d0g-project00000000","verified":false,'
        b'"audience":[],"properties":{},"facts":{}}',
    )
    assert stored.facts is None


def test_a_deleted_object_is_judged_by_where_it_was() -> None:
    """The publisher gives its owner's facts, which are not used for that."""
    owner_facts = {"kind": "user", "uuid": USER, "owner_uuid": PROJECT, "is_active": True}
    stored = made(1, COLLECTION, USER, event_type="delete", facts=owner_facts)
    assert stored.facts is not None
    assert (stored.facts.kind, stored.facts.uuid) == ("collection", COLLECTION)
    assert stored.facts.owner_uuid == USER
    assert set(stored.keys or ()) == {COLLECTION, USER}


def test_a_deleted_token_is_its_owners_business_alone() -> None:
    """Not that of those who may see what the owner owns."""
    stored = made(1, TOKEN, USER, event_type="delete", facts={"kind": "user", "uuid": USER})
    assert stored.facts is not None
    assert stored.facts.kind == "api_client_authorization"
    assert stored.keys == (USER,)


def test_a_posted_delete_of_a_living_object_is_judged_by_the_object() -> None:
    """Anybody can post one."""
    stored = made(1, event_type="delete", verified=False)
    assert stored.facts is not None
    assert stored.facts.owner_uuid == PROJECT


def test_kinds_the_publisher_can_not_read_are_asked_of_arvados() -> None:
    """The row's own owner decides nothing."""
    stored = made(1, KEY, facts={"uuid": "", "kind": "", "owner_uuid": ""}, audience=[])
    assert stored.judged_by_arvados
    assert stored.keys is None


def test_facts_that_make_no_sense_are_bad_input() -> None:
    """One bad message, left out and counted."""
    with pytest.raises(BadInput):
        made(1, facts={"trash_at": "never"})


@pytest.mark.parametrize(
    ("uuid", "changes", "concerned"),
    [
        (OTHER, {"facts": {"is_role": True}}, {OTHER}),
        (OTHER, {"facts": {"is_role": False}}, set()),
        (OTHER, {"facts": {"is_role": True}, "verified": False}, set()),
        (LINK, {"facts": {"is_permission": True, "tail_uuid": USER}}, {USER}),
        (LINK, {"facts": {"is_permission": False, "tail_uuid": USER}}, set()),
        (
            LINK,
            {
                "event_type": "delete",
                "facts": {"kind": "user", "uuid": PROJECT},
                "properties": {"old_attributes": {"tail_uuid": USER}},
            },
            {USER},
        ),
        (USER, {}, {USER}),
        (COLLECTION, {}, set()),
        (CONTAINER, {"facts": {"requests": []}}, set()),
    ],
)
def test_who_is_concerned_by_a_change_of_the_graph(
    uuid: str, changes: dict[str, Any], concerned: set[str]
) -> None:
    """Whoever reaches one of these may read more or less now."""
    change = graph_change(made(1, uuid, **changes))
    assert set(change.uuids if change else ()) == concerned


@pytest.mark.parametrize(
    ("event_type", "head", "at"),
    [
        ("create", OTHER, OTHER),
        ("delete", OTHER, OTHER),
        ("update", OTHER, None),  # it may have led elsewhere
        ("create", USER, None),
        ("delete", COLLECTION, None),
        ("delete", "x-j7d0g-x", None),
    ],
)
def test_a_link_changes_what_is_at_its_head(event_type: str, head: str, at: str | None) -> None:
    """And below, where that is a group."""
    facts: dict[str, Any] = {"is_permission": True, "tail_uuid": USER, "head_uuid": head}
    if event_type == "delete":
        facts = {"kind": "user", "uuid": PROJECT}
    old = {"old_attributes": {"tail_uuid": USER, "head_uuid": head}}
    change = graph_change(made(1, LINK, event_type=event_type, properties=old, facts=facts))
    assert change and (change.uuids, change.at) == ((USER,), at)
