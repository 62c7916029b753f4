# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which events change the permission graph, and whose grants they can change.

Pure. The permission publisher tells of every change, but later than the event itself comes; until
then whoever may be concerned is not judged by old grants (`logins`). docs/facts/arvados.md 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from arvados_nats.contract.events import Event
from arvados_nats.contract.places import GROUP_INFIX
from arvados_nats.contract.subjects import is_uuid
from arvados_nats.permissions.object_facts import ObjectFacts
from wsproxy.events.stored_event import CREATE, DELETE, StoredEvent


@dataclass(frozen=True, slots=True)
class GraphChange:
    """Whoever reaches one of `uuids` may read more or less now.

    `at`: at this group and below, if it is no role; None where nothing can be left out.
    """

    uuids: tuple[str, ...]
    at: str | None = None


def graph_change(stored: StoredEvent) -> GraphChange | None:
    """What an event changes; None if nothing.

    A permission link: for those who reach its tail. A role: for those who reach it. A user: for the
    user themselves. A project changes nobody's grants: where it is stands in each event.
    """
    facts, event = stored.facts, stored.event
    if facts is None or stored.kind is None or event.verified is False:
        return None
    match stored.kind.name:
        case "group" if facts.is_role is not False:
            return GraphChange(_uuids(facts.uuid))
        case "link" if facts.is_permission is not False:
            tail = _uuids(facts.tail_uuid or _old(event, "tail_uuid"))
            return GraphChange(tail, _head(facts, event))
        case "user":
            return GraphChange(_uuids(facts.uuid))
    return None


def _head(facts: ObjectFacts, event: Event) -> str | None:
    """Where a link leads, or led, if that is a group; none of one that was changed, which may have
    led elsewhere before."""
    if event.event_type not in (CREATE, DELETE):
        return None
    head = facts.head_uuid if event.event_type == CREATE else _old(event, "head_uuid")
    is_group = isinstance(head, str) and is_uuid(head) and head[5:12] == GROUP_INFIX
    return str(head) if is_group else None


def _uuids(*named: object) -> tuple[str, ...]:
    return tuple(uuid for uuid in named if isinstance(uuid, str) and uuid)


def _old(event: Event, name: str) -> object:
    attributes = event.properties.get("old_attributes")
    return attributes.get(name) if isinstance(attributes, dict) else None
