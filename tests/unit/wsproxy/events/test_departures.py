# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which changes can take an object away, and what is left of them for those who lose it."""

from __future__ import annotations

from typing import Any

import pytest

from arvados_nats.contract.events import v0_properties
from arvados_nats.contract.places import Place
from tests.support.made_events import COLLECTION, PROJECT, made
from wsproxy.events.departures import departures

ELSEWHERE = "zzzzz-j7d0g-elsewhere000000"
LINK = "zzzzz-o0j2j-link00000000000"
OLD = {"owner_uuid": ELSEWHERE, "name": "before"}
NEW = {"owner_uuid": PROJECT, "name": "SECRET"}


def change(old: Any, new: Any = None, uuid: str = COLLECTION, **fields: Any) -> Any:
    sides = {"old_attributes": old, "new_attributes": new}
    said = {side: value for side, value in sides.items() if value is not None}
    left = departures(made(1, uuid, properties=said, **fields))
    return left[0] if left else None


def test_what_is_left_is_what_could_be_read_before() -> None:
    """The old owner and attributes, and new ones without content."""
    left = change(OLD, NEW, facts={"places": [Place(PROJECT), Place(ELSEWHERE)]})
    assert left.gone
    assert (left.facts.owner_uuid, left.event.object_owner_uuid) == (ELSEWHERE, ELSEWHERE)
    assert v0_properties(left.event) == {"old_attributes": OLD, "new_attributes": {}}
    assert "SECRET" not in str(left.event)
    assert PROJECT not in str(left.event)
    assert left.keys == (COLLECTION, ELSEWHERE)


def test_all_share_one() -> None:
    """However many ask."""
    stored = made(1, properties={"old_attributes": OLD, "new_attributes": NEW})
    assert departures(stored)[0] is departures(stored)[0]


def test_a_share_that_is_withdrawn_is_lost_by_its_tail() -> None:
    """By what the link was."""
    user = "zzzzz-tpzed-user00000000000"
    old = {**OLD, "link_class": "permission", "tail_uuid": user, "head_uuid": PROJECT}
    left = change(old, uuid=LINK, event_type="delete", facts={})
    assert (left.facts.kind, left.facts.tail_uuid) == ("link", user)


def test_a_share_that_is_withdrawn_is_lost_by_who_manages_its_head() -> None:
    """Though it belongs to nobody they know: the owner of the head says who manages it."""
    old = {**OLD, "link_class": "permission", "tail_uuid": ELSEWHERE, "head_uuid": COLLECTION}
    facts = {"head_owner_uuid": PROJECT, "places": [Place(PROJECT), Place(ELSEWHERE)]}
    left = change(old, uuid=LINK, event_type="delete", facts=facts)
    assert left.facts.head_owner_uuid == PROJECT
    assert set(left.keys) >= {COLLECTION, PROJECT}


@pytest.mark.parametrize(
    ("old", "new", "fields"),
    [
        (OLD, NEW, {"verified": False}),
        (OLD, NEW, {"verified": None}),
        (OLD, {**OLD, "name": "SECRET"}, {}),
        (OLD, {"name": "SECRET"}, {}),
        (None, NEW, {"event_type": "create"}),
        ({"owner_uuid": 5}, NEW, {}),
        ([], NEW, {}),
        ({**OLD, "trash_at": "soon"}, NEW, {}),
        ({"owner_uuid": 5}, None, {"event_type": "delete"}),
    ],
)
def test_other_changes_take_nothing_away(old: Any, new: Any, fields: dict[str, Any]) -> None:
    """What is not Arvados' own word, what stays where it is, and what the owner's readers hear."""
    assert change(old, new, **fields) is None
