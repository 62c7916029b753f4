# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The logs of a container, or of a container request through all its attempts.

A request's record tells which container is its present one. When a retry gives it another, what is
left of the old container's log comes first, then `attempt`, then the new one's log from its
beginning (facts/arvados-demand.md A37, W2, G12). The permission comes from the request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from arvados_nats import subjects
from arvados_nats.errors import BadInput, Refused
from arvados_nats.object_facts import ObjectFacts
from wsproxy import object_history, object_state
from wsproxy.frames import Message
from wsproxy.log_arvados import Access
from wsproxy.log_reader import LogReader, Selection
from wsproxy.messages_v1 import Attempt, End, Gap, LogTarget, Subscribed
from wsproxy.object_feed import ObjectFeed
from wsproxy.object_state import State
from wsproxy.subscription import NOT_READABLE, Client, still_allowed

if TYPE_CHECKING:
    from wsproxy.services import Services

OLD_END_SECONDS = 30.0
"""How long the end of a former attempt is waited for before the next one is shown."""
_FINAL = "Final"


class LogSubscription:
    """One `log` subscription."""

    def __init__(self, services: Services, client: Client, id: str, target: LogTarget) -> None:
        self._services = services
        self._client = client
        self._id = id
        self._target = target
        self._request: ObjectFeed | None = None
        self._facts: ObjectFacts | None = None
        self._container: str | None = None
        self._reader: LogReader | None = None
        self._next: Selection = _selection(target)
        self._moving_on: asyncio.TimerHandle | None = None
        self._stopped = False

    async def start(self) -> None:
        kind = subjects.kind_of(self._target.uuid)
        if kind is not None and kind.name == "container":
            await self._start_container()
        elif kind is not None and kind.name == "container_request":
            await self._start_request()
        else:
            raise BadInput("only containers and container requests have logs")

    def stop(self) -> None:
        self._stopped = True
        self._end_reader()
        if self._moving_on:
            self._moving_on.cancel()
        if self._request:
            self._request.followers.discard(self._look)
            self._services.objects.close(self._target.uuid)
            self._request = None
        elif self._watching:
            self._services.objects.unwatch_requests(self._target.uuid, self._judge_anew)
            self._watching = False

    _watching = False

    @property
    def reader(self) -> LogReader | None:
        """Who reads the present container, if anybody does."""
        return self._reader

    @property
    def container(self) -> str | None:
        """The container whose log was begun last."""
        return self._container

    async def recheck(self) -> None:
        if not await still_allowed(self._may_read) and not self._stopped:
            self._client.revoke(self._id, NOT_READABLE)

    def renew(self) -> None:
        """The client has a new token."""
        if self._reader:
            self._reader.access = self._access()

    async def _may_read(self, *, fresh: bool = True) -> bool:
        return await self._services.readable.logs(
            self._client.viewer, self._target.uuid, self._facts, fresh=fresh
        )

    def _judge_anew(self) -> None:
        self._client.spawn(self.recheck())

    async def _start_container(self) -> None:
        if not await self._may_read(fresh=False):
            raise Refused(NOT_READABLE)
        if self._stopped:
            return
        self._watching = True
        self._services.objects.watch_requests(self._target.uuid, self._judge_anew)
        self._client.tell(Subscribed(self._id))
        self._read(self._target.uuid)

    async def _start_request(self) -> None:
        feed = self._request = self._services.objects.open(self._target.uuid)
        state = await feed.load(self._client.viewer.token)
        self._facts = object_state.facts(state)
        if not await self._may_read(fresh=False):
            raise Refused(NOT_READABLE)
        former = await self._former(state)
        if self._stopped:
            return
        feed.followers.add(self._look)
        self._client.tell(Subscribed(self._id))
        if former is not None:
            self._attempt(*former)
        self._look()

    async def _former(self, state: State) -> tuple[str, int] | None:
        """The earlier attempt that the client was reading, if it is one of this request."""
        wanted = self._target.container
        if wanted is None or wanted == state["container_uuid"]:
            return None
        known = await object_history.attempts(self._services.nats, self._target.uuid)
        if wanted in known:
            return wanted, known[wanted]
        gap = Gap(self._id, "this attempt is not known any more", container=wanted)
        self._client.tell(gap)
        self._next = _selection(self._target, places=False)
        return None

    def _look(self) -> None:
        """See what the request's record means for what is sent."""
        feed = self._request
        if feed is None or self._stopped:
            return
        state = feed.state
        if feed.deleted:
            self._client.revoke(self._id, NOT_READABLE)
        elif state is None:
            self._client.spawn(self._reload(feed))
        else:
            self._follow(state)

    async def _reload(self, feed: ObjectFeed) -> None:
        async def load() -> bool:
            try:
                await feed.load(self._client.viewer.token)
            except Refused:
                return False
            return True

        if await still_allowed(load):
            self._look()
        elif not self._stopped:
            self._client.revoke(self._id, NOT_READABLE)

    def _follow(self, state: State) -> None:
        facts = object_state.facts(state)
        if facts != self._facts:
            self._facts = facts
            self._client.spawn(self.recheck())
        container = state["container_uuid"]
        if container and container != self._container:
            if self._reader is None:
                self._attempt(container, max(state["container_count"] or 1, 1))
            elif self._moving_on is None:
                loop = asyncio.get_running_loop()
                self._moving_on = loop.call_later(OLD_END_SECONDS, self._container_ended)
        elif state["state"] == _FINAL and self._reader is None:
            self._client.tell(End(request=self._target.uuid, state=_FINAL))
            self._client.finished(self._id)

    def _attempt(self, container: str, n: int) -> None:
        self._client.tell(Attempt(self._id, self._target.uuid, container, n))
        self._read(container)

    def _read(self, container: str) -> None:
        self._container = container
        self._reader = LogReader(
            self._services.logs.open(container),
            self._client.outlet,
            self._access(),
            self._next,
            id=self._id,
            send=self._send,
            ended=self._container_ended,
        )
        self._next = Selection(files=self._next.files)
        self._reader.start()

    def _send(self, message: Message) -> None:
        self._client.send(message)

    def _access(self) -> Access:
        request = self._target.uuid if self._request else None
        return Access(self._client.viewer.token, request)

    def _container_ended(self) -> None:
        self._end_reader()
        if self._moving_on:
            self._moving_on.cancel()
            self._moving_on = None
        if self._request is None:
            self._client.finished(self._id)
        else:
            self._look()

    def _end_reader(self) -> None:
        if self._reader is not None and self._container is not None:
            self._reader.stop()
            self._reader = None
            self._services.logs.close(self._container)


def _selection(target: LogTarget, *, places: bool = True) -> Selection:
    named = target.from_ or {} if places else {}
    return Selection(
        files=frozenset(target.files) if target.files is not None else None,
        places={file: (place.epoch, place.offset) for file, place in named.items()},
        tail=target.tail,
    )
