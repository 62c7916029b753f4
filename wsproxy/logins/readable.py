# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whether a viewer may read the state or the logs of an object now.

By the rule where the object's facts and the viewer's grants are known; otherwise Arvados is asked
with the viewer's own token, once for each token and object at a time. Unlike events, states and
logs are judged without include_trash (docs/facts/permission-rule.md, last section).
"""

from __future__ import annotations

import asyncio
import time

from arvados_nats.arvados.client import Arvados
from arvados_nats.errors import BadInput, Refused
from arvados_nats.permissions.object_facts import ObjectFacts
from arvados_nats.permissions.rule import ALL, Decision, scopes_allow
from wsproxy import metrics
from wsproxy.logins.logins import Login

_KEPT_SECONDS = 5.0
_REQUESTS = "/arvados/v1/container_requests"
_CONTAINERS = "/arvados/v1/containers"


class Readable:
    """Questions of all viewers; at most `calls` are under way at Arvados at once."""

    def __init__(self, arvados: Arvados, calls: int = 16) -> None:
        self._arvados = arvados
        self._calls = asyncio.Semaphore(calls)
        self._asking: dict[tuple[bytes, str], asyncio.Task[bool]] = {}
        self._yes: dict[tuple[bytes, str], float] = {}

    async def state(
        self, login: Login, uuid: str, facts: ObjectFacts | None, *, fresh: bool = False
    ) -> bool:
        """Whether the record may be shown; `fresh`: no answer of the last seconds counts.

        Raises Unavailable when nobody can tell.
        """
        decision = Decision.ASK
        if facts is not None:
            await login.principal.settled()
            if judge := login.judge():
                decision = judge.decide(facts)
        if decision is Decision.ASK:
            return await self._ask(login, uuid, fresh=fresh)
        return decision is Decision.YES

    async def logs(
        self,
        login: Login,
        uuid: str,
        facts: ObjectFacts | None,
        *,
        container: str | None,
        fresh: bool = False,
    ) -> bool:
        """Whether the logs of a container request or container may be shown. As `state`."""
        if not covers_logs(login.identity.scopes, uuid if facts else None, container):
            return False
        return await self.state(login, uuid, facts, fresh=fresh)

    async def _ask(self, login: Login, uuid: str, *, fresh: bool) -> bool:
        key = (login.token.digest, uuid)
        if fresh:
            self._yes.pop(key, None)
        elif self._yes.get(key, 0.0) > time.monotonic():
            return True
        task = self._asking.get(key)
        if task is None or fresh:
            task = asyncio.create_task(self._get(login, uuid), name="readable")
            self._asking[key] = task
            task.add_done_callback(lambda done: self._answered(key, done))
        return await asyncio.shield(task)

    def _answered(self, key: tuple[bytes, str], task: asyncio.Task[bool]) -> None:
        if self._asking.get(key) is task:
            del self._asking[key]
        if task.cancelled() or task.exception() is not None:
            return
        now = time.monotonic()
        if task.result():
            self._yes[key] = now + _KEPT_SECONDS
            if len(self._yes) > 2000:
                self._yes = {k: until for k, until in self._yes.items() if until > now}

    async def _get(self, login: Login, uuid: str) -> bool:
        async with self._calls:
            metrics.permission_gets.inc()
            try:
                await self._arvados.record(login.token, uuid, select=["uuid"])
            except (Refused, BadInput):
                return False
            return True


def covers_logs(scopes: tuple[str, ...], request: str | None, container: str | None) -> bool:
    """Whether the log API may be asked with these scopes: below one request, or below any.

    Arvados then reads the request's container with the same token (docs/facts/arvados.md 4); None
    for a request that has none yet.
    """
    if ALL in scopes:
        return True
    paths = [f"{_REQUESTS}/{request}/log/" if request else f"{_REQUESTS}/"]
    if container:
        paths.append(f"{_CONTAINERS}/{container}")
    return all(scopes_allow(scopes, "GET", path) for path in paths)
