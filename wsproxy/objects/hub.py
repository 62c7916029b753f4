# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The state of single objects, read once and kept current for all who follow them.

The order matters: the place in the stream is noted, then the record is read with a reader's token,
then every change after the place is laid over it (design.md 8). The event source has no holes, so
no second read is needed while somebody follows the object. Nothing here judges permission: each
follower does, for its reader.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable

from arvados_nats.arvados.client import Arvados
from arvados_nats.arvados.tokens import Token
from arvados_nats.errors import Refused
from arvados_nats.nats.client import Nats
from wsproxy.events.event_source import EventSource
from wsproxy.events.stored_event import CHANGES, DELETE, StoredEvent
from wsproxy.objects import history as object_history
from wsproxy.objects import state as object_state
from wsproxy.objects.state import State
from wsproxy.transport.frames import Message

LINGER_SECONDS = 10.0

Follower = Callable[[], None]
"""Called after the object changed, or may have to be judged anew. Never waits, never raises."""


class ObjectHub:
    """One object that somebody follows."""

    def __init__(self, uuid: str, source: EventSource, nats: Nats, arvados: Arvados) -> None:
        self.uuid = uuid
        self.state: State | None = None
        """None until `load`, and while what is known is not current."""
        self.deleted = False
        self.sequence = 0
        """The state holds every change up to this place in the stream."""
        self.followers: set[Follower] = set()
        self.shared: tuple[str, Message] | None = None
        """Etag and message that was sent last, for all followers."""
        self._source = source
        self._nats = nats
        self._arvados = arvados
        self._since: list[StoredEvent] = []
        self._loading: asyncio.Task[None] | None = None

    async def load(self, token: Token, *, from_stream: bool = False) -> State:
        """The state now, read with this token unless it is known.

        `from_stream`: an object so new that the stream has all its changes needs no read. Raises
        Refused and Unavailable as Arvados does.
        """
        while self.state is None:
            if self.deleted:
                raise Refused("the object was deleted")
            own = self._loading is None
            if self._loading is None:
                reading = self._read(token, from_stream)
                self._loading = asyncio.create_task(reading, name="object feed")
                self._loading.add_done_callback(self._loaded)
            try:
                await asyncio.shield(self._loading)
            except Refused:
                if own:
                    raise
                await asyncio.sleep(0)  # what is over already is waited for without a turn
        return self.state

    def change(self, stored: StoredEvent) -> None:
        """Lay a change over the state, in stream order."""
        if self._loading is not None:
            self._since.append(stored)
        else:
            self._apply(stored)
            self.tell()

    def forget(self) -> None:
        """What is known may be old: read it again when somebody asks."""
        self.state = None

    def tell(self) -> None:
        """Let all followers look."""
        for follower in tuple(self.followers):
            follower()

    async def _read(self, token: Token, from_stream: bool) -> None:
        place = self._source.position
        if from_stream:
            self.state = await object_history.state(self._nats, self.uuid, place)
        if self.state is not None:
            self.sequence = place
            return
        columns = list(object_state.attributes(self.uuid))
        record = await self._arvados.record(token, self.uuid, select=columns)
        self.state, self.sequence = object_state.state_of(self.uuid, record), place

    def _loaded(self, task: asyncio.Task[None]) -> None:
        self._loading = None
        since, self._since = self._since, []
        if not task.cancelled():
            task.exception()  # whoever waits for it has it
        for stored in since:
            self._apply(stored)

    def _apply(self, stored: StoredEvent) -> None:
        event = stored.event
        if event.verified is False or event.event_type not in (*CHANGES, DELETE):
            return
        if event.event_type == DELETE:
            self.deleted, self.state = event.verified is True, None
        elif self.state is not None:
            after = object_state.changed(self.state, event)
            if event.verified or after == self.state:
                self.state = after
                self.sequence = max(self.sequence, stored.sequence)
            else:
                self.state = None  # it may be so or not: read it again


class ObjectHubs:
    """All objects that somebody follows."""

    def __init__(self, source: EventSource, nats: Nats, arvados: Arvados) -> None:
        self._source = source
        self._nats = nats
        self._arvados = arvados
        self._hubs: dict[str, ObjectHub] = {}
        self._users: dict[str, int] = {}
        self._of_container: defaultdict[str, set[Follower]] = defaultdict(set)
        source.router.before_dispatch.append(self._dispatch)
        source.on_reset.add(self._reset)

    def open(self, uuid: str) -> ObjectHub:
        """The hub of an object, for one more user; `close` must follow."""
        self._users[uuid] = self._users.get(uuid, 0) + 1
        hub = self._hubs.get(uuid)
        if hub is None:
            hub = self._hubs[uuid] = ObjectHub(uuid, self._source, self._nats, self._arvados)
        return hub

    def close(self, uuid: str) -> None:
        """One user less; the hub is forgotten some seconds after the last."""
        self._users[uuid] -= 1
        if not self._users[uuid]:
            asyncio.get_running_loop().call_later(LINGER_SECONDS, self._end, uuid)

    def watch_requests(self, container: str, follower: Follower) -> None:
        """Call `follower` when a request that shows a container may do so no longer."""
        self._of_container[container].add(follower)

    def unwatch_requests(self, container: str, follower: Follower) -> None:
        """The reverse of `watch_requests`."""
        followers = self._of_container.get(container, set())
        followers.discard(follower)
        if not followers:
            self._of_container.pop(container, None)

    def _dispatch(self, stored: StoredEvent) -> None:
        uuid = stored.event.object_uuid or ""
        hub = self._hubs.get(uuid)
        if hub is not None:
            hub.change(stored)
        if self._of_container and stored.kind and stored.kind.name == "container_request":
            for container in _no_longer_shown(stored):
                for follower in tuple(self._of_container.get(container, ())):
                    follower()

    def _reset(self) -> None:
        for hub in self._hubs.values():
            hub.forget()
            hub.tell()

    def _end(self, uuid: str) -> None:
        if self._users.get(uuid) == 0:
            del self._users[uuid], self._hubs[uuid]


def _no_longer_shown(stored: StoredEvent) -> set[str]:
    """Containers of a request that was moved, deleted, or got another container."""
    sides = [stored.event.properties.get(side) for side in ("old_attributes", "new_attributes")]
    old, new = (side if isinstance(side, dict) else {} for side in sides)
    kept = stored.event.event_type != DELETE and all(
        old.get(name) == new.get(name) for name in ("owner_uuid", "container_uuid")
    )
    named = {old.get("container_uuid"), new.get("container_uuid")}
    return set() if kept else {uuid for uuid in named if isinstance(uuid, str)}
