# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The change that takes an object away, as those are told who could read it until then.

Pure. A collection is moved out of reach, a project unshared or deleted: who could read the object
before the change and cannot after it is told that it is gone, with what they could read before and
nothing of what it is now. Only Arvados' own word counts, or anybody could tell so of anything.
"""

from __future__ import annotations

from typing import Any

import msgspec

from arvados_nats.contract.events import Event
from arvados_nats.contract.places import Place
from arvados_nats.errors import BadInput
from arvados_nats.permissions import object_facts
from arvados_nats.permissions.object_facts import ObjectFacts
from wsproxy.events.stored_event import DELETE, StoredEvent

_MOVED = frozenset({"collection", "container_request", "group"})
_DELETED = frozenset({"group", "link"})
"""Kinds that others than the readers of the owner could read."""


def departure(stored: StoredEvent) -> StoredEvent | None:
    """The event for those who lose the object by it, one for all; None where nobody can."""
    if isinstance(stored.departure, bool):
        stored.departure = _departure(stored)
    return stored.departure


def _departure(stored: StoredEvent) -> StoredEvent | None:
    event, kind = stored.event, stored.kind
    if not event.verified or kind is None:
        return None
    old, new = (event.properties.get(f"{age}_attributes") for age in ("old", "new"))
    if not isinstance(old, dict) or not isinstance(old.get("owner_uuid"), str):
        return None
    if event.event_type == DELETE:
        if kind.name not in _DELETED:
            return None
        properties: dict[str, Any] = {"old_attributes": old}
    elif kind.name in _MOVED and isinstance(new, dict) and _is_moved(old, new):
        properties = {"old_attributes": old, "new_attributes": {}}
    else:
        return None
    facts = _facts(event, old)
    if facts is None:
        return None
    left = stored.judged_by(facts)
    left.event = msgspec.structs.replace(
        event,
        object_owner_uuid=old["owner_uuid"],
        audience=[(facts.owner_uuid, facts.uuid)],
        properties=properties,
        facts={},
    )
    left.gone, left.moved, left.v0, left.v1 = True, False, None, None
    return left


def _is_moved(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return "owner_uuid" in new and new["owner_uuid"] != old["owner_uuid"]


def _facts(event: Event, old: dict[str, Any]) -> ObjectFacts | None:
    try:
        facts = object_facts.facts_of({**old, "uuid": event.object_uuid or ""})
        places = msgspec.convert(event.facts.get("places", ()), tuple[Place, ...])
    except (BadInput, msgspec.ValidationError):
        return None
    return msgspec.structs.replace(facts, places=places)
