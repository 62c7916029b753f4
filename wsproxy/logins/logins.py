# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who is connected, by token: from a token to a login, and back from a change to the sessions.

A session admits its token here and gets a `Login`. It is told when its token is dead, and when its
reader may see less than before.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from arvados_nats.arvados.identities import Identities
from arvados_nats.arvados.tokens import Token
from arvados_nats.nats.client import Nats
from arvados_nats.permission_client import tokens_watch
from arvados_nats.permission_client.grants_cache import GrantsCache
from arvados_nats.permission_client.grants_messages import TOKEN_STALE
from arvados_nats.permissions.grant_subjects import Change
from arvados_nats.permissions.judge import Judge
from arvados_nats.permissions.rule import Identity
from wsproxy import metrics
from wsproxy.events.permission_check import PermissionCheck
from wsproxy.events.principal import Principal
from wsproxy.events.router import Router
from wsproxy.logins.principals import Principals
from wsproxy.transport import failures
from wsproxy.transport.limits import Kept, Limits, Place, TooMany
from wsproxy.transport.send_buffer import SendBuffer

logger = logging.getLogger(__name__)

_EXPIRED = "expired"


class Session(Protocol):
    """What a session is told."""

    @property
    def send_buffer(self) -> SendBuffer:
        """Its outgoing side."""

    @property
    def place(self) -> Place:
        """Where its connection is counted."""

    def ended(self, reason: str) -> None:
        """The token is dead: `expired`, `deleted` or `changed`. Never waits, never raises."""

    def narrowed(self, change: Change) -> None:
        """Some objects may not be shown any more. Never waits, never raises."""


class Login:
    """One token with at least one session open."""

    __slots__ = ("_grants_cache", "identity", "kept", "principal", "sessions", "token")

    def __init__(
        self,
        token: Token,
        identity: Identity,
        principal: Principal,
        grants_cache: GrantsCache,
        kept: Kept,
    ) -> None:
        self.token = token
        self.identity = identity
        self.principal = principal
        self.kept = kept
        """By all subscriptions of its user."""
        self.sessions: set[Session] = set()
        self._grants_cache = grants_cache

    def judge(self) -> Judge | None:
        """The rule for this token as of now; None while its grants are not known."""
        grants = self.principal.grants
        return None if grants is None else self._grants_cache.judge(self.identity, grants)


class Logins:
    """All logins of the process; `run` keeps their grants and tokens up to date."""

    def __init__(
        self,
        nats: Nats,
        identities: Identities,
        grants_cache: GrantsCache,
        router: Router,
        check: PermissionCheck,
        limits: Limits,
    ) -> None:
        self._nats = nats
        self._identities = identities
        self._grants_cache = grants_cache
        self._principals = Principals(nats, grants_cache, router, check)
        self._check = check
        self._limits = limits
        self._logins: dict[bytes, Login] = {}
        self._by_token: dict[str, set[Login]] = {}
        self._by_user: dict[str, set[Login]] = {}
        self._tasks = asyncio.TaskGroup()
        self._stale: set[Login] = set()
        self._asking: set[Login] = set()

    async def whose(self, token: Token, address: str) -> Identity:
        """Who asks one question with this token, from this address; errors as of `admit`."""
        return await self._identities.of(token, address)

    async def admit(self, token: Token, session: Session) -> Login:
        """The login of a token, again for a session that renews or repeats it.

        Refused if Arvados says no, TooMany if its user, or the process, has enough sessions,
        Unavailable if Arvados cannot be asked.
        """
        identity = await self._identities.of(token, session.place.address)
        self._check_room(identity.user_uuid, session)
        session.place.settle()
        login = self._logins.get(token.digest)
        if login is None:
            kept = next((other.kept for other in self._by_user.get(identity.user_uuid, ())), None)
            kept = kept or Kept(self._limits.kept_per_user)
            login = Login(token, identity, self._principals.of(identity), self._grants_cache, kept)
            self._logins[token.digest] = login
            self._by_token.setdefault(identity.token_uuid, set()).add(login)
            self._by_user.setdefault(identity.user_uuid, set()).add(login)
            self._check.add_token(login.principal.key, token)
        login.sessions.add(session)
        return login

    def _check_room(self, user_uuid: str, session: Session) -> None:
        most = self._limits.connections_per_user
        if not most or self.sessions_of(user_uuid) < most:
            return
        if not any(session in login.sessions for login in self._by_user[user_uuid]):
            raise TooMany("too many connections of this user")

    def release(self, login: Login, session: Session) -> None:
        """The session is over."""
        if session not in login.sessions:
            return
        login.sessions.discard(session)
        if not login.sessions:
            self._forget(login)

    def _forget(self, login: Login) -> None:
        del self._logins[login.token.digest]
        _remove(self._by_token, login.identity.token_uuid, login)
        _remove(self._by_user, login.identity.user_uuid, login)
        principal = login.principal
        if not self._check.drop_token(principal.key, login.token):
            self._principals.forget(principal)

    def sessions_of(self, user_uuid: str) -> int:
        """How many sessions a user has open, over all their tokens."""
        return sum(len(login.sessions) for login in self._by_user.get(user_uuid, ()))

    async def run(self) -> None:
        """Follow grants and tokens until cancelled."""
        async with self._tasks as tasks:
            tasks.create_task(
                tokens_watch.follow(self._nats, self._identities.own, self._tokens, self._gone)
            )
            tasks.create_task(self._principals.run(self._moved))
            tasks.create_task(self._expiries())

    def _moved(self, change: Change) -> None:
        if not change.narrows:
            return
        for login in tuple(self._by_user.get(change.user_uuid, ())):
            failures.each(login.sessions, lambda session: session.narrowed(change))

    def _tokens(self) -> dict[str, Identity]:
        connected = {login.identity.token_uuid: login.identity for login in self._logins.values()}
        return self._identities.usable() | connected

    async def _gone(self, token_uuid: str, reason: str) -> None:
        if reason != TOKEN_STALE:
            self._end(token_uuid, reason)
            return
        logins = tuple(self._by_token.get(token_uuid, ()))
        if not logins:
            self._identities.forget(token_uuid)
        for login in logins:
            self._stale.add(login)
            if login not in self._asking:
                self._asking.add(login)
                self._tasks.create_task(self._ask_again(login))

    async def _ask_again(self, login: Login) -> None:
        """Once more for what is told meanwhile: the answer under way may be older."""
        try:
            while login in self._stale:
                self._stale.discard(login)
                if reason := await self._identities.gone(login.token, login.identity):
                    self._end(login.identity.token_uuid, reason)
                    return
        finally:
            self._asking.discard(login)
            self._stale.discard(login)

    def _end(self, token_uuid: str, reason: str) -> None:
        self._identities.forget(token_uuid)
        for login in tuple(self._by_token.get(token_uuid, ())):
            metrics.ended_tokens.inc()
            logger.info(
                "token is dead; its sessions end",
                extra={
                    "action": "logins.token_gone",
                    "token_uuid": token_uuid,
                    "reason": reason,
                    "sessions": len(login.sessions),
                },
            )
            failures.each(login.sessions, lambda session: session.ended(reason))

    async def _expiries(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._end_expired()

    def _end_expired(self) -> None:
        now = self._grants_cache.now()
        for login in tuple(self._logins.values()):
            expires = login.identity.expires_at
            if expires is not None and expires <= now:
                self._end(login.identity.token_uuid, _EXPIRED)


def _remove(index: dict[str, set[Login]], key: str, login: Login) -> None:
    logins = index.get(key, set())
    logins.discard(login)
    if not logins:
        index.pop(key, None)
