# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The change that takes an object away, judged by what the object was until then. Pure."""

from __future__ import annotations

import msgspec

from arvados_nats.contract.departures import departed
from arvados_nats.errors import BadInput
from arvados_nats.permissions import object_facts
from wsproxy.events.stored_event import StoredEvent


def departure(stored: StoredEvent) -> StoredEvent | None:
    """The event for those who lose the object by it, one for all; None where nobody can."""
    if isinstance(stored.departure, bool):
        stored.departure = _departure(stored)
    return stored.departure


def _departure(stored: StoredEvent) -> StoredEvent | None:
    event = departed(stored.event)
    if event is None:
        return None
    try:
        was = {**event.properties["old_attributes"], "uuid": event.object_uuid}
        known = stored.facts.places if stored.facts else ()
        head_owner = stored.event.facts.get("head_owner_uuid")
        facts = object_facts.facts_of(was, head_owner_uuid=head_owner)
        facts = msgspec.structs.replace(facts, places=known)
        left = stored.judged_by(facts)
    except BadInput:
        return None
    left.event, left.gone, left.moved, left.v0, left.v1 = event, True, False, None, None
    return left
