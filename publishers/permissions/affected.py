# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which corner of the permission graph an event may have moved.

Pure. Access is given by links, and to users and roles; projects are where it leads, and change
nobody's grants (`share_points`). An event is a hint, whatever its `verified`: any user can post a
log row (docs/facts/arvados.md 0.3), and a row that is true may say too little. So nothing is
believed here; the answer only narrows whose grants are read again, and what cannot be narrowed is
read for everybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from arvados_nats.contract.events import Event
from arvados_nats.contract.subjects import is_uuid, kind_of

GRAPH_KINDS = ("link", "group", "user")
"""Kinds whose events may change to whom something was opened."""

_PERMISSION, _ROLE = "permission", "role"
_WORDS = ("link_class", "group_class")
_USER = "-tpzed-"


class Touched(NamedTuple):
    """Where an edge begins that may have moved.

    At a role among the `nodes`: whoever reaches it may be affected. At one of the `users`: since no
    path leads through a user, it matters to themselves only (and to whom they stand in for), not to
    all who can see them, who are many.
    """

    nodes: frozenset[str]
    users: frozenset[str]


_NOWHERE = Touched(frozenset(), frozenset())


def touched(event: Event) -> Touched | None:
    """The graph's nodes near the change; None where nothing can be left out.

    Empty where the graph is not concerned, as by a star or tag.
    """
    kind = kind_of(event.object_uuid)
    if kind is None:
        return _NOWHERE
    if kind.name == "user":
        return _touched([event.object_uuid or "", *_values(event, "owner_uuid")])
    if kind.name == "group":
        classes = {*_values(event, "group_class")}
        is_role = _ROLE in classes or event.facts.get("is_role") or not classes
        return _touched([event.object_uuid or ""] if is_role else ())
    classes = {*_values(event, "link_class")}
    if classes and _PERMISSION not in classes:
        return _NOWHERE
    found = _touched(_values(event, "tail_uuid"))
    return found if any(found) else None


def _touched(tails: Iterable[str]) -> Touched:
    begins = frozenset(tails)
    users = frozenset(uuid for uuid in begins if _USER in uuid)
    return Touched(begins - users, users)


def _values(event: Event, name: str) -> Iterator[str]:
    for side in ("old_attributes", "new_attributes"):
        attributes: Any = event.properties.get(side)
        value = attributes.get(name) if isinstance(attributes, dict) else None
        # Classes are words, the others uuids; what a user posted may be anything.
        if isinstance(value, str) and (name in _WORDS or is_uuid(value)):
            yield value
