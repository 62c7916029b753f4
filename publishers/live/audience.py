# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which share points, owners and objects a message is shown under, below `arvados.live`.

A message is told once below each share point at or above its object: users in whose homes it is,
and what a permission link leads to. Where an owner is now is read, not taken from the event, which
may be an old one when NATS was away. A container's bytes are shown under each container request
that points to it now; which those are is remembered, and read again when an event names one of
them, and after ten seconds, since some changes leave no event (docs/facts/arvados.md 1, "user
merge"). What is in the trash is shown only where include_trash would lift it: collections and
groups, not in a frozen project (docs/facts/permission-rule.md). All else is decided by the patterns
of readers (`grant_subjects`).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set

import msgspec

from arvados_nats.contract.events import Event
from arvados_nats.contract.places import GROUP_INFIX, USER_INFIX, Place
from arvados_nats.contract.subjects import is_uuid
from publishers.postgres import object_tables, places
from publishers.postgres.database import Database
from publishers.postgres.object_tables import Requests

FRESH_PLACES = 5.0
"""Seconds: moves and trash that no event tells of are noticed so late."""

_FRESH_REQUESTS = 10.0
MOST_SHOWN = 100
"""Requests under which a container is shown, the first of them: each piece of its log is published
once for each."""
_MOST_CONTAINERS = 20_000
_MOST_PLACES = 20_000
_CLOCK = "SELECT extract(epoch FROM clock_timestamp())::float8"
_MOVES = ("arvados#group", "arvados#link")
_REQUEST = "container_request"

_NO_PLACES: Mapping[str, Place] = {}

LIFTED = frozenset({"collection", "group"})
KINDS = LIFTED | {"container", "container_request", "workflow"}
"""Kinds whose rule is owner and object alone; no other is shown below `arvados.live`."""

Pair = tuple[str, str]
"""(owner uuid, object uuid)"""
Shown = tuple[str, str, str]
"""(share point, owner uuid, object uuid)"""


class RequestsOfContainers:
    """The container requests that point to each container, remembered for a short while."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, tuple[float, Requests]] = {}
        self._containers_of: defaultdict[str, set[str]] = defaultdict(set)
        self._changes = 0

    async def read(self, containers: Iterable[str]) -> dict[str, Requests]:
        """As they are now, or were less than ten seconds ago with no event about them since."""
        wanted = set(containers)
        while missing := {uuid for uuid in wanted if not self._is_fresh(uuid)}:
            changes = self._changes
            found = await object_tables.requests_of(self._database, missing)
            if changes == self._changes:  # else an event has come while we read: read again
                self._remember(missing, found)
        return {uuid: self._known[uuid][1] for uuid in wanted}

    def seen(self, event: Event) -> None:
        """Forget what an event may have changed. A forged one costs a read, no more."""
        if event.object_uuid is None or event.object_kind != "arvados#containerRequest":
            return
        self._changes += 1
        named = set(self._containers_of.pop(event.object_uuid, ()))
        for side in ("old_attributes", "new_attributes"):
            attributes = event.properties.get(side)
            if isinstance(attributes, dict) and isinstance(
                uuid := attributes.get("container_uuid"), str
            ):
                named.add(uuid)
        for uuid in named:
            self._known.pop(uuid, None)

    def _is_fresh(self, uuid: str) -> bool:
        known = self._known.get(uuid)
        return known is not None and time.monotonic() - known[0] < _FRESH_REQUESTS

    def _remember(self, asked: set[str], found: dict[str, Requests]) -> None:
        if len(self._known) + len(asked) > _MOST_CONTAINERS:
            self._known.clear()
            self._containers_of.clear()
        now = time.monotonic()
        for container in asked:
            requests = found.get(container, [])[:MOST_SHOWN]
            self._known[container] = now, requests
            for uuid, _ in requests:
                self._containers_of[uuid].add(container)


class Above:
    """The share points above some objects, as they were read together."""

    def __init__(
        self, places: Mapping[str, Place], last: Mapping[str, Place], shared: Set[str], now: float
    ) -> None:
        self._places = {**places, **last}
        self._last = last
        """Of groups that are gone: whatever they were in may have been a share point."""
        self._shared = shared
        self._now = now

    def of(self, pair: Pair, *, gone: bool = False) -> list[str]:
        """The share points at and above an object; itself also if it is gone, with its links."""
        owner, obj = pair
        above = (obj, owner, *self._place(owner).above)
        return [
            uuid
            for uuid in dict.fromkeys(above)
            if uuid[5:12] == USER_INFIX
            or (gone and (uuid == obj or owner in self._last))
            or uuid in self._shared
        ]

    def hides(self, owner: str, kind: str, trash_at: float | None) -> bool:
        """Whether the trash hides an object of this owner from all who are no admins."""
        place, now = self._place(owner), self._now
        trashed = place.trash_at is not None and place.trash_at <= now
        if kind not in LIFTED:
            return trashed
        return place.frozen and (trashed or (trash_at is not None and trash_at <= now))

    def _place(self, uuid: str) -> Place:
        return self._places.get(uuid) or Place(uuid)


class Shares:
    """Where owners are, and what was shared of what is above; remembered for a short while.

    An event of a group or of a permission link makes it be read again.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._places: dict[str, tuple[float, Place]] = {}
        self._shared: dict[str, tuple[float, bool]] = {}
        self._changes = 0
        self._epoch = 0.0
        """PostgreSQL's clock when our monotonic one stood at 0."""

    def seen(self, event: Event) -> None:
        """Forget what an event may have changed. A forged one costs a read, no more."""
        if event.object_kind in _MOVES:
            self._changes += 1
            self._places.clear()
            self._shared.clear()

    async def read(self, pairs: Iterable[Pair], last: Mapping[str, Place] = _NO_PLACES) -> Above:
        """What is above these objects now; `last`: where groups were, of which some are gone."""
        wanted = {uuid for pair in pairs for uuid in pair}
        groups = {uuid for uuid in wanted if uuid[5:12] == GROUP_INFIX}
        while True:
            changes = self._changes
            await self._read_places(groups - self._fresh(self._places))
            if changes != self._changes:  # an event has come while we read: read again
                continue
            found = {uuid: self._places[uuid][1] for uuid in groups if uuid in self._places}
            named = {uuid for uuid in wanted if uuid[5:12] != USER_INFIX}
            named.update(*(place.above for place in found.values()))
            await self._read_shared(named - self._fresh(self._shared))
            if changes == self._changes:
                shared = {uuid for uuid in named if uuid in self._shared and self._shared[uuid][1]}
                gone = {uuid: last[uuid] for uuid in found.keys() & last if not found[uuid].above}
                return Above(found, gone, shared, time.monotonic() + self._epoch)

    async def _read_places(self, groups: set[str]) -> None:
        if groups:
            now = time.monotonic()
            self._epoch = await self._database.fetch_value(_CLOCK) - now
            found = await places.read(self._database, groups)
            if len(self._places) > _MOST_PLACES:
                self._places.clear()
            self._places.update((uuid, (now, place)) for uuid, place in found.items())

    async def _read_shared(self, uuids: set[str]) -> None:
        if uuids:
            now = time.monotonic()
            found = await places.shared(self._database, uuids)
            if len(self._shared) > _MOST_PLACES:
                self._shared.clear()
            self._shared.update((uuid, (now, uuid in found)) for uuid in uuids)

    @staticmethod
    def _fresh(known: Mapping[str, tuple[float, object]]) -> set[str]:
        since = time.monotonic() - FRESH_PLACES
        return {uuid for uuid, (at, _) in known.items() if at >= since}


def last_places(events: Iterable[Event]) -> dict[str, Place]:
    """Where the owners of what was deleted are, or were."""
    told = (event.facts.get("places", ()) for event in events if event.event_type == "delete")
    return {place.uuid: place for some in told for place in msgspec.convert(some, list[Place])}


def of_event(event: Event, kind: str, above: Above) -> list[Shown]:
    """Where an event of one of `KINDS` is shown."""
    own = event.facts.get("uuid") == event.object_uuid
    trash_at = event.facts.get("trash_at") if own else None
    if kind not in LIFTED and trash_at is not None:
        return []  # a workflow that is linked to a collection which goes to the trash one day
    gone = event.event_type == "delete"
    return [
        (share, owner, uuid)
        for owner, uuid in event.audience[:MOST_SHOWN]
        if is_uuid(owner) and is_uuid(uuid) and not above.hides(owner, kind, trash_at)
        for share in above.of((owner, uuid), gone=gone)
    ]


def of_log(requests: Requests, above: Above) -> list[Shown]:
    """Where the bytes of a container with these requests are shown."""
    return [
        (share, owner, uuid)
        for uuid, owner in requests
        if is_uuid(owner) and is_uuid(uuid) and not above.hides(owner, _REQUEST, None)
        for share in above.of((owner, uuid))
    ]
