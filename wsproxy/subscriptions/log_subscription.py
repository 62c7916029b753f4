# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The logs of a container, or of a container request through all its attempts.

A request's record tells which container is its present one. When a retry gives it another, all
that there is of the old container's log comes first, then `attempt`, then the new one's log from
its beginning (docs/facts/arvados-demand.md A37, W2, G12). The end of a container whose node died
takes its time: the next attempt does not wait for it, and what still comes of the former is sent
beside it. The permission comes from the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from arvados_nats.contract import subjects
from arvados_nats.errors import BadInput, Refused
from arvados_nats.permissions.object_facts import ObjectFacts
from arvados_nats.protocol_v1.messages import (
    NOT_READABLE,
    Attempt,
    Attempts,
    CaughtUp,
    End,
    Gap,
    Subscribed,
)
from arvados_nats.protocol_v1.requests import From, LogTarget
from wsproxy.cursors import LogCursor
from wsproxy.logins.readable import covers_logs
from wsproxy.logs.consumer import LogConsumer, Selection
from wsproxy.logs.saved import Access
from wsproxy.objects import history as object_history
from wsproxy.objects import state as object_state
from wsproxy.objects.hub import ObjectHub
from wsproxy.objects.state import State
from wsproxy.subscriptions.subscription import Client, Rechecks, still_allowed
from wsproxy.transport.frames import Message

if TYPE_CHECKING:
    from wsproxy.services import Services

OLD_END_SECONDS = 1.0
"""How long an attempt's end is waited for, once all of it was sent, before the next is shown."""
_FINAL = "Final"


class LogSubscription:
    """One `log` subscription."""

    asks_arvados: ClassVar[bool] = True

    def __init__(self, services: Services, client: Client, id: str, target: LogTarget) -> None:
        self._services = services
        self._client = client
        self._id = id
        self._target = target
        self._request: ObjectHub | None = None
        self._facts: ObjectFacts | None = None
        self._container: str | None = None
        """The container whose log was begun last."""
        self._consumers: dict[str, LogConsumer] = {}
        """Who reads this container, also after its end, and former ones that have not ended."""
        self._next = _selection(target, target.from_)
        self._waiting: asyncio.TimerHandle | None = None
        self._waited = False
        self._stopped = False
        self._rechecks = Rechecks()

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
        self._services.readable.forget(self.recheck)
        for container, consumer in self._consumers.items():
            if not consumer.stopped:
                consumer.stop()
                self._services.logs.close(container)
        if self._waiting:
            self._waiting.cancel()
        if self._request:
            self._request.followers.discard(self._look)
            self._services.objects.close(self._target.uuid)
            self._request = None
        elif self._watching:
            self._services.objects.unwatch_requests(self._target.uuid, self.recheck)
            self._watching = False

    _watching = False

    def cursor(self, *, done: bool) -> LogCursor | None:
        """The next byte of every file; None while that is not known of all that is read."""
        former = {container: consumer.places for container, consumer in self._consumers.items()}
        if self._container is None:
            return None
        places = former.pop(self._container)
        known = {container: found for container, found in former.items() if found is not None}
        if places is None or len(known) < len(former):
            return None
        return LogCursor(self._container, places, done, known)

    def recheck(self) -> None:
        self._rechecks.soon(self._client.tasks, self._judge)

    async def _judge(self) -> None:
        if self._stopped:
            return
        if not await still_allowed(self._may_read) and not self._stopped:
            self._client.revoke(self._id, NOT_READABLE)

    def renew(self) -> None:
        """The client has a new token."""
        for consumer in self._consumers.values():
            consumer.access = self._access()

    async def _may_read(self, *, fresh: bool = True) -> bool:
        if self._stopped:
            return False  # nobody is told any more when the answer is another one
        return await self._services.readable.logs(
            self._client.login,
            self._target.uuid,
            self._facts,
            self.recheck,
            container=self._present,
            fresh=fresh,
        )

    @property
    def _present(self) -> str | None:
        """The container that is shown now; None while it is not known."""
        if self._request is None:
            return self._target.uuid
        state = self._request.state or {}
        return state.get("container_uuid")

    async def _start_container(self) -> None:
        if not await self._may_read(fresh=False):
            raise Refused(NOT_READABLE)
        if self._stopped:
            return
        self._watching = True
        self._services.objects.watch_requests(self._target.uuid, self.recheck)
        self._client.tell(Subscribed(self._id))
        self._container = self._target.uuid
        self._read(self._container, self._next)

    async def _start_request(self) -> None:
        hub = self._request = self._services.objects.open(self._target.uuid)
        state = await hub.load(self._client.login.token)
        self._facts = object_state.facts(state)
        if not await self._may_read(fresh=False):
            raise Refused(NOT_READABLE)
        known = await self._known_attempts(state)
        if self._stopped:
            return
        hub.followers.add(self._look)
        self._client.tell(Subscribed(self._id))
        if len(known) > 1:
            self._client.tell(Attempts(self._id, self._target.uuid, dict(known)))
        self._resume(known, state["container_uuid"])
        self._look()
        if not state["container_uuid"] and self._container is None:
            # A draft has no log, so what it will have is new.
            self._client.tell(CaughtUp(self._id))
            self._next = replace(self._next, tail=None)

    async def _known_attempts(self, state: State) -> Mapping[str, int]:
        """The containers that the request has had, where it had more than its present one."""
        named = {self._target.container, *(self._target.former or {})} - {None}
        present, count = state["container_uuid"], state["container_count"] or 0
        if count < 2 and named <= {present}:
            return {}
        known = await object_history.attempts(self._services.nats, self._target.uuid)
        return {**known, present: max(count, 1)} if present else known

    def _resume(self, known: Mapping[str, int], present: str | None) -> None:
        """Read on in the attempts that the client was reading, those of this request."""
        for container, places in (self._target.former or {}).items():
            if container in known and container not in (present, self._target.container):
                self._read(container, _selection(self._target, places, former=True))
            else:
                self._tell_unknown(container)
        wanted = self._target.container
        if wanted is None or wanted == present:
            return
        if wanted in known:
            self._attempt(wanted, known[wanted])
        else:
            self._tell_unknown(wanted)
            self._next = _selection(self._target, {})

    def _tell_unknown(self, container: str) -> None:
        reason = "this attempt is not known any more"
        self._client.tell(Gap(self._id, reason, container=container))

    def _look(self) -> None:
        """See what the request's record means for what is sent."""
        hub = self._request
        if hub is None or self._stopped:
            return
        state = hub.state
        if hub.deleted:
            self._client.revoke(self._id, NOT_READABLE)
        elif state is None:
            self._client.tasks.spawn(self._reload(hub))
        else:
            self._follow(state)

    async def _reload(self, hub: ObjectHub) -> None:
        async def load() -> bool:
            try:
                await hub.load(self._client.login.token)
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
            self.recheck()
        container = state["container_uuid"]
        if container and container != self._container:
            scopes = self._client.login.identity.scopes
            if covers_logs(scopes, self._target.uuid, container):
                self._go_on_to(container, max(state["container_count"] or 1, 1))
            else:
                self._client.revoke(self._id, NOT_READABLE)
        elif state["state"] == _FINAL and all(one.stopped for one in self._consumers.values()):
            self._client.tell(End(id=self._id, request=self._target.uuid, state=_FINAL))
            self._client.finished(self._id)

    def _go_on_to(self, container: str, n: int) -> None:
        """Begin the next attempt, unless there is more of the former one, or its end, at once."""
        former = self._consumers.get(self._container or "")
        if former is None or former.stopped or (self._waited and former.caught_up):
            self._attempt(container, n)
        elif self._waiting is None:
            loop = asyncio.get_running_loop()
            self._waiting = loop.call_later(OLD_END_SECONDS, self._wait_is_over)

    def _wait_is_over(self) -> None:
        self._waiting, self._waited = None, True
        self._look()

    def _attempt(self, container: str, n: int) -> None:
        self._client.tell(Attempt(self._id, self._target.uuid, container, n))
        self._consumers = {uuid: one for uuid, one in self._consumers.items() if not one.stopped}
        self._container, self._waited = container, False
        self._read(container, self._next)
        self._next = Selection(files=self._next.files)

    def _read(self, container: str, selection: Selection) -> None:
        consumer = self._consumers[container] = LogConsumer(
            self._services.logs.open(container),
            self._client.send_buffer,
            self._access(),
            selection,
            id=self._id,
            send=self._send,
            ended=partial(self._container_ended, container),
        )
        consumer.start()

    def _send(self, message: Message) -> None:
        self._client.send(message)

    def _access(self) -> Access:
        request = self._target.uuid if self._request else None
        return Access(self._client.login.token, request)

    def _container_ended(self, container: str) -> None:
        self._services.logs.close(container)
        if self._request is None:
            self._client.finished(self._id)
            return
        if container != self._container:
            del self._consumers[container]
        self._look()


def _selection(
    target: LogTarget, places: Mapping[str, From] | None, *, former: bool = False
) -> Selection:
    return Selection(
        files=frozenset(target.files) if target.files is not None else None,
        places={file: (place.epoch, place.offset) for file, place in (places or {}).items()},
        tail=None if former else target.tail,
        former=former,
    )
