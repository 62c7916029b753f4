# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Events as the publisher makes them, for tests of pure parts."""

from __future__ import annotations

from typing import Any

import msgspec

from arvados_nats.contract import events, subjects
from arvados_nats.contract.events import Event
from arvados_nats.contract.places import GROUP_INFIX, Place
from wsproxy.events import stored_event
from wsproxy.events.stored_event import StoredEvent

PROJECT = "zzzzz-j7d0g-project00000000"
COLLECTION = "zzzzz-4zz18-collection00000"
USER = "zzzzz-tpzed-user00000000000"


def made(
    sequence: int,
    object_uuid: str | None = COLLECTION,
    owner: str = PROJECT,
    *,
    facts: dict[str, Any] | None = None,
    **changes: Any,
) -> StoredEvent:
    """An update of a collection in a project, unless told otherwise; projects are in nothing."""
    kind = subjects.kind_of(object_uuid)
    found = {"kind": kind.name, "uuid": object_uuid, "owner_uuid": owner} if kind else {}
    given: dict[str, Any] = {
        "id": sequence,
        "uuid": f"zzzzz-57u5n-{sequence:015d}",
        "event_type": "update",
        "event_at": "2026-01-02T03:04:05Z",
        "created_at": "2026-01-02T03:04:05Z",
        "object_uuid": object_uuid,
        "object_kind": kind.arvados if kind else "",
        "object_owner_uuid": owner,
        "verified": True,
        "audience": [(owner, object_uuid)] if object_uuid else [],
        "properties": {},
        "facts": {**found, **facts} if facts is not None else found,
    }
    event = Event(**{**given, **changes})
    if event.facts.get("kind") == "user" and event.facts.get("uuid") == object_uuid:
        event = msgspec.structs.replace(event, facts={"seen_by": (), **event.facts})
    owners = {owner for owner, _ in event.audience} | {event.facts.get("head_owner_uuid", "")}
    owners |= {owner for _, owner in event.facts.get("requests") or ()}
    places = tuple(Place(uuid) for uuid in sorted(owners) if uuid[5:12] == GROUP_INFIX)
    event = msgspec.structs.replace(event, facts={"places": places, **event.facts})
    return stored_event.decode(sequence, events.encode(event))
