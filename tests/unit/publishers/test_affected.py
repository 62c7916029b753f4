# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Events narrowed to a corner of the permission graph, posted ones included."""

from __future__ import annotations

from typing import Any

import pytest

from arvados_nats.contract.events import Event
from publishers.permissions.affected import Touched, touched

USER = "zzzzz-tpzed-000000000000001"
OTHER = "zzzzz-tpzed-000000000000002"
PROJECT = "zzzzz-j7d0g-000000000000001"
PARENT = "zzzzz-j7d0g-000000000000002"
LINK = "zzzzz-o0j2j-000000000000001"
PERMISSION = {"link_class": "permission", "tail_uuid": USER, "head_uuid": PROJECT}

TOUCHED = [
    # id, object, old_attributes, new_attributes, nodes and users (None: everybody)
    ("link made", LINK, None, PERMISSION, {USER}),
    ("link deleted", LINK, PERMISSION, None, {USER}),
    (
        "link rewritten",
        LINK,
        PERMISSION,
        PERMISSION | {"tail_uuid": OTHER},
        {USER, OTHER},
    ),
    (
        "link from a group",
        LINK,
        None,
        PERMISSION | {"tail_uuid": PARENT},
        {PARENT},
    ),
    ("a star", LINK, None, PERMISSION | {"link_class": "star"}, set()),
    (
        "a star that became a permission",
        LINK,
        {"link_class": "star"},
        PERMISSION,
        {USER},
    ),
    ("link without ends", LINK, None, {"link_class": "permission"}, None),
    ("link without anything", LINK, None, None, None),
    ("link with nonsense for ends", LINK, None, {"tail_uuid": 7, "head_uuid": "x"}, None),
    ("role made", PARENT, None, {"group_class": "role"}, {PARENT}),
    ("role that was a project", PARENT, {"group_class": "role"}, {"group_class": "x"}, {PARENT}),
    ("project made", PROJECT, None, {"owner_uuid": USER, "group_class": "project"}, set()),
    ("project deleted", PROJECT, {"owner_uuid": USER, "group_class": "project"}, None, set()),
    (
        "project moved",
        PROJECT,
        {"owner_uuid": USER, "group_class": "project"},
        {"owner_uuid": PARENT, "group_class": "project"},
        set(),
    ),
    ("group, nothing said", PROJECT, None, None, {PROJECT}),
    ("user", USER, {"is_admin": False}, {"is_admin": True}, {USER}),
    (
        "user who is moved",
        USER,
        {"owner_uuid": PARENT},
        {"owner_uuid": OTHER},
        {USER, PARENT, OTHER},
    ),
    ("no object", None, None, None, set()),
    ("an object of no kind", "zzzzz-zzzzz-000000000000001", None, None, set()),
]


def event(object_uuid: str | None, properties: dict[str, Any]) -> Event:
    return Event(
        id=1,
        uuid="zzzzz-57u5n-000000000000001",
        event_type="update",
        event_at=None,
        created_at="2026-01-01T00:00:00Z",
        object_uuid=object_uuid,
        object_kind="arvados#link",
        object_owner_uuid=None,
        verified=False,
        audience=[],
        properties=properties,
    )


@pytest.mark.parametrize(("name", "uuid", "old", "new", "expected"), TOUCHED)
def test_the_nodes_near_a_change_are_named(
    name: str,
    uuid: str | None,
    old: dict[str, Any] | None,
    new: dict[str, Any] | None,
    expected: set[str] | None,
) -> None:
    """Both sides count; what says too little concerns everybody."""
    sides = {"old_attributes": old, "new_attributes": new}
    properties = {side: found for side, found in sides.items() if found is not None}

    found = touched(event(uuid, properties))

    assert (found and found.nodes | found.users) == expected, name


@pytest.mark.parametrize("attributes", [[], "text", 7, None, {"tail_uuid": ["x"]}])
def test_posted_attributes_of_any_shape_concern_everybody(attributes: Any) -> None:
    """A row that any user posted must neither raise nor hide a change
    (docs/facts/arvados.md 0.3)."""
    assert touched(event(LINK, {"old_attributes": attributes})) is None


def test_a_truncated_event_concerns_everybody() -> None:
    """An event that lost its properties says nothing about its ends."""
    assert touched(event(LINK, {"truncated": True})) is None


def test_who_can_see_a_user_is_not_concerned_by_him() -> None:
    """No path leads through a user: a link from him, or a change of himself, is his own business.
    Who sees him is known by the roles that links to him begin at."""
    shown = {"link_class": "permission", "tail_uuid": PARENT, "head_uuid": USER}

    link = touched(event(LINK, {"new_attributes": PERMISSION}))
    himself = touched(event(USER, {"new_attributes": {"is_active": False}}))
    made_visible = touched(event(LINK, {"old_attributes": shown}))

    assert link == himself == Touched(frozenset(), frozenset({USER}))
    assert made_visible == Touched(frozenset({PARENT}), frozenset())
