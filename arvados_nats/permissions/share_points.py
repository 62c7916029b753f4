# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""From where access was given to one object: what `permissions.decide` must know about it.

Pure. Access comes in at few places: users (their homes), and objects at the head of a permission
link. All else follows from the owners above an object: a user has a row of
`materialized_permissions` for a project exactly if he has one, with `traverse_owned`, for a share
point above it, or one for itself (docs/facts/scale.md; checked against a real Arvados). So grants
hold share points alone, whatever lies below them, and the facts of an object say what is above it.
What a role shows of users is known by the role, not by pairs of users.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from arvados_nats.contract.places import GROUP_INFIX, USER_INFIX
from arvados_nats.permissions.grants import (
    DIRECT,
    MANAGES,
    MANAGES_OWNED,
    OWN_ROW,
    OWNED,
    ClusterState,
    Grants,
)
from arvados_nats.permissions.object_facts import ObjectFacts


def is_placed(facts: ObjectFacts) -> bool:
    """Whether the facts say what is above the object. Never of a log row, whose rule asks for the
    reader's own row of each object that it names."""
    if facts.kind == "log" or (facts.kind == "user" and facts.seen_by is None):
        return False
    known = {place.uuid for place in facts.places}
    return known.issuperset(facts.owners())


def above(facts: ObjectFacts, owner: str) -> tuple[str, ...]:
    """An owner that the facts name, and all owners above it."""
    for place in facts.places:
        if place.uuid == owner:
            return (owner, *place.above)
    return (owner,)


def heard_at(grants: Grants, facts: ObjectFacts, uuid: str, owner: str) -> str:
    """The share point below which whoever has these grants hears of an object: the topmost, which
    outlasts the others; for an admin the user in whose home it is."""
    owners = above(facts, owner)
    for share in reversed(owners):
        if grants.targets.get(share, 0) & OWNED:
            return share
    return uuid if grants.targets.get(uuid, 0) & DIRECT else owners[-1]


def about(grants: Grants, facts: ObjectFacts) -> Grants:
    """The grants as far as they concern one object, with the state of what is above it."""
    rows = grants.targets
    targets = {place.uuid: _bits(rows, place.uuid, place.above) for place in facts.places}
    for uuid in _named(facts):
        if uuid not in targets and uuid in rows:
            targets[uuid] = rows[uuid]
    ends = (facts.uuid, facts.owner_uuid), (facts.head_uuid or "", facts.head_owner_uuid or "")
    for uuid, owner in ends:
        if owner and uuid[5:12] == GROUP_INFIX:
            targets[uuid] = _bits(rows, uuid, above(facts, owner))
    if facts.seen_by and any(_shows(rows, tail) for tail in facts.seen_by):
        targets[facts.uuid] = targets.get(facts.uuid, 0) | DIRECT
    return Grants(
        grants.user_uuid,
        grants.is_admin,
        grants.is_active,
        targets,
        ClusterState(
            {place.uuid: place.trash_at for place in facts.places if place.trash_at is not None},
            frozenset(place.uuid for place in facts.places if place.frozen),
            grants.cluster.role_groups_visible,
        ),
        grants.generation,
    )


def _named(facts: ObjectFacts) -> Iterable[str]:
    yield facts.uuid
    yield facts.owner_uuid
    yield facts.head_uuid or ""
    yield facts.head_owner_uuid or ""
    yield facts.collection_uuid or ""
    yield facts.collection_owner_uuid or ""
    for pair in facts.requests or ():
        yield from pair


def _bits(rows: Mapping[str, int], group: str, owners: Iterable[str]) -> int:
    """Of a group: its own row, and what a traversing row for an owner above it gives."""
    bits = rows.get(group, 0)
    for owner in owners:
        found = rows.get(owner, 0)
        if found & OWNED:
            bits |= DIRECT | OWNED | found & OWN_ROW
            if found & MANAGES_OWNED:
                bits |= MANAGES | MANAGES_OWNED
    return bits


def _shows(rows: Mapping[str, int], tail: str) -> bool:
    """Whether a link from here to a user shows the user; nobody sees through another user."""
    return bool(rows.get(tail, 0) & (OWNED if tail[5:12] == USER_INFIX else DIRECT))
