# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Old events as they are to be judged: by where their objects are now, in one question a page.

An event was stored with what decided about its object then. Whoever reads it later may read the
object now, or may not: Arvados is asked about the object, not about its past. What is gone is
judged as its deletion is, by its last owner. Facts are kept for some seconds, and forgotten when an
event tells that they may be others. What a new event tells of its own object is not asked for.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from weakref import WeakSet

import msgspec

from arvados_nats.contract import events, streams, subjects
from arvados_nats.contract.places import GROUP_INFIX
from arvados_nats.errors import BadInput
from arvados_nats.nats.client import Nats
from arvados_nats.permission_client import object_messages
from arvados_nats.permission_client.object_messages import PresentFacts
from arvados_nats.permissions.object_facts import ObjectFacts, timestamp
from wsproxy.events import stored_event
from wsproxy.events.block import Block
from wsproxy.events.stored_event import CHANGES, DELETE, StoredEvent

FRESH_SECONDS = 5.0
"""What no event tells of is noticed so late."""
_AHEAD_SECONDS = 1.0
"""By so much the clock of who writes rows may be before the database's."""
_MOST_KEPT = 20_000
_AT_ONCE = 300
"""Objects in one question."""
_PLAIN = ("collection", "container_request")
"""Kinds in whose facts no object stands but those that are in the graph; theirs stand in those of
others, as of links, workflows and containers."""


class _Asking:
    """What came while a question was under way."""

    def __init__(self) -> None:
        self.everything = False
        self.mixed = False
        self.uuids: set[str] = set()

    def spoils(self, uuid: str) -> bool:
        """Whether the answer about this object may be older than an event."""
        return self.everything or uuid in self.uuids or (self.mixed and not _is_plain(uuid))


class Present:
    """Facts of objects as they are now; one for a process."""

    def __init__(self, nats: Nats, now: Callable[[], float]) -> None:
        """`now`: seconds since 1970 by the database's clock."""
        self._nats = nats
        self._now = now
        self._plain: dict[str, tuple[float, ObjectFacts | None]] = {}
        self._mixed: dict[str, tuple[float, ObjectFacts | None]] = {}
        self._asking: set[_Asking] = set()
        self._shared: WeakSet[Block] = WeakSet()
        """Blocks whose objects are looked up again only when something is found to be other."""

    def seen(self, stored: StoredEvent) -> None:
        """Forget what an event may have changed, and take from it what it tells of its object."""
        kind, uuid = stored.kind.name if stored.kind else "", stored.event.object_uuid or ""
        everything = kind in events.GRAPH_KINDS
        mixed = everything or kind in _PLAIN
        for asking in self._asking:
            asking.everything |= everything
            asking.mixed |= mixed
            asking.uuids.add(uuid)
        if everything:
            self._plain.clear()
        if mixed:
            self._mixed.clear()
        before = self._kept(uuid).pop(uuid, None)
        if stored.facts is not None and not everything and (age := self._age(stored)) is not None:
            self._keep({uuid: stored.facts}, age)
        now = self._kept(uuid).get(uuid)
        same = before is not None and now is not None and before[1] == now[1]
        for block in self._shared:
            if uuid in block.objects and not same:
                block.fresh_until = 0.0
            elif everything or (mixed and not block.kinds.issubset(_PLAIN)):
                block.fresh_until = 0.0

    def _age(self, stored: StoredEvent) -> float | None:
        """How old the facts of an event are at most, for they were read when its row was there;
        None where they are too old, or not those of the object as it is."""
        if stored.tells_last_owner or stored.decided_by is None:
            return None
        with contextlib.suppress(BadInput):
            age = self._now() - (timestamp(stored.event.created_at) or 0.0)
            return max(age, 0.0) if -_AHEAD_SECONDS < age < FRESH_SECONDS else None
        return None

    async def of(self, page: Sequence[StoredEvent]) -> list[StoredEvent]:
        """The events with the facts of now. Raises Unavailable."""
        found = await self._facts({uuid for stored in page if (uuid := stored.decided_by)})
        return [_as_of_now(stored, found) for stored in page]

    async def block(self, block: Block) -> Block:
        """As `of`; the same for all who read it while nothing about it is found to be other."""
        async with block.asking:
            if block.as_of_now is None or time.monotonic() >= block.fresh_until:
                self._shared.add(block)
                found = await self._facts(block.objects)
                block.fresh_until = self._fresh_until(found)
                if block.as_of_now is None or block.as_of_now[0] != found:
                    now = [_as_of_now(stored, found) for stored in block.events]
                    block.as_of_now = found, Block(now, block.next_sequence)
        return block.as_of_now[1]

    def _fresh_until(self, found: Mapping[str, ObjectFacts | None]) -> float:
        """Until when these need not be looked up again; 0 where an event told of one meanwhile."""
        since = math.inf
        for uuid, facts in found.items():
            known = self._kept(uuid).get(uuid)
            if known is None or known[1] != facts:
                return 0.0
            since = min(since, known[0])
        return since + FRESH_SECONDS

    async def _facts(self, uuids: Collection[str]) -> dict[str, ObjectFacts | None]:
        now = time.monotonic()
        found = {
            uuid: known[1]
            for uuid in uuids
            if (known := self._kept(uuid).get(uuid)) and now - known[0] < FRESH_SECONDS
        }
        missing = [uuid for uuid in uuids if uuid not in found]
        for start in range(0, len(missing), _AT_ONCE):
            asking = _Asking()
            self._asking.add(asking)
            try:
                answer = await self._ask(missing[start : start + _AT_ONCE])
            finally:
                self._asking.discard(asking)
            found |= answer
            self._keep({uuid: facts for uuid, facts in answer.items() if not asking.spoils(uuid)})
        return found

    def _kept(self, uuid: str) -> dict[str, tuple[float, ObjectFacts | None]]:
        return self._plain if _is_plain(uuid) else self._mixed

    def _keep(self, answer: Mapping[str, ObjectFacts | None], age: float = 0.0) -> None:
        if len(self._plain) + len(self._mixed) + len(answer) > _MOST_KEPT:
            self._plain.clear()
            self._mixed.clear()
        since = time.monotonic() - age
        for uuid, facts in answer.items():
            self._kept(uuid)[uuid] = since, facts

    async def _ask(self, uuids: list[str]) -> dict[str, ObjectFacts | None]:
        found: dict[str, ObjectFacts | None] = {}
        rest = uuids
        while rest:
            told = await self._told(rest)
            found |= {facts.uuid: facts for facts in told.facts}
            rest = told.rest
        gone = [uuid for uuid in uuids if uuid not in found]
        return found | dict.fromkeys(gone) | await self._last_facts(gone)

    async def _told(self, uuids: list[str]) -> PresentFacts:
        answer = await self._nats.request(subjects.OBJECTS_FACTS, msgspec.json.encode(uuids))
        return object_messages.decode_facts(answer.headers, answer.data)

    async def _last_facts(self, gone: list[str]) -> dict[str, ObjectFacts | None]:
        """How the deletions of objects are judged: by where their last owner is now."""
        owners = await self._last_owners(gone) if gone else {}
        groups = sorted({owner for owner in owners.values() if GROUP_INFIX in owner})
        told = await self._told(groups) if groups else PresentFacts([])
        places = {place.uuid: place for place in told.places}
        found: dict[str, ObjectFacts | None] = {}
        for uuid, owner in owners.items():
            if kind := subjects.kind_of(uuid):
                where = (places[owner],) if owner in places else ()
                found[uuid] = stored_event.facts_of_gone(uuid, kind, owner, where)
        return found

    async def _last_owners(self, gone: list[str]) -> dict[str, str]:
        """What the last event tells: Arvados' own word of the deletion, or what the database said
        of the object when a row about it was read."""
        wanted = [subjects.event(uuid, kind) for uuid in gone for kind in (*CHANGES, DELETE)]
        found: dict[str, tuple[int, str]] = {}
        for message in await self._nats.last_of_each(streams.EVENTS, wanted):
            try:
                event = events.decode(message.data)
            except BadInput:
                continue
            uuid = event.object_uuid or ""
            if event.facts.get("uuid") == uuid:
                owner = event.facts.get("owner_uuid", "")
            elif event.event_type == DELETE and event.verified and event.audience:
                owner = event.audience[0][0]
            else:
                continue
            found[uuid] = max(found.get(uuid, (0, "")), (message.sequence, owner))
        return {uuid: owner for uuid, (_, owner) in found.items()}


@lru_cache(maxsize=20_000)
def _is_plain(uuid: str) -> bool:
    kind = subjects.kind_of(uuid)
    return kind is not None and kind.name in _PLAIN


def _as_of_now(stored: StoredEvent, found: dict[str, ObjectFacts | None]) -> StoredEvent:
    uuid = stored.decided_by
    if uuid is None or uuid not in found:
        return stored
    facts = found[uuid]
    if facts is None and stored.event.event_type == DELETE and stored.tells_last_owner:
        return stored
    return stored if facts == stored.facts else stored.judged_by(facts)
