# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""From an event to its readers by an index, not by asking every session.

Pure bookkeeping, in one loop turn for each batch of events. The index maps each uuid in a reader's
grants to the readers that have it; an event names the uuids by which its readers can be found
(`StoredEvent.keys`). A sink that wants single objects registers for their uuids and costs nothing
for others. Whoever is found is still judged by the rule.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from arvados_nats.permissions.grants import OWNED, Grants
from arvados_nats.permissions.rule import Decision
from wsproxy.events.batch import Batch
from wsproxy.events.principal import Reader, Sink
from wsproxy.events.stored_event import StoredEvent

_USER_INFIX = "-tpzed-"
_MAX_AUDIENCES = 4096

Audience = tuple[Sequence[Reader], Sequence[Reader]]
"""Readers who see an event for sure, and readers who must be asked."""


Seen = defaultdict[Reader, list[StoredEvent]]


class Router:
    """All readers with a connection, by what they can reach."""

    def __init__(self) -> None:
        self.before_batch: list[Callable[[StoredEvent], None]] = []
        """Called with every event of a batch before the first of them is offered to anybody."""
        self.before_dispatch: list[Callable[[StoredEvent], None]] = []
        """Called with each event before anybody is offered it."""
        self._readers: set[Reader] = set()
        self._always: set[Reader] = set()
        """Admins, and readers whose grants are not known."""
        self._held: set[Reader] = set()
        self._by_uuid: defaultdict[str, set[Reader]] = defaultdict(set)
        self._watches: dict[str, dict[Reader, list[Sink]]] = {}
        self._audiences: dict[tuple[str, str], Audience] = {}
        """Of events that are judged alike, until any reader or any grants change."""

    def add(self, reader: Reader) -> None:
        """Know a reader from now on."""
        self._readers.add(reader)
        self._enter(reader)

    def remove(self, reader: Reader) -> None:
        """Forget a reader; nothing is delivered to its sinks any more."""
        self._readers.discard(reader)
        self._exit(reader)

    def watch(self, reader: Reader, uuid: str, sink: Sink) -> None:
        """Give `sink` the events of one object, as far as `reader` may see them."""
        self._watches.setdefault(uuid, {}).setdefault(reader, []).append(sink)

    def unwatch(self, reader: Reader, uuid: str, sink: Sink) -> None:
        """Give `sink` the events of one object no more."""
        readers = self._watches.get(uuid, {})
        sinks = readers.get(reader, [])
        if sink in sinks:
            sinks.remove(sink)
        if not sinks:
            readers.pop(reader, None)
        if not readers:
            self._watches.pop(uuid, None)

    def hold(self, reader: Reader) -> None:
        """New grants of `reader` are on their way: keep every event for him until `regrant`."""
        reader.hold()
        self._audiences.clear()
        if reader in self._readers:
            self._held.add(reader)

    def regrant(self, reader: Reader, grants: Grants | None, holds: int = 1) -> None:
        """Judge `reader` by new grants from the next event on; ends as many `hold`s."""
        moved = reader in self._readers and _place(reader.grants) != _place(grants)
        if moved:
            self._exit(reader)
        self._audiences.clear()
        reader.set_grants(grants)
        reader.release(holds)
        if moved:
            self._enter(reader)
        elif not reader.holding:
            self._held.discard(reader)

    def reaching(self, uuids: Iterable[str], *, admins: bool = False) -> set[Reader]:
        """Readers whose rights may depend on the rights of one of these, perhaps all admins.

        Whoever can merely see a user has no rights by that user.
        """
        found = {r for r in self._always if r.grants is not None} if admins else set()
        for uuid in uuids:
            readers = self._by_uuid.get(uuid, ())
            if _USER_INFIX in uuid:
                found.update(reader for reader in readers if _stands_in(reader, uuid))
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
            if stored.facts is None:
                continue
            certain, others = self._audience(stored)
            for reader in certain:
                if reader.busy:
                    self._offer(stored, reader, seen)
                elif reader.sinks:
                    seen[reader].append(stored)
            for reader in others:
                self._offer(stored, reader, seen)
            watches = self._watches.get(stored.facts.uuid)
            if watches:
                for reader, sinks in tuple(watches.items()):
                    reader.offer(stored, sinks)
        self._deliver(seen)

    def _offer(self, stored: StoredEvent, reader: Reader, seen: Seen) -> None:
        if not reader.sinks:
            return
        verdict = reader.sees(stored)
        if verdict:
            seen[reader].append(stored)
        elif verdict is None:
            if before := seen.pop(reader, None):
                reader.deliver(Batch(before))
            reader.wait(stored, reader.sinks)

    def _deliver(self, seen: Seen) -> None:
        batches: dict[tuple[int, ...], Batch] = {}
        for reader, events in seen.items():
            key = tuple([stored.sequence for stored in events])
            batch = batches.get(key)
            if batch is None:
                batch = batches[key] = Batch(events)
            reader.deliver(batch)

    def _audience(self, stored: StoredEvent) -> Audience:
        facts, alike = stored.facts, stored.alike
        if facts is None or alike is None or facts.uuid in self._by_uuid:
            return (), tuple(self._found(stored.keys))
        audience = self._audiences.get(alike)
        if audience is None:
            if len(self._audiences) >= _MAX_AUDIENCES:
                self._audiences.clear()
            audience = self._audiences[alike] = self._judged(stored, facts.owner_uuid)
        return audience

    def _judged(self, stored: StoredEvent, owner_uuid: str) -> Audience:
        certain, others = [], []
        for reader in self._found(stored.keys):
            if reader.holding or not reader.judged_by_owner(owner_uuid):
                others.append(reader)
                continue
            decision = reader.decide(stored)
            if decision is Decision.YES:
                certain.append(reader)
            elif decision is Decision.ASK:
                others.append(reader)
        return certain, others

    def _found(self, keys: tuple[str, ...] | None) -> set[Reader]:
        if keys is None:
            return set(self._readers)
        found = self._always | self._held
        for key in keys:
            readers = self._by_uuid.get(key)
            if readers:
                found |= readers
        return found

    def _enter(self, reader: Reader) -> None:
        self._audiences.clear()
        if reader.grants is None or reader.grants.is_admin or reader.identity.is_root:
            self._always.add(reader)
        if reader.holding:
            self._held.add(reader)
        for uuid in _keys(reader):
            self._by_uuid[uuid].add(reader)

    def _exit(self, reader: Reader) -> None:
        self._audiences.clear()
        self._always.discard(reader)
        self._held.discard(reader)
        for uuid in _keys(reader):
            readers = self._by_uuid.get(uuid)
            if readers:
                readers.discard(reader)
                if not readers:
                    del self._by_uuid[uuid]


def _place(grants: Grants | None) -> tuple[int, bool] | None:
    """What the index depends on: answers that confirm what was known share their targets."""
    return (id(grants.targets), grants.is_admin) if grants else None


def _stands_in(reader: Reader, user_uuid: str) -> bool:
    targets = reader.grants.targets if reader.grants else {}
    return reader.user_uuid == user_uuid or bool(targets.get(user_uuid, 0) & OWNED)


def _keys(reader: Reader) -> Iterable[str]:
    users = {reader.user_uuid}
    return users | reader.grants.targets.keys() if reader.grants else users
