# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whether a login may read the state or the logs of an object now.

By the rule where the object's facts and the login's grants are known; otherwise Arvados is asked
with its own token, once for each token and object at a time. Unlike events, states and
logs are judged without include_trash (docs/facts/permission-rule.md, last section).
"""

from __future__ import annotations

import time

from arvados_nats.contract import subjects
from arvados_nats.errors import Unavailable
from arvados_nats.permissions.object_facts import ObjectFacts
from arvados_nats.permissions.rule import ALL, Decision, scopes_allow
from wsproxy.events.record_check import RecordCheck
from wsproxy.logins.logins import Login
from wsproxy.logins.whereabouts import Told, Whereabouts

_KEPT_SECONDS = 5.0
_KEPT_ANSWERS = 2000
_REQUESTS = "/arvados/v1/container_requests"
_CONTAINERS = "/arvados/v1/containers"


class Readable:
    """Questions of all logins."""

    def __init__(self, check: RecordCheck, whereabouts: Whereabouts) -> None:
        self._check = check
        self._whereabouts = whereabouts
        self._yes: dict[tuple[bytes, str], float] = {}

    async def state(
        self,
        login: Login,
        uuid: str,
        facts: ObjectFacts | None,
        moved: Told,
        *,
        fresh: bool = False,
    ) -> bool:
        """Whether the record may be shown; `fresh`: no answer of the last seconds counts.

        `moved` is called when the answer may be another one because of what is above the object,
        until `forget`. Raises Unavailable when nobody can tell.
        """
        decision = Decision.ASK
        if placed := await self._placed(uuid, facts, moved):
            await login.principal.settled()
            if judge := login.judge():
                decision = judge.decide(placed)
        if decision is Decision.ASK:
            return await self._ask(login, uuid, fresh=fresh)
        return decision is Decision.YES

    async def logs(
        self,
        login: Login,
        uuid: str,
        facts: ObjectFacts | None,
        moved: Told,
        *,
        container: str | None,
        fresh: bool = False,
    ) -> bool:
        """Whether the logs of a container request or container may be shown. As `state`."""
        if not covers_logs(login.identity.scopes, uuid if facts else None, container):
            return False
        return await self.state(login, uuid, facts, moved, fresh=fresh)

    def forget(self, moved: Told) -> None:
        """Call this one no more."""
        self._whereabouts.unfollow(moved)

    async def _placed(
        self, uuid: str, facts: ObjectFacts | None, moved: Told
    ) -> ObjectFacts | None:
        """Facts for the rule; None where only Arvados can tell, or no publisher answers."""
        try:
            if facts is not None:
                return await self._whereabouts.placed(facts, moved)
            kind = subjects.kind_of(uuid)
            is_container = kind is not None and kind.name == "container"
            return await self._whereabouts.container(uuid, moved) if is_container else None
        except Unavailable:
            return None

    async def _ask(self, login: Login, uuid: str, *, fresh: bool) -> bool:
        key = (login.token.digest, uuid)
        if fresh:
            self._yes.pop(key, None)
        elif self._yes.get(key, 0.0) > time.monotonic():
            return True
        asked_at = time.monotonic()
        if not await self._check.readable(login.token, uuid, anew=fresh):
            return False
        self._yes[key] = asked_at + _KEPT_SECONDS
        if len(self._yes) > _KEPT_ANSWERS:
            now = time.monotonic()
            self._yes = {k: until for k, until in self._yes.items() if until > now}
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
