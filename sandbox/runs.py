# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The run of a container in few words: rows in the database, bytes in its log files.

Every method takes a container, or a request and then means the container it points to now. The
dispatcher that acts is the cluster's own, with SystemRootToken.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from sandbox.logs.container_logs import ContainerLogs
from sandbox.model.actors import Actor
from sandbox.model.crunch import lifecycle
from sandbox.model.kinds import tokens
from sandbox.model.records import Record
from sandbox.model.unit_of_work import Unit
from sandbox.writes import Named


class Runs:
    """What happens to containers."""

    logs: ContainerLogs
    root: Actor

    def unit(self, actor: Actor) -> AbstractAsyncContextManager[Unit]:
        """A unit of writes for the actor."""
        raise NotImplementedError

    async def container_of(self, request: Named) -> Record:
        """The container that the request points to now."""
        async with self.unit(self.root) as unit:
            return await lifecycle.container_of(unit, request)

    async def run(self, what: Named, *, gateway: str | None = "gateway.example:1") -> Record:
        """Lock and start the container of a request; its gateway begins to answer."""
        async with self.unit(self.root) as unit:
            container = await lifecycle.start(unit, what, gateway)
        if gateway:
            self.logs.start(container.uuid)
        return container

    async def container_token(self, what: Named) -> Actor:
        """The running container itself as an actor, with its own token."""
        async with self.unit(self.root) as unit:
            container = await lifecycle.container_of(unit, what)
            token = await lifecycle.existing(unit, container["auth_uuid"] or "")
            text = f"{tokens.v2(token)}/{container.uuid}"
            return await tokens.authenticate(unit.connection, unit.config, text)

    async def progress(self, what: Named, progress: float | None = None, **status: str) -> Record:
        """The running container reports how far it is, and its runtime status."""
        async with self.unit(self.root) as unit:
            return await lifecycle.report(unit, what, progress, status)

    async def write_log(self, what: Named, file: str, data: bytes) -> None:
        """The running container writes to one of its log files: bytes, no rows."""
        container = await self.container_of(what)
        self.logs.append(container.uuid, file, data)

    async def checkpoint(self, what: Named) -> Record:
        """Save the log files as they are: the container and its requests name the collection."""
        container = await self.container_of(what)
        manifest = self.logs.checkpoint(container.uuid)
        async with self.unit(self.root) as unit:
            return await lifecycle.checkpoint(unit, container, manifest)

    async def finish(
        self, what: Named, *, exit_code: int = 0, output: str = "", cost: float = 0.0
    ) -> Record:
        """The container ends Complete with its log saved; `output` is a manifest."""
        container = await self.container_of(what)
        end = lifecycle.End(exit_code, output, self._last_log(container), cost)
        async with self.unit(self.root) as unit:
            ended = await lifecycle.complete(unit, container, end)
        self.logs.kill_node(container.uuid)
        return ended

    def _last_log(self, container: Record) -> str:
        answers = container["gateway_address"] is not None
        return self.logs.checkpoint(container.uuid) if answers else ""

    async def cancel(self, what: Named, error: str | None = None) -> Record:
        """The dispatcher reports Cancelled: a request with tries left gets a new container."""
        async with self.unit(self.root) as unit:
            container = await lifecycle.cancel(unit, what, error)
        self.logs.kill_node(container.uuid)
        return container

    async def cancel_request(self, request: Named, *, by: Actor | None = None) -> Record:
        """A user cancels: priority 0."""
        async with self.unit(by or self.root) as unit:
            return await unit.update(await lifecycle.existing(unit, request), priority=0)
