# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which corner of the permission graph an event may have moved.

Pure. An event is a hint, whatever its `verified`: any user can post a log row
(docs/facts/arvados.md 0.3), and a row that is true may say too little. So nothing is believed here;
the answer only narrows whose grants are read again, and what cannot be narrowed is read for
everybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from arvados_nats.contract.events import Event
from arvados_nats.contract.subjects import is_uuid, kind_of

GRAPH_KINDS = ("link", "group", "user")
"""Kinds whose events may change what somebody reads."""
OWNED_KINDS = ("collection", "container_request", "workflow")
"""Kinds that may be shared directly; where they are kept matters for NATS subjects."""

_PERMISSION = "permission"
_USER = "-tpzed-"


class Touched(NamedTuple):
    """Where the graph may have moved.

    Whoever reaches one of the `nodes` may be affected. Of `users` an edge begins, and since no path
    leads through a user, it matters to themselves only (and to whom they stand in for): not to all
    who can see them, who are many.
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
    if kind.name != "link":
        return _touched(_values(event, "owner_uuid"), [event.object_uuid or ""])
    classes = set(_values(event, "link_class"))
    if classes and _PERMISSION not in classes:
        return _NOWHERE
    found = _touched(_values(event, "tail_uuid"), _values(event, "head_uuid"))
    if found.users and not found.nodes & frozenset(_values(event, "tail_uuid")):
        # For a link from a user Arvados computes that user's rows anew, and nobody else's.
        return Touched(frozenset(), found.users)
    return found if any(found) else None


def _touched(tails: Iterable[str], ends: Iterable[str]) -> Touched:
    begins = frozenset(tails)
    users = frozenset(uuid for uuid in begins if _USER in uuid)
    return Touched(begins - users | frozenset(ends), users)


def _values(event: Event, name: str) -> Iterator[str]:
    for side in ("old_attributes", "new_attributes"):
        attributes: Any = event.properties.get(side)
        value = attributes.get(name) if isinstance(attributes, dict) else None
        # link_class is a word, the others uuids; what a user posted may be anything.
        if isinstance(value, str) and (name == "link_class" or is_uuid(value)):
            yield value
