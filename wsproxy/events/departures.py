# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The change that takes an object away, judged by what it was until then, and who could read it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec

from arvados_nats.contract.departures import departed, hidden
from arvados_nats.contract.events import Event
from arvados_nats.contract.subjects import kind_of
from arvados_nats.errors import BadInput
from arvados_nats.permissions import object_facts
from arvados_nats.permissions.grants import Grants
from arvados_nats.permissions.object_facts import ObjectFacts
from wsproxy.events.stored_event import DELETE, StoredEvent

AT_ONCE_SECONDS = 5.0
"""What is done in one go, as a sweep of the trash is, comes within so long."""


def departures(stored: StoredEvent) -> tuple[StoredEvent, ...]:
    """The events for those who lose an object by it, one for all; mostly there are none."""
    if stored.departures is None:
        own = _departure(stored)
        stored.departures = (*((own,) if own else ()), *_hidden(stored))
    return stored.departures


def _departure(stored: StoredEvent) -> StoredEvent | None:
    event = departed(stored.event)
    if event is None:
        return None
    try:
        was = {**event.properties["old_attributes"], "uuid": event.object_uuid}
        head_owner = stored.event.facts.get("head_owner_uuid")
        facts = object_facts.facts_of(was, head_owner_uuid=head_owner)
    except BadInput:
        return None
    known = stored.facts
    if known is not None:
        facts = msgspec.structs.replace(facts, places=known.places, seen_by=known.seen_by)
    return _gone(stored, event, facts)


def _hidden(stored: StoredEvent) -> Iterator[StoredEvent]:
    for event in hidden(stored.event):
        uuid = event.object_uuid or ""
        # Whoever sees the project gets its own row.
        yield _gone(stored, event, ObjectFacts("container_request", uuid, "", places=()))


def _gone(stored: StoredEvent, event: Event, facts: ObjectFacts) -> StoredEvent:
    left = stored.judged_by(facts)
    left.event, left.kind, left.gone, left.moved = event, kind_of(event.object_uuid), True, False
    left.alike, left.v0, left.v1 = None, None, None
    return left


class Changes:
    """Events that changed a reader's grants in one go."""

    def __init__(self, first: StoredEvent, grants: Grants | None) -> None:
        self._first, self._last = first, first
        self._began = time.monotonic()
        self._former = self._latest = grants
        """From before the first, and from before the last."""

    def go_on(self, change: StoredEvent, grants: Grants | None) -> bool:
        """Whether this event is one of them."""
        if time.monotonic() - self._began > AT_ONCE_SECONDS:
            return False
        self._last, self._latest = change, grants
        return True

    def before(self, left: StoredEvent, now: Grants | None) -> tuple[Grants | None, ...]:
        """By which grants an object was readable until it was lost, with what is told of it."""
        if left.sequence <= self._first.sequence:
            return (self._former,)
        # What it became after a change may tell of what was done when it was lost already.
        former = (self._former,) if _is_older(left.event, self._first.event) else ()
        if left.sequence <= self._last.sequence:
            return (*former, self._latest)
        if left.event.event_type != DELETE or not _soon_after(self._last.event, left.event):
            return (now,)
        latest = (self._latest,) if _is_older(left.event, self._last.event) else ()
        return (*former, *latest, now)


def _is_older(left: Event, change: Event) -> bool:
    """Whether what is told of a lost object was so before a change."""
    try:
        modified = object_facts.timestamp(left.properties["old_attributes"].get("modified_at"))
        created = object_facts.timestamp(change.created_at)
    except BadInput:
        return False
    return modified is not None and created is not None and modified < created


def _soon_after(change: Event, later: Event) -> bool:
    one, other = (object_facts.timestamp(event.created_at) or 0.0 for event in (change, later))
    return other - one <= AT_ONCE_SECONDS
