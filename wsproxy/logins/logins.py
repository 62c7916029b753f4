# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who is connected, by token: from a token to a reader, and back from a change to the sessions.

A session admits its token here and gets a `Login`. Logins of one user and scopes share a
`Principal`. What a user may read comes from the permission publisher (`GrantsCache`) and is asked
for again when it is told to have changed, and, before anybody is shown a change of the permission
graph (a permission link, a role, a user), for those whom it can concern: they are on hold until the
answer is there. While no publisher answers, Arvados is asked about each object instead.

A session is told when its token is dead, and when its reader may see less than before.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from itertools import islice
from typing import Protocol

from arvados_nats.arvados.identities import Identities
from arvados_nats.arvados.tokens import Token
from arvados_nats.contract import subjects
from arvados_nats.errors import BadInput, Unavailable
from arvados_nats.nats.client import Message, Nats
from arvados_nats.permission_client import grants_messages, tokens_watch
from arvados_nats.permission_client.grants_cache import STALE, GrantsCache
from arvados_nats.permission_client.grants_messages import TOKEN_STALE
from arvados_nats.permissions.grant_subjects import Change
from arvados_nats.permissions.judge import Judge
from arvados_nats.permissions.rule import Identity
from wsproxy import metrics
from wsproxy.events.graph_changes import graph_change
from wsproxy.events.permission_check import PermissionCheck
from wsproxy.events.principal import Principal, PrincipalKey
from wsproxy.events.router import Router
from wsproxy.events.stored_event import StoredEvent
from wsproxy.transport import failures
from wsproxy.transport.limits import Kept, Limits, Place, TooMany
from wsproxy.transport.send_buffer import SendBuffer

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
_ROUND_AT_ONCE = 50
"""Readers whom nobody waits for that are asked about in one question."""
_EXPIRED = "expired"


class Session(Protocol):
    """What a viewer's connection is told."""

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
    """All viewers of the process; `run` keeps their grants and tokens up to date."""

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
        self._router = router
        self._check = check
        self._limits = limits
        self._logins: dict[bytes, Login] = {}
        self._by_token: dict[str, set[Login]] = {}
        self._readers: dict[PrincipalKey, Principal] = {}
        self._by_user: dict[str, set[Login]] = {}
        self._due: dict[Principal, int] = {}
        self._asked: dict[Principal, int] = {}
        """Who were due, while the answer is on its way."""
        self._told_meanwhile: set[Principal] = set()
        """Those of them of whom a change was told since: the answer may be from before it."""
        self._wake = asyncio.Event()
        self._tasks = asyncio.TaskGroup()
        self._stale: set[Login] = set()
        self._asking: set[Login] = set()
        router.before_batch.append(self._hold_for)

    async def whose(self, token: Token, address: str) -> Identity:
        """Who asks one question with this token, from this address; errors as of `admit`."""
        return await self._identities.of(token, address)

    async def admit(self, token: Token, session: Session) -> Login:
        """The viewer of a token, again for a session that renews or repeats it.

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
            login = Login(token, identity, self._principal(identity), self._grants_cache, kept)
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
            self._router.remove(principal)
            principal.end()
            del self._readers[principal.key]
            self._due.pop(principal, None)
            self._asked.pop(principal, None)
            self._told_meanwhile.discard(principal)

    def sessions_of(self, user_uuid: str) -> int:
        """How many sessions a user has open, over all their tokens."""
        return sum(len(login.sessions) for login in self._by_user.get(user_uuid, ()))

    def _principal(self, identity: Identity) -> Principal:
        key = (identity.user_uuid, identity.scopes, identity.is_root)
        principal = self._readers.get(key)
        if principal is None:
            principal = Principal(identity, self._check, self._grants_cache.judge)
            self._readers[key] = principal
            self._router.add(principal)
            self._renew_soon(principal)
        return principal

    # Grants.

    def _renew_soon(self, principal: Principal, sequence: int = 0) -> None:
        """Ask for the reader's grants, and judge nothing before the answer.

        `sequence`: of the event that changes them.
        """
        self._router.hold(principal, sequence)
        self._due[principal] = self._due.get(principal, 0) + 1
        self._wake.set()

    def _hold_for(self, stored: StoredEvent) -> None:
        """What changes the graph waits, for those it can concern, until it is known how."""
        change = graph_change(stored)
        if change is not None:
            for principal in self._router.reaching(change.uuids):
                self._renew_soon(principal, stored.sequence)

    async def run(self) -> None:
        """Follow grants and tokens until cancelled."""
        await self._nats.subscribe(f"{subjects.GRANTS_CHANGED}.*", self._grants_changed)
        await self._nats.subscribe(subjects.GRANTS_STARTED, self._publisher_started)
        self._nats.on_change(self._connection_changed)
        async with self._tasks as tasks:
            tasks.create_task(
                tokens_watch.follow(self._nats, self._identities.own, self._tokens, self._gone)
            )
            tasks.create_task(self._renewing())
            tasks.create_task(self._rounds())

    async def _grants_changed(self, message: Message) -> None:
        user_uuid = message.subject.rpartition(".")[2]
        self._grants_cache.forget(user_uuid, *grants_messages.told(message.data))
        known = None
        if not self._grants_cache.is_outdated(user_uuid):
            known = self._grants_cache.held(user_uuid)
        for principal in {login.principal for login in self._by_user.get(user_uuid, ())}:
            if principal in self._asked and principal.holding:
                self._told_meanwhile.add(principal)
            elif known is None or not principal.goes_by(known):
                self._renew_soon(principal)

    async def _publisher_started(self, _: Message) -> None:
        """What a change that it saw end did is told; everybody else is asked about meanwhile."""
        self._again(tuple(self._readers.values()))

    def _connection_changed(self, connected: bool) -> None:
        """What was told meanwhile was not heard."""
        if connected:
            self._again(tuple(self._readers.values()))

    async def _renewing(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            due = self._asked = self._next_due()
            users = {principal.user_uuid for principal in due}
            known = await self._renewed(users)
            told, self._asked, self._told_meanwhile = self._told_meanwhile, {}, set()
            for principal in told:
                if self._grants_cache.is_outdated(principal.user_uuid):
                    self._renew_soon(principal)
            for principal, holds in due.items():
                self._regrant(principal, holds, known=known)
            for user in users if known else ():
                self._tell(user)
            if not known:
                asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._again, tuple(due))

    def _next_due(self) -> dict[Principal, int]:
        """Some of those who are to be asked about, whose events wait for it before all others: a
        round over everybody must not hold them up."""
        waiting = {principal: holds for principal, holds in self._due.items() if holds}
        due = dict(islice((waiting or self._due).items(), None if waiting else _ROUND_AT_ONCE))
        for principal in due:
            del self._due[principal]
        if self._due:
            self._wake.set()
        return due

    async def _renewed(self, users: set[str]) -> bool:
        try:
            await self._grants_cache.renew(users)
        except (Unavailable, BadInput) as error:
            logger.warning(
                "grants are not known; Arvados is asked about each object",
                extra={"action": "viewers.no_grants", "users": len(users), "error": str(error)},
            )
            return False
        return True

    def _regrant(self, principal: Principal, holds: int, *, known: bool) -> None:
        if known:
            self._router.regrant(principal, self._grants_cache.held(principal.user_uuid), holds)
        elif holds or time.monotonic() - principal.granted_at > STALE:
            self._router.regrant(principal, None, holds)

    def _again(self, readers: Iterable[Principal]) -> None:
        """Ask once more, without holding up anybody: Arvados answers meanwhile."""
        for principal in readers:
            if self._readers.get(principal.key) is principal:
                self._due.setdefault(principal, 0)
        self._wake.set()

    def _tell(self, user_uuid: str) -> None:
        change = self._grants_cache.take_change(user_uuid)
        if change is None or not change.narrows:
            return
        for login in tuple(self._by_user.get(user_uuid, ())):
            failures.each(login.sessions, lambda session: session.narrowed(change))

    # Tokens.

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
                    "action": "viewers.token_gone",
                    "token_uuid": token_uuid,
                    "reason": reason,
                    "sessions": len(login.sessions),
                },
            )
            failures.each(login.sessions, lambda session: session.ended(reason))

    async def _rounds(self) -> None:
        """Every second the tokens that expire; every minute all grants."""
        next_round = time.monotonic() + self._grants_cache.refresh
        while True:
            await asyncio.sleep(1.0)
            self._end_expired()
            if time.monotonic() < next_round:
                continue
            next_round = time.monotonic() + self._grants_cache.refresh
            self._again(tuple(self._readers.values()))
            self._grants_cache.drop_unused(self._by_user.keys())

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
