# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The change that takes an object away, as it is told to those who could read it until then.

Pure. A collection, request or project is moved out of reach, a project or a share deleted: what
they could read before is left, and nothing of what the object is now. Only Arvados' own word
counts, or anybody could tell so of anything.
"""

from __future__ import annotations

from typing import Any

import msgspec

from arvados_nats.contract.events import Event
from arvados_nats.contract.subjects import kind_of

HEADER = "Arvados-Gone"
"""Marks such a message of the live tree."""

_DELETE = "delete"
_MOVED = frozenset({"collection", "container_request", "group"})
_DELETED = frozenset({"group", "link"})
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
        moved = isinstance(new, dict) and new.get("owner_uuid", owner) != owner
        told = moved and kind.name in _MOVED
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
