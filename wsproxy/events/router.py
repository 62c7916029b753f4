# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""From an event to its readers by an index, not by asking every session.

Pure bookkeeping, in one loop turn for each batch of events. The index maps each share point in a
reader's grants to the readers that have it; an event names the uuids by which its readers can be
found (`StoredEvent.keys`). A sink that wants single objects registers for their uuids and costs
nothing for others. Whoever is found is still judged by the rule.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence

from arvados_nats.permissions.grants import OWNED, Grants
from arvados_nats.permissions.rule import Decision
from wsproxy.events.batch import Batch
from wsproxy.events.departures import AT_ONCE_SECONDS, departures
from wsproxy.events.principal import Principal, Sink
from wsproxy.events.stored_event import StoredEvent

_USER_INFIX = "-tpzed-"
_MAX_AUDIENCES = 4096

Audience = tuple[Sequence[Principal], Sequence[Principal]]
"""Readers who see an event for sure, and readers who must be asked."""


Seen = defaultdict[Principal, list[StoredEvent]]


class Router:
    """All readers with a connection, by what they can reach."""

    def __init__(self) -> None:
        self.before_batch: list[Callable[[StoredEvent], None]] = []
        """Called with every event of a batch before the first of them is offered to anybody."""
        self.before_dispatch: list[Callable[[StoredEvent], None]] = []
        """Called with each event before anybody is offered it."""
        self._readers: set[Principal] = set()
        self._always: set[Principal] = set()
        """Admins, and readers whose grants are not known."""
        self._held: set[Principal] = set()
        self._by_uuid: defaultdict[str, set[Principal]] = defaultdict(set)
        self._left: defaultdict[str, set[Principal]] = defaultdict(set)
        """Who had one of these until a moment ago."""
        self._leaving: deque[tuple[float, Principal, tuple[str, ...]]] = deque()
        self._watches: dict[str, dict[Principal, list[Sink]]] = {}
        self._audiences: dict[tuple[str, ...], Audience] = {}
        """Of events that are judged alike, until any reader or any grants change."""

    def add(self, principal: Principal) -> None:
        """Know a reader from now on."""
        self._readers.add(principal)
        self._enter(principal)

    def remove(self, principal: Principal) -> None:
        """Forget a reader; nothing is delivered to its sinks any more."""
        self._readers.discard(principal)
        self._exit(principal)

    def watch(self, principal: Principal, uuid: str, sink: Sink) -> None:
        """Give `sink` the events of one object, as far as `principal` may see them."""
        self._watches.setdefault(uuid, {}).setdefault(principal, []).append(sink)

    def unwatch(self, principal: Principal, uuid: str, sink: Sink) -> None:
        """Give `sink` the events of one object no more."""
        readers = self._watches.get(uuid, {})
        sinks = readers.get(principal, [])
        if sink in sinks:
            sinks.remove(sink)
        if not sinks:
            readers.pop(principal, None)
        if not readers:
            self._watches.pop(uuid, None)

    def hold(self, principal: Principal, change: StoredEvent | None = None) -> None:
        """New grants of `principal` are on their way: keep every event for them until `regrant`."""
        principal.hold(change)
        self._audiences.clear()
        if principal in self._readers:
            self._held.add(principal)

    def regrant(self, principal: Principal, grants: Grants | None, holds: int = 1) -> None:
        """Judge `principal` by new grants from the next event on; ends as many `hold`s."""
        moved = principal in self._readers and _place(principal.grants) != _place(grants)
        if moved:
            self._exit(principal)
            self._leave(principal, grants)
        self._audiences.clear()
        principal.set_grants(grants)
        principal.release(holds)
        if moved:
            self._enter(principal)
        elif not principal.holding:
            self._held.discard(principal)

    def reaching(self, uuids: Iterable[str]) -> set[Principal]:
        """Readers whose rights may depend on the rights of one of these.

        Whoever can merely see a user has no rights by that user.
        """
        found: set[Principal] = set()
        for uuid in uuids:
            readers = self._by_uuid.get(uuid, ())
            if _USER_INFIX in uuid:
                found.update(principal for principal in readers if _stands_in(principal, uuid))
            else:
                found.update(readers)
        return found

    def prepare(self, batch: Sequence[StoredEvent]) -> None:
        """Look at events that came together before they are dispatched.

        What one transaction does is stored together: an object, and after it the link that shares
        it. Who gets the right by the link may see the object's own event as well.
        """
        for stored in batch:
            for listener in self.before_batch:
                listener(stored)

    def dispatch(self, events: Sequence[StoredEvent]) -> None:
        """Offer events to everybody who may be allowed to see them.

        What a reader sees is delivered at the end in one batch; who see the same share it.
        """
        seen: Seen = defaultdict(list)
        for stored in events:
            for listener in self.before_dispatch:
                listener(stored)
            if stored.facts is not None:
                self._dispatch(stored, seen)
                for principal, sinks in tuple(self._watches.get(stored.facts.uuid, {}).items()):
                    principal.offer(stored, sinks)
        self._deliver(seen)

    def _dispatch(self, stored: StoredEvent, seen: Seen) -> None:
        certain, others = self._audience(stored)
        for principal in certain:
            if principal.busy:
                self._offer(stored, principal, seen)
            elif principal.sinks:
                seen[principal].append(stored)
        for principal in others:
            self._offer(stored, principal, seen)
        if lost := departures(stored):
            for principal in set().union(*map(self._losing, lost)).difference(certain, others):
                self._offer(stored, principal, seen)

    def _offer(self, stored: StoredEvent, principal: Principal, seen: Seen) -> None:
        if not principal.sinks:
            return
        verdict = principal.sees(stored)
        if verdict is not None:
            if shown := principal.shown(stored, allowed=verdict):
                seen[principal] += shown
            return
        if before := seen.pop(principal, None):
            principal.deliver(Batch(before))
        principal.wait(stored, principal.sinks)

    def _deliver(self, seen: Seen) -> None:
        batches: dict[tuple[int, ...], Batch] = {}
        for principal, events in seen.items():
            key = tuple([id(stored) for stored in events])
            batch = batches.get(key)
            if batch is None:
                batch = batches[key] = Batch(events)
            principal.deliver(batch)

    def _audience(self, stored: StoredEvent) -> Audience:
        facts, alike = stored.facts, stored.alike
        if facts is None or alike is None or facts.uuid in self._by_uuid:
            return (), tuple(self._found(stored.keys))
        key = (alike, *(uuid for uuid in stored.keys or () if uuid in self._by_uuid))
        audience = self._audiences.get(key)
        if audience is None:
            if len(self._audiences) >= _MAX_AUDIENCES:
                self._audiences.clear()
            audience = self._audiences[key] = self._judged(stored)
        return audience

    def _judged(self, stored: StoredEvent) -> Audience:
        certain, others = [], []
        for principal in self._found(stored.keys):
            if principal.holding or not principal.judges_alike:
                others.append(principal)
                continue
            decision = principal.decide(stored)
            if decision is Decision.YES:
                certain.append(principal)
            elif decision is Decision.ASK:
                others.append(principal)
        return certain, others

    def _found(self, keys: tuple[str, ...] | None) -> set[Principal]:
        if keys is None:
            return set(self._readers)
        found = self._always | self._held
        for key in keys:
            readers = self._by_uuid.get(key)
            if readers:
                found |= readers
        return found

    def _losing(self, left: StoredEvent) -> set[Principal]:
        self._forget_left()
        lately = (self._left[key] for key in left.keys or () if key in self._left)
        return self._found(left.keys).union(*lately)

    def _leave(self, principal: Principal, grants: Grants | None) -> None:
        """What is lost together with its object may be told of the object a moment later."""
        had, has = (known.targets if known else {} for known in (principal.grants, grants))
        if lost := tuple(had.keys() - has.keys()):
            self._leaving.append((time.monotonic(), principal, lost))
            for uuid in lost:
                self._left[uuid].add(principal)
        self._forget_left()

    def _forget_left(self) -> None:
        since = time.monotonic() - AT_ONCE_SECONDS
        while self._leaving and self._leaving[0][0] < since:
            _, principal, lost = self._leaving.popleft()
            for uuid in lost:
                self._left[uuid].discard(principal)
                if not self._left[uuid]:
                    del self._left[uuid]

    def _enter(self, principal: Principal) -> None:
        self._audiences.clear()
        if principal.grants is None or principal.grants.is_admin or principal.identity.is_root:
            self._always.add(principal)
        if principal.holding:
            self._held.add(principal)
        for uuid in _keys(principal):
            self._by_uuid[uuid].add(principal)

    def _exit(self, principal: Principal) -> None:
        self._audiences.clear()
        self._always.discard(principal)
        self._held.discard(principal)
        for uuid in _keys(principal):
            readers = self._by_uuid.get(uuid)
            if readers:
                readers.discard(principal)
                if not readers:
                    del self._by_uuid[uuid]


def _place(grants: Grants | None) -> tuple[int, bool] | None:
    """What the index depends on: answers that confirm what was known share their targets."""
    return (id(grants.targets), grants.is_admin) if grants else None


def _stands_in(principal: Principal, user_uuid: str) -> bool:
    targets = principal.grants.targets if principal.grants else {}
    return principal.user_uuid == user_uuid or bool(targets.get(user_uuid, 0) & OWNED)


def _keys(principal: Principal) -> Iterable[str]:
    users = {principal.user_uuid}
    return users | principal.grants.targets.keys() if principal.grants else users
