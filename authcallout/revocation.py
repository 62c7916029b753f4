# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Take back what a change of permission took: cut connections that have not what they should.

A connection's name carries a fingerprint of what it was let in with, so any replica can tell, at
any time, whether its holder would get the same now. Every replica hears of every change, drops what
it remembers and only then cuts, since a client that is cut is back in milliseconds. A login that
was under way meanwhile may have come in with old grants: a second sweep finds it
(docs/facts/nats-callout.md 2, races 1 to 4). A connection whose token is nobody's is cut too; while
nobody can say whose it is, it is kept for a bounded time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from arvados_nats.arvados.identities import Identities
from arvados_nats.arvados.tokens import Token
from arvados_nats.errors import BadInput, Unavailable
from arvados_nats.nats.client import Nats
from arvados_nats.permission_client import grants_watch, tokens_watch
from arvados_nats.permission_client.grants_cache import STALE, GrantsCache
from arvados_nats.permission_client.grants_messages import TOKEN_STALE
from arvados_nats.permissions.grant_subjects import Change
from arvados_nats.permissions.grants import Grants
from arvados_nats.permissions.rule import Identity
from authcallout.admissions import FIXED, MAX_PATTERNS, fingerprint
from authcallout.connections import Connections
from authcallout.token_cache import TokenCache

logger = logging.getLogger(__name__)

SWEEP_AGAIN = 3.0
"""Seconds after which a login that was under way during a change is certainly in the index."""
GAINS = 2.0
"""Seconds for which gains are gathered before a connection is cut to widen it."""


class Revocation:
    """Reacts to what the permission publisher tells."""

    def __init__(
        self,
        connections: Connections,
        identities: Identities,
        grants: GrantsCache,
        tokens: TokenCache,
        *,
        limit: int = MAX_PATTERNS,
        gains: float = GAINS,
        again: float = tokens_watch.RETRY,
    ) -> None:
        self._gains = gains
        self._again = again
        self._undecided: dict[str, float] = {}
        """Users about whose tokens nobody could say anything, and since when."""
        self._unswept: set[str] = set()
        self._widening: set[str] = set()
        self._connections = connections
        self._identities = identities
        self._grants = grants
        self._tokens = tokens
        self._limit = limit
        self._sweeps: set[asyncio.Task[None]] = set()

    async def watch(self, nats: Nats, ready: Callable[[], None]) -> None:
        """Keep connections to what their holders may have, until cancelled."""
        users, own = self._connections.users, self._identities.own
        connected: Collection[str] = ()

        def tokens() -> dict[str, Identity | None]:
            nonlocal connected
            connected = self._connections.tokens()
            known = self._identities.usable() | self._tokens.known(connected)
            return dict.fromkeys(connected) | known

        def lives(token_uuid: str) -> None:
            if token_uuid in connected:
                self._identities.confirm(token_uuid)

        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(
                    tokens_watch.follow(nats, own, tokens, self._token_gone, lives=lives)
                )
                await grants_watch.follow(nats, self._grants, users, self._moved, ready)
        finally:
            for sweep in self._sweeps:
                sweep.cancel()

    async def check_all(self) -> None:
        """Hold every connection against what its holder may have now.

        After a start nothing else would find what changed while no replica ran.
        """
        self._tokens.keep_only(self._connections.tokens())
        for user_uuid in list(self._connections.users()):
            try:
                await self._grants.of(user_uuid)
            except Unavailable:
                continue
            await self._cut_changed(user_uuid)

    async def _moved(self, change: Change, new: Grants) -> None:
        """What was lost is taken at once. A gain can wait: a native client misses what is said
        while it is away, and something is shared with everybody often enough."""
        user_uuid = change.user_uuid
        if change.narrows:
            await self._cut_changed(user_uuid)
            self._later(SWEEP_AGAIN, lambda: self._cut_changed(user_uuid))
        elif user_uuid not in self._widening:
            self._widening.add(user_uuid)
            self._later(self._gains, lambda: self._widen(user_uuid))

    async def _widen(self, user_uuid: str) -> None:
        self._widening.discard(user_uuid)
        await self._cut_changed(user_uuid)

    async def _token_gone(self, token_uuid: str, reason: str) -> None:
        if reason == TOKEN_STALE:
            if login := self._tokens.login(token_uuid):
                self._later(0, lambda: self._ask_again(*login))
            else:
                self._identities.forget(token_uuid)
            return
        self._identities.forget(token_uuid)
        self._tokens.forget(token_uuid)
        await self._cut_token(token_uuid)
        self._later(SWEEP_AGAIN, lambda: self._cut_token(token_uuid))

    async def _ask_again(self, token: Token, identity: Identity) -> None:
        """Another cluster's token: only its own no cuts. Where another replica let it in, that one
        asks; where none did, the publisher tells it gone after a while."""
        if reason := await self._identities.gone(token, identity):
            await self._token_gone(identity.token_uuid, reason)

    async def _cut_changed(self, user_uuid: str) -> None:
        grants = self._grants.held(user_uuid)
        if grants is None:
            return
        held = [
            (connection, owner)
            for connection, owner in self._connections.of_user(user_uuid)
            if owner.fingerprint not in FIXED
        ]
        identities = await self._identities_of(user_uuid, {owner.token_uuid for _, owner in held})
        due = {
            token_uuid: self._due(identity, grants) for token_uuid, identity in identities.items()
        }
        doomed = [
            connection
            for connection, owner in held
            if owner.token_uuid in due and owner.fingerprint != due[owner.token_uuid]
        ]
        await self._connections.cut(doomed, "grants changed")

    async def _identities_of(
        self, user_uuid: str, tokens: Collection[str]
    ) -> dict[str, Identity | None]:
        """Who holds each of a user's tokens, None where nobody does; left out while nobody can say,
        for as long as an answer about grants would be kept."""
        found: dict[str, Identity | None] = {}
        try:
            found.update(await self._tokens.of(tokens))
        except (Unavailable, BadInput) as error:
            found.update(self._tokens.known(tokens))
            logger.warning(
                "tokens not known",
                extra={"action": "tokens.unknown", "tokens": len(tokens), "error": str(error)},
            )
            since = self._undecided.setdefault(user_uuid, time.monotonic())
            if time.monotonic() - since < STALE:
                self._sweep_again(user_uuid)
                return found
        self._undecided.pop(user_uuid, None)
        return dict.fromkeys(tokens) | found

    def _sweep_again(self, user_uuid: str) -> None:
        async def again() -> None:
            self._unswept.discard(user_uuid)
            await self._cut_changed(user_uuid)

        if user_uuid not in self._unswept:
            self._unswept.add(user_uuid)
            self._later(self._again, again)

    def _due(self, identity: Identity | None, grants: Grants) -> str | None:
        if identity is None:
            return None
        return fingerprint(identity, grants, limit=self._limit)

    async def _cut_token(self, token_uuid: str) -> None:
        await self._connections.cut(self._connections.of_token(token_uuid), "token gone")

    def _later(self, seconds: float, sweep: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Sweep in a while: also for logins that are under way now."""

        async def wait() -> None:
            await asyncio.sleep(seconds)
            await sweep()

        task = asyncio.create_task(wait())
        self._sweeps.add(task)
        task.add_done_callback(self._sweeps.discard)
