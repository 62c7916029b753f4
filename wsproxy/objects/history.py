# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the stream of events tells about single objects: an edge to NATS, for short reads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from arvados_nats.contract import events, streams, subjects
from arvados_nats.contract.events import Event
from arvados_nats.errors import BadInput
from arvados_nats.nats.client import Nats
from wsproxy.events.stored_event import CHANGES
from wsproxy.objects import state as object_state
from wsproxy.objects.state import State


async def state(nats: Nats, uuid: str, until: int) -> State | None:
    """The state of an object at a place in the stream, or later, if all its changes from its
    creation on are there."""
    found: State | None = None
    async for event in _changes(nats, uuid, until):
        if event.verified is None and event.event_type in CHANGES:
            return None
        if event.event_type == "create":
            born = {"uuid": uuid, "created_at": event.event_at}
            found = object_state.state_of(uuid, born)
        found = object_state.changed(found, event) if found else None
    return found


async def attempts(nats: Nats, request: str) -> dict[str, int]:
    """Containers that a request is known to have had, and which attempt each was."""
    found: dict[str, int] = {}
    async for event in _changes(nats, request):
        new: Any = event.properties.get("new_attributes")
        if event.verified and isinstance(new, dict) and isinstance(new.get("container_uuid"), str):
            count = new.get("container_count")
            found[new["container_uuid"]] = count if isinstance(count, int) and count > 0 else 1
    return found


async def _changes(nats: Nats, uuid: str, until: int | None = None) -> AsyncIterator[Event]:
    async for message in nats.history(streams.EVENTS, subjects.events_of(uuid), until=until):
        try:
            event = events.decode(message.data)
        except BadInput:
            continue
        if event.verified is not False and event.object_uuid == uuid:
            yield event
