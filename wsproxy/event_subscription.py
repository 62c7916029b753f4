# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Changes of objects, filtered at the server, from a cursor on and then live.

Who may see an event is the reader's business (`reader`), history and lag are the feed's (`feed`);
here is what a client asked for, and what its cursor means.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from arvados_nats import streams
from arvados_nats.errors import BadInput, Unavailable
from arvados_nats.object_facts import ObjectFacts
from arvados_nats.permissions import Decision, decide
from arvados_nats.subjects import KIND_OF_NAME, KINDS
from wsproxy import metrics
from wsproxy.cursor import EventCursor
from wsproxy.feed import Feed
from wsproxy.frames import Message
from wsproxy.messages_v1 import CaughtUp, Event, EventsTarget, Gap, Subscribed, encode
from wsproxy.services import Services
from wsproxy.stored_event import StoredEvent
from wsproxy.subscription import Client

_ARVADOS_KINDS = {kind.arvados: kind.name for kind in KINDS}
_GONE = "older events are not kept any more"
_ANEW = "the stream of events was made anew"


class Filters:
    """What a client wants to see; None is everything."""

    def __init__(self, target: EventsTarget) -> None:
        self._owners = _set(target.owners)
        self._objects = _set(target.objects)
        self._event_types = _set(target.event_types)
        self._kinds = _kinds(target.kinds) if target.kinds is not None else None

    def match(self, stored: StoredEvent, shown: Iterable[tuple[str, str]]) -> bool:
        """Whether an event is wanted; `shown`: (owner, request) pairs that count for it."""
        event = stored.event
        kind = stored.kind.name if stored.kind else None
        return (
            (self._event_types is None or event.event_type in self._event_types)
            and (self._kinds is None or kind in self._kinds)
            and _names(self._objects, event.object_uuid, (request for _, request in shown))
            and _names(self._owners, event.object_owner_uuid, (owner for owner, _ in shown))
        )

    @property
    def by_request(self) -> bool:
        """Whether it matters which requests show a container."""
        return self._owners is not None or self._objects is not None


class EventSubscription:
    """One `events` subscription."""

    def __init__(self, services: Services, client: Client, id: str, target: EventsTarget) -> None:
        self._services = services
        self._client = client
        self._id = id
        self._target = target
        self._filters = Filters(target)
        self._feed: Feed | None = None
        self._caught_up = False
        self._stopped = False
        self._sent = 0

    async def start(self) -> None:
        await self._services.source.ready.wait()
        gap, place = await self._place()
        if self._stopped:
            return
        self._client.tell(Subscribed(self._id))
        if gap:
            self._client.tell(Gap(self._id, gap, cursor=self._cursor(place)))
        source, reader = self._services.source, self._client.viewer.reader
        self._feed = Feed(source, reader, self._client.outlet, self._accept, self._live)
        source.on_reset.add(self._reset)
        self._feed.start(place)

    def stop(self) -> None:
        self._stopped = True
        self._services.source.on_reset.discard(self._reset)
        if self._feed:
            self._feed.stop()

    async def recheck(self) -> None:
        """Each event is judged when it is sent."""

    def renew(self) -> None:
        """The client has a new token: go on at the same place as the one it names."""
        if self._feed:
            place = self._feed.position
            self._feed.stop()
            source, reader = self._services.source, self._client.viewer.reader
            self._feed = Feed(source, reader, self._client.outlet, self._accept, self._live)
            self._feed.start(place)

    async def _place(self) -> tuple[str | None, int]:
        """What is missing, if anything, and after which sequence to begin."""
        source = self._services.source
        if self._target.cursor is not None:
            cursor = self._services.cursors.events(self._target.cursor)
            if cursor.created != source.created:
                return _ANEW, 0
            oldest = await self._oldest()
            if cursor.sequence + 1 < oldest:
                return _GONE, oldest - 1
            return None, cursor.sequence
        if self._target.begin == "oldest":
            return None, await self._oldest() - 1
        return None, source.position

    async def _oldest(self) -> int:
        info = await self._services.nats.stream_info(streams.EVENTS)
        if info is None:
            raise Unavailable("there is no stream of events")
        return max(int(info["state"]["first_seq"]), 1)

    def _accept(self, stored: StoredEvent) -> None:
        if self._filters.match(stored, self._shown(stored)):
            if stored.v1 is None:
                stored.v1 = event_message(stored, self._cursor(stored.sequence))
            metrics.events_out.inc()
            self._client.send(stored.v1)

    def _shown(self, stored: StoredEvent) -> list[tuple[str, str]]:
        """Requests that show a container and that this very reader may see, with their owners."""
        facts, reader = stored.facts, self._client.viewer.reader
        if not self._filters.by_request or facts is None or not facts.requests:
            return []
        grants = reader.grants
        if grants is None:
            return []
        now = time.time()
        return [
            (owner, uuid)
            for uuid, owner in facts.requests
            if decide(
                self._client.viewer.identity,
                grants,
                ObjectFacts("container_request", uuid, owner),
                now,
            )
            is Decision.YES
        ]

    def _live(self) -> None:
        if not self._caught_up and self._feed:
            self._caught_up = True
            self._client.tell(CaughtUp(self._id, self._cursor(self._feed.position)))

    def _reset(self) -> None:
        if self._feed:
            self._client.tell(Gap(self._id, _ANEW, cursor=self._cursor(0)))
            self._feed.start(0)

    def _cursor(self, sequence: int) -> str:
        place = EventCursor(self._services.source.created, sequence)
        return self._services.cursors.encode(place)


def event_message(stored: StoredEvent, cursor: str) -> Message:
    """What readers see of an event: not its audience, which names objects they may not know."""
    event = stored.event
    return Message(
        encode(
            Event(
                id=event.id,
                uuid=event.uuid,
                event_type=event.event_type,
                event_at=event.event_at,
                created_at=event.created_at,
                object_uuid=event.object_uuid,
                object_kind=event.object_kind,
                object_owner_uuid=event.object_owner_uuid,
                verified=event.verified,
                properties=event.properties,
                cursor=cursor,
            )
        )
    )


def _set(words: list[str] | None) -> frozenset[str] | None:
    return None if words is None else frozenset(words)


def _kinds(words: list[str]) -> frozenset[str]:
    """Kinds by their subject token or as `arvados#…`; BadInput names one that is none."""
    found = {_ARVADOS_KINDS.get(word, word) for word in words}
    if unknown := found - KIND_OF_NAME.keys():
        raise BadInput(f"no kinds of objects: {', '.join(sorted(unknown))}")
    return frozenset(found)


def _names(wanted: frozenset[str] | None, own: str | None, others: Iterable[str]) -> bool:
    return wanted is None or own in wanted or any(other in wanted for other in others)
