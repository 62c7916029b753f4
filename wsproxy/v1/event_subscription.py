# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Changes of objects, filtered at the server, from a cursor on and then live.

Who may see an event is the reader's business (`reader`), history and lag are the feed's (`feed`);
what a client asked for is in `event_filters`; here is what its cursor means.
"""

from __future__ import annotations

from arvados_nats.contract import streams
from arvados_nats.errors import Unavailable
from arvados_nats.protocol_v1.messages import CaughtUp, Event, Gap, Subscribed, encode
from arvados_nats.protocol_v1.requests import EventsTarget
from wsproxy import metrics
from wsproxy.cursors import EventCursor
from wsproxy.events.batch import Batch
from wsproxy.events.consumer import Feed
from wsproxy.events.filters import ANEW, GONE, Filters
from wsproxy.events.project_trees import Tree
from wsproxy.events.stored_event import StoredEvent
from wsproxy.services import Services
from wsproxy.transport.frames import Message
from wsproxy.v1.subscription import Client


class EventSubscription:
    """One `events` subscription."""

    def __init__(self, services: Services, client: Client, id: str, target: EventsTarget) -> None:
        self.weight = 0
        self._services = services
        self._client = client
        self._id = id
        self._target = target
        self._filters = Filters(target)
        self._tree: Tree | None = None
        self._feed: Feed | None = None
        self._caught_up = False
        self._stopped = False
        self._outlet = client.outlet
        shared = self._filters.everything and client.outlet.wire.joins
        self._form = type(client.outlet.wire) if shared else None
        """What all subscriptions with the same bytes for the same events have in common."""

    async def start(self) -> None:
        await self._services.source.ready.wait()
        if self._target.below:
            owners = frozenset(self._target.owners or ())
            self._tree = self._services.trees.open(owners, self._tree_moves)
            await self._follow_tree(self._tree)
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
        if self._tree:
            self._services.trees.close(self._tree, self._tree_moves)
            self._tree = None

    def _tree_moves(self) -> None:
        """Deliver nothing until it is known which projects are below the owners."""
        feed, tree = self._feed, self._tree
        if feed and tree and feed.running:
            feed.halt()
            self._client.spawn(self._go_on(feed, feed.position))

    async def _go_on(self, feed: Feed, place: int) -> None:
        if self._tree:
            await self._follow_tree(self._tree)
        feed.start(place)

    async def _follow_tree(self, tree: Tree) -> None:
        await tree.loaded()
        self._filters.follow(tree.members)

    async def recheck(self) -> None:
        """Each event is judged when it is sent."""

    def renew(self) -> None:
        """The client has a new token: go on at the same place as the one it names."""
        if self._feed:
            place = self._feed.position
            self._feed.stop()
            source, reader = self._services.source, self._client.viewer.reader
            feed = self._feed = Feed(source, reader, self._client.outlet, self._accept, self._live)
            if self._tree:
                self._client.spawn(self._go_on(feed, place))
            else:
                feed.start(place)

    async def _place(self) -> tuple[str | None, int]:
        """What is missing, if anything, and after which sequence to begin."""
        source = self._services.source
        if self._target.cursor is not None:
            cursor = self._services.cursors.events(self._target.cursor)
            if cursor.created != source.created:
                return ANEW, 0
            oldest = await self._oldest()
            if cursor.sequence + 1 < oldest:
                return GONE, oldest - 1
            return None, cursor.sequence
        if self._target.begin == "oldest":
            return None, await self._oldest() - 1
        return None, source.position

    async def _oldest(self) -> int:
        info = await self._services.nats.stream_info(streams.EVENTS)
        if info is None:
            raise Unavailable("there is no stream of events")
        return max(int(info["state"]["first_seq"]), 1)

    def _accept(self, batch: Batch) -> None:
        outlet, form = self._outlet, self._form
        if form is not None:
            piece = batch.made.get(form)
            if piece is None:
                encode = outlet.wire.encode
                piece = batch.keep(form, [encode(self._message(s)) for s in batch.events])
            outlet.put(piece)
            metrics.sent.waiting += len(batch.events)
            return
        for stored in batch.events:
            if self._filters.everything or self._filters.match(stored, self._shown(stored)):
                metrics.sent.waiting += 1
                outlet.write(self._message(stored))

    def _message(self, stored: StoredEvent) -> Message:
        if stored.v1 is None:
            stored.v1 = event_message(stored, self._cursor(stored.sequence))
        return stored.v1

    def _shown(self, stored: StoredEvent) -> list[tuple[str, str]]:
        """Requests that show a container and that this very reader may see, with their owners."""
        facts, viewer = stored.facts, self._client.viewer
        if not self._filters.by_request or facts is None or not facts.requests:
            return []
        judge = viewer.judge()
        return judge.requests_shown(facts) if judge else []

    def _live(self) -> None:
        if not self._caught_up and self._feed:
            self._caught_up = True
            self._client.tell(CaughtUp(self._id, self._cursor(self._feed.position)))

    def _reset(self) -> None:
        if self._feed:
            self._client.tell(Gap(self._id, ANEW, cursor=self._cursor(0)))
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
