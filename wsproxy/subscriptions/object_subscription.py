# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The state of one object: as it is, then each change of it, coalesced to the latest.

A container request comes with its present container in one record, so that a page needs no read of
its own (docs/facts/arvados-demand.md A14). A slow connection gets the latest state when it has
room, not every state there was. Deletion and loss of permission are told alike.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

from arvados_nats.contract import subjects
from arvados_nats.errors import Refused
from arvados_nats.permissions.object_facts import ObjectFacts
from arvados_nats.permissions.rule import ALL, scopes_allow
from arvados_nats.protocol_v1.messages import NOT_READABLE, Object, Subscribed, encode
from arvados_nats.protocol_v1.requests import ObjectTarget
from wsproxy.objects import state as object_state
from wsproxy.objects.hub import ObjectHub
from wsproxy.subscriptions.subscription import Client, Rechecks, still_allowed
from wsproxy.transport.frames import Message

if TYPE_CHECKING:
    from wsproxy.services import Services

COALESCE_SECONDS = 0.1
"""After a change was sent, further ones wait so long for company."""


class ObjectSubscription:
    """One `object` subscription."""

    asks_arvados: ClassVar[bool] = True

    def __init__(
        self,
        services: Services,
        client: Client,
        id: str,
        target: ObjectTarget,
        *,
        present: bool = True,
    ) -> None:
        self._services = services
        self._client = client
        self._id = id
        self._uuid = target.uuid
        self._etag = target.etag
        self._passed_over = present
        """The state there is now was sent, or left out as is wanted without `present`."""
        self._facts: ObjectFacts | None = None
        self._hub: ObjectHub | None = None
        self._container: ObjectHub | None = None
        self._sent_at = float("-inf")
        self._due: asyncio.Handle | None = None
        self._busy = False
        self._stopped = False
        self._rechecks = Rechecks()

    async def start(self) -> None:
        object_state.attributes(self._uuid)
        hub = self._hub = self._services.objects.open(self._uuid)
        await self._load()
        if not await self._may_read(fresh=False):
            raise Refused(NOT_READABLE)
        if self._stopped:
            return
        hub.followers.add(self._changed)
        self._services.objects.watch_requests(self._uuid, self.recheck)
        self._client.tell(Subscribed(self._id))
        self._flush()

    def stop(self) -> None:
        self._stopped = True
        self._services.readable.forget(self.recheck)
        if self._due:
            self._due.cancel()
        self._leave_container()
        if self._hub:
            self._hub.followers.discard(self._changed)
            self._services.objects.unwatch_requests(self._uuid, self.recheck)
            self._services.objects.close(self._uuid)
            self._hub = None

    def recheck(self) -> None:
        self._rechecks.soon(self._client.tasks, self._judge)

    async def _judge(self) -> None:
        if self._stopped:
            return
        if not await still_allowed(self._may_read) and not self._stopped:
            self._client.revoke(self._id, NOT_READABLE)

    def renew(self) -> None:
        """The next read is made with the client's new token anyway."""

    async def _may_read(self, *, fresh: bool = True) -> bool:
        if self._stopped:
            return False  # nobody is told any more when the answer is another one
        return await self._services.readable.state(
            self._client.login, self._uuid, self._facts, self.recheck, fresh=fresh
        )

    async def _load(self) -> None:
        """Have the state of the object, and of a request's container, at hand."""
        if self._hub is None:
            return
        state = await self._hub.load(self._client.login.token)
        self._facts = self._facts or self._facts_of(state)
        container = state.get("container_uuid")
        known = self._container.uuid if self._container else None
        if container != known:
            self._leave_container()
            if container and self._hub:
                self._container = self._services.objects.open(container)
                self._container.followers.add(self._changed)
        if self._container and self._container.state is None:
            try:
                await self._container.load(self._client.login.token, from_stream=known is not None)
            except Refused:
                return  # the request moved on meanwhile, or is shown without its container

    def _facts_of(self, state: dict[str, Any]) -> ObjectFacts | None:
        """Facts for the rule; of a container they stand in its requests, which are not known."""
        kind = subjects.kind_of(self._uuid)
        return None if kind and kind.name == "container" else object_state.facts(state)

    def _leave_container(self) -> None:
        if self._container:
            self._container.followers.discard(self._changed)
            self._services.objects.close(self._container.uuid)
            self._container = None

    def _changed(self) -> None:
        if self._stopped or self._due or self._busy:
            return
        loop = asyncio.get_running_loop()
        wait = self._sent_at + COALESCE_SECONDS - loop.time()
        self._due = loop.call_later(wait, self._flush) if wait > 0 else loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send the state if it is another one; whatever has to be waited for goes to a task."""
        self._due = None
        hub = self._hub
        if hub is None or self._stopped:
            return
        if hub.deleted:
            self._client.revoke(self._id, NOT_READABLE)
            return
        state = hub.state
        if state is None or self._client.send_buffer.lagging or not self._container_is_known(state):
            self._busy = True
            self._client.tasks.spawn(self._prepare())
            return
        facts = self._facts_of(state)
        if facts != self._facts:
            self._facts = facts
            self._busy = True
            self._client.tasks.spawn(self._judge_then_send())
            return
        self._send(hub, state)

    def _container_is_known(self, state: dict[str, Any]) -> bool:
        container = state.get("container_uuid")
        if not container:
            return True
        return self._container is not None and self._container.uuid == container

    async def _prepare(self) -> None:
        async def load() -> bool:
            try:
                await self._load()
            except Refused:
                return False
            return True

        await self._client.send_buffer.writable()
        allowed = await still_allowed(load)
        self._busy = False
        if allowed:
            self._flush()
        elif not self._stopped:
            self._client.revoke(self._id, NOT_READABLE)

    async def _judge_then_send(self) -> None:
        await self._judge()
        self._busy = False
        self._flush()

    def _send(self, hub: ObjectHub, state: dict[str, Any]) -> None:
        sequence, record = hub.sequence, state
        if "container_uuid" in state:
            container = self._container if self._may_read_container() else None
            record = {**state, "container": container.state if container else None}
            if container and container.state:
                sequence = min(sequence, max(container.sequence, 1))
        etag = object_state.etag(record)
        if etag == self._etag:
            return
        self._etag = etag
        if not self._passed_over:
            self._passed_over = True
            return
        self._sent_at = asyncio.get_running_loop().time()
        self._client.send(self._message(hub, etag, record, sequence))

    def _may_read_container(self) -> bool:
        """Whoever may read a request may read its container, if their token's scopes allow it."""
        scopes = self._client.login.identity.scopes
        if ALL in scopes or self._container is None:
            return True
        path = f"/arvados/v1/containers/{self._container.uuid}"
        return scopes_allow(scopes, "GET", path)

    def _message(self, hub: ObjectHub, etag: str, record: dict[str, Any], sequence: int) -> Message:
        """The message of a state, built once for all readers."""
        if hub.shared is None or hub.shared[0] != etag:
            place = self._services.events.source.cursor(sequence)
            cursor = self._services.cursors.encode(place)
            hub.shared = etag, Message(encode(Object(self._uuid, etag, record, cursor)))
        return hub.shared[1]
