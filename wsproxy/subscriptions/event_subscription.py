# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Changes of objects, filtered at the server, from a cursor on and then live.

Who may see an event is the reader's business (`principal`), history and lag are the consumer's
(`consumer`); what a client asked for is in `filters`; here is what its cursor means.
"""

from __future__ import annotations

from typing import ClassVar

from arvados_nats.contract import events, streams
from arvados_nats.errors import Unavailable
from arvados_nats.protocol_v1.messages import (
    CaughtUp,
    Event,
    Gap,
    Gone,
    Narrowed,
    Queued,
    Subscribed,
    encode,
)
from arvados_nats.protocol_v1.requests import EventsTarget
from wsproxy import metrics
from wsproxy.events.batch import Batch
from wsproxy.events.consumer import EventConsumer
from wsproxy.events.filters import ANEW, GONE, Filters
from wsproxy.events.stored_event import StoredEvent
from wsproxy.services import Services
from wsproxy.subscriptions.subscription import EventClient
from wsproxy.transport.frames import Message


class EventSubscription:
    """One `events` subscription."""

    asks_arvados: ClassVar[bool] = False

    def __init__(
        self, services: Services, client: EventClient, id: str, target: EventsTarget
    ) -> None:
        self._services = services
        self._client = client
        self._id = id
        self._target = target
        self._filters = Filters(target)
        self._consumer: EventConsumer | None = None
        self._caught_up = False
        self._stopped = False
        self._send_buffer = client.send_buffer
        self._form = self._filters.form(client.form(id))
        """What all subscriptions with the same bytes for the same events have in common."""

    async def start(self) -> None:
        await self._services.events.source.ready.wait()
        gap, place = await self._place()
        if self._stopped:
            return
        self._client.tell(Subscribed(self._id))
        if gap:
            self._client.tell(Gap(self._id, gap, cursor=self._cursor(place)))
        self._services.events.source.on_reset.add(self._reset)
        self._follow(place)

    def stop(self) -> None:
        self._stopped = True
        self._services.events.source.on_reset.discard(self._reset)
        if self._consumer:
            self._consumer.stop()

    def recheck(self) -> None:
        """Each event is judged when it is sent; no event names all that is lost."""
        if self._consumer and not self._stopped:
            self._client.tell(Narrowed(self._id))

    def renew(self) -> None:
        """The client has a new token: go on at the same place as the one it names."""
        if self._consumer:
            place = self._consumer.position
            self._consumer.stop()
            self._follow(place)

    def _follow(self, place: int) -> None:
        source, principal = self._services.events.source, self._client.login.principal
        send_buffer = self._client.send_buffer
        consumer = EventConsumer(
            source, principal, send_buffer, self._accept, self._live, self._queued
        )
        self._consumer = consumer
        consumer.start(place)

    async def _place(self) -> tuple[str | None, int]:
        """What is missing, if anything, and after which sequence to begin."""
        source = self._services.events.source
        if self._target.cursor is not None:
            cursor = self._services.cursors.events(self._target.cursor)
            oldest, newest = await self._extent()
            if not await source.knows(cursor):
                return ANEW, 0
            if cursor.sequence > max(newest, source.position):
                return ANEW, 0  # the stream has lost its end, or is an older copy
            if cursor.sequence + 1 < oldest:
                return GONE, oldest - 1
            return None, cursor.sequence
        if self._target.begin == "oldest":
            return None, (await self._extent())[0] - 1
        return None, source.position

    async def _extent(self) -> tuple[int, int]:
        """The first and the last sequence of the stream."""
        info = await self._services.nats.stream_info(streams.EVENTS)
        if info is None:
            raise Unavailable("there is no stream of events")
        return max(int(info["state"]["first_seq"]), 1), int(info["state"]["last_seq"])

    def _accept(self, batch: Batch) -> None:
        made = batch.made.get(self._form)
        if made is None:
            pieces = [self._encoded(stored) for stored in batch.events if self._wants(stored)]
            if self._filters.by_request and batch.shows_requests:
                made = b"".join(pieces), len(pieces)  # not what others have by the same filters
            else:
                made = batch.keep(self._form, pieces)
        piece, count = made
        if piece:
            self._send_buffer.put(piece)
            metrics.sent.waiting += count

    def _wants(self, stored: StoredEvent) -> bool:
        return self._filters.everything or self._filters.match(stored, self._shown(stored))

    def _encoded(self, stored: StoredEvent) -> bytes:
        return self._client.encode(stored, self._message(stored), self._id)

    def _message(self, stored: StoredEvent) -> Message:
        if stored.v1 is None:
            cursor = self._cursor(stored.sequence)
            stored.v1 = (
                gone_message(stored, cursor) if stored.gone else event_message(stored, cursor)
            )
        return stored.v1

    def _shown(self, stored: StoredEvent) -> list[tuple[str, str]]:
        """Requests that show a container and that this very reader may see, with their owners."""
        facts, login = stored.facts, self._client.login
        if not self._filters.by_request or facts is None or not facts.requests:
            return []
        judge = login.judge()
        return judge.requests_shown(facts) if judge else []

    def _live(self) -> None:
        if not self._caught_up and self._consumer:
            self._caught_up = True
            self._client.tell(CaughtUp(self._id, self._cursor(self._consumer.position)))

    def _queued(self, ahead: int) -> None:
        self._client.tell(Queued(self._id, ahead))

    def _reset(self) -> None:
        if self._consumer:
            self._client.tell(Gap(self._id, ANEW, cursor=self._cursor(0)))
            self._consumer.start(0)

    def _cursor(self, sequence: int) -> str:
        return self._services.cursors.encode(self._services.events.source.cursor(sequence))


def gone_message(stored: StoredEvent, cursor: str) -> Message:
    """What those see who lose an object by an event."""
    event = stored.event
    return Message(encode(Gone(event.object_uuid or "", event.object_kind, cursor)))


def event_message(stored: StoredEvent, cursor: str) -> Message:
    """What readers see of an event."""
    return Message(encode(event_of(stored.event, cursor)))


def event_of(event: events.Event, cursor: str) -> Event:
    """An event in protocol v1: not its audience, which names objects its readers may not know."""
    return Event(
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
