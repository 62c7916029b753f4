# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Where the owners are of what somebody watches, and when that may have changed.

States and logs are judged when they are asked for, and go on to be shown; each event says itself
where its object is. So whoever watches an object is told when a group above it was moved, trashed
or frozen, and when its trash time comes, and judges anew. Known are the owners of what is watched,
and no others.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NoReturn

import msgspec

from arvados_nats.contract import subjects
from arvados_nats.contract.places import Place
from arvados_nats.nats.client import Nats
from arvados_nats.permission_client import places, run_messages
from arvados_nats.permissions.object_facts import ObjectFacts
from arvados_nats.single_flight import SingleFlight
from wsproxy.events.router import Router
from wsproxy.events.stored_event import StoredEvent

_EVERY = 0.5
_FRESH = 60.0
"""Seconds after which an owner is asked about again: some moves leave no event."""

Told = Callable[[], None]
"""Called when an owner is elsewhere, or in the trash, now. Never waits, never raises."""


class Whereabouts:
    """Of the owners that somebody follows; `run` looks at their trash times until cancelled."""

    def __init__(self, nats: Nats, router: Router, now: Callable[[], float]) -> None:
        self._nats = nats
        self._now = now
        self._followers: defaultdict[str, set[Told]] = defaultdict(set)
        self._followed: dict[Told, set[str]] = {}
        self._known: dict[str, tuple[Place, float]] = {}
        self._changes = 0
        self._asking = SingleFlight[tuple[frozenset[str], int], tuple[Place, ...]]("places")
        """By the owners asked about, and the changes of groups seen before."""
        router.before_dispatch.append(self._look)

    async def placed(self, facts: ObjectFacts, follower: Told) -> ObjectFacts:
        """The facts with where the object is now; the follower is told when that changes.

        Raises Unavailable if nobody can say.
        """
        owners = {*facts.owners()}
        self._follow(owners, follower)
        return msgspec.structs.replace(facts, places=await self._read(owners))

    async def container(self, uuid: str, follower: Told) -> ObjectFacts | None:
        """The facts of a container, whose owners are those of the requests that point to it."""
        self._followed.setdefault(follower, set())
        answer = await self._nats.request(subjects.RUNS_GET, uuid.encode())
        facts = run_messages.decode(answer.headers, answer.data).facts
        if facts is not None and follower in self._followed:
            self._follow({*facts.owners()}, follower)
            self._remember(facts.places, self._changes)
        return facts

    def unfollow(self, follower: Told) -> None:
        """Tell this one nothing more."""
        for uuid in self._followed.pop(follower, ()):
            self._followers[uuid].discard(follower)
            if not self._followers[uuid]:
                del self._followers[uuid]
                self._known.pop(uuid, None)

    async def run(self) -> NoReturn:
        """Tell of trash times that come."""
        before = self._now()
        while True:
            await asyncio.sleep(_EVERY)
            now = self._now()
            for uuid, (place, _) in tuple(self._known.items()):
                if place.trash_at is not None and before < place.trash_at <= now:
                    self._tell(uuid)
            before = now

    def _follow(self, owners: set[str], follower: Told) -> None:
        if self._followed.get(follower) != owners:
            self.unfollow(follower)
            self._followed[follower] = owners
            for uuid in owners:
                self._followers[uuid].add(follower)

    async def _read(self, owners: set[str]) -> tuple[Place, ...]:
        since = time.monotonic() - _FRESH
        known = [self._known.get(uuid) for uuid in sorted(owners)]
        fresh = tuple(found[0] for found in known if found is not None and found[1] >= since)
        if len(fresh) == len(owners):
            return fresh
        changes = self._changes
        key = frozenset(owners), changes
        found = await self._asking.ask(key, lambda: places.of(self._nats, owners))
        self._remember(found, changes)
        return found

    def _remember(self, found: Iterable[Place], changes: int) -> None:
        """Keep an answer, unless a group has changed since it was asked for."""
        if changes == self._changes:
            now = time.monotonic()
            followed = (place for place in found if place.uuid in self._followers)
            self._known.update((place.uuid, (place, now)) for place in followed)

    def _look(self, stored: StoredEvent) -> None:
        """A group was changed, or somebody says so: whoever is below it judges anew."""
        group = stored.event.object_uuid
        if stored.kind is None or stored.kind.name != "group":
            return
        self._changes += 1
        for uuid in tuple(self._followers):
            known = self._known.get(uuid)
            if uuid == group or known is None or group in known[0].above:
                self._known.pop(uuid, None)
                self._tell(uuid)

    def _tell(self, uuid: str) -> None:
        for follower in tuple(self._followers.get(uuid, ())):
            follower()
