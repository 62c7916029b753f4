# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The change that takes an object away, as it is told to those who could read it until then.

Pure. A collection, request or project is moved out of reach or deleted, a share deleted, a user
hidden: what they could read before is left, and nothing of what the object is now. A project that
goes to the trash hides the requests in it also from who cannot see the project. Only Arvados' own
word counts, or anybody could tell so of anything.
"""

from __future__ import annotations

from typing import Any

import msgspec

from arvados_nats.contract.events import Event
from arvados_nats.contract.subjects import KIND_OF_NAME, kind_of

HEADER = "Arvados-Gone"
"""Marks such a message of the live tree."""

_DELETE = "delete"
_ACTIVE, _MERGED = "is_active", "redirect_to_user_uuid"
_REQUEST = KIND_OF_NAME["container_request"]
_MOVED = frozenset({"collection", "container_request", "group"})
_DELETED = _MOVED | {"link"}
"""Kinds that others than the readers of the owner could read."""


def departed(event: Event) -> Event | None:
    """The event with the old owner and attributes alone; None where nobody loses anything."""
    kind = kind_of(event.object_uuid)
    old, new = (event.properties.get(f"{age}_attributes") for age in ("old", "new"))
    if not event.verified or kind is None or not isinstance(old, dict):
        return None
    owner, uuid = old.get("owner_uuid"), event.object_uuid
    if not isinstance(owner, str) or uuid is None:
        return None
    if event.event_type == _DELETE:
        told = kind.name in _DELETED
        properties: dict[str, Any] = {"old_attributes": old}
    else:
        told = isinstance(new, dict) and _taken_away(kind.name, old, new)
        properties = {"old_attributes": old, "new_attributes": {}}
    if not told:
        return None
    return msgspec.structs.replace(
        event,
        object_owner_uuid=owner,
        audience=[(owner, uuid)],
        properties=properties,
        facts={},
    )


def _taken_away(kind: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
    if kind == "user":
        merged = new.get(_MERGED) and not old.get(_MERGED)
        return bool(merged or (old.get(_ACTIVE) is True and new.get(_ACTIVE) is False))
    owner = old.get("owner_uuid")
    return kind in _MOVED and new.get("owner_uuid", owner) != owner


def hidden(event: Event) -> list[Event]:
    """Of each request that a project takes along into the trash: that it went."""
    return [
        msgspec.structs.replace(
            event,
            object_uuid=uuid,
            object_kind=_REQUEST.arvados,
            object_owner_uuid=owner,
            audience=[(owner, uuid)],
            properties={"old_attributes": {"owner_uuid": owner}, "new_attributes": {}},
            facts={},
        )
        for uuid, owner in event.facts.get("hides", ())
    ]
