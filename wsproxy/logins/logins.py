# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who is connected, by token: from a token to a reader, and back from a change to the sessions.

A session admits its token here and gets a `Viewer`. Viewers of one user and scopes share a
`Reader`. What a user may read comes from the permission publisher (`GrantBook`) and is asked for
again when it is told to have changed, and, before anybody is shown a change of the permission graph
(a project, a permission link, a user), for those whom it can concern: they are on hold until the
answer is there. While no publisher answers, Arvados is asked about each object instead.

A session is told when its token is dead, and when its reader may see less than before.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Protocol

import msgspec

from arvados_nats.arvados.identities import Identities
from arvados_nats.arvados.tokens import Token
from arvados_nats.contract import subjects
from arvados_nats.errors import MALFORMED, BadInput, Refused, Unavailable
from arvados_nats.nats.client import Message, Nats
from arvados_nats.permission_client import tokens_watch
from arvados_nats.permission_client.grants_cache import STALE, GrantBook
from arvados_nats.permission_client.grants_messages import TOKEN_STALE
from arvados_nats.permissions.grant_subjects import Change
from arvados_nats.permissions.judge import Judge
from arvados_nats.permissions.rule import Identity
from wsproxy import metrics
from wsproxy.events.graph_changes import graph_change
from wsproxy.events.permission_check import PermissionCheck
from wsproxy.events.principal import Reader, ReaderKey
from wsproxy.events.router import Router
from wsproxy.events.stored_event import StoredEvent
from wsproxy.transport import failures
from wsproxy.transport.send_buffer import Outlet

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
_EXPIRED = "expired"


class TooMany(Refused):
    """This user has too many connections open."""


class Session(Protocol):
    """What a viewer's connection is told."""

    @property
    def outlet(self) -> Outlet:
        """Its outgoing side."""

    def ended(self, reason: str) -> None:
        """The token is dead: `expired`, `deleted` or `changed`. Never waits, never raises."""

    def narrowed(self, change: Change) -> None:
        """Some objects may not be shown any more. Never waits, never raises."""


class Viewer:
    """One token with at least one session open."""

    __slots__ = ("_book", "identity", "reader", "sessions", "token")

    def __init__(self, token: Token, identity: Identity, reader: Reader, book: GrantBook) -> None:
        self.token = token
        self.identity = identity
        self.reader = reader
        self.sessions: set[Session] = set()
        self._book = book

    def judge(self) -> Judge | None:
        """The rule for this token as of now; None while its grants are not known."""
        grants = self.reader.grants
        return None if grants is None else self._book.judge(self.identity, grants)


class Viewers:
    """All viewers of the process; `run` keeps their grants and tokens up to date."""

    def __init__(
        self,
        nats: Nats,
        identities: Identities,
        book: GrantBook,
        router: Router,
        check: PermissionCheck,
        per_user: int = 0,
    ) -> None:
        self._nats = nats
        self._identities = identities
        self._book = book
        self._router = router
        self._check = check
        self._per_user = per_user
        self._viewers: dict[bytes, Viewer] = {}
        self._by_token: dict[str, set[Viewer]] = {}
        self._readers: dict[ReaderKey, Reader] = {}
        self._by_user: dict[str, set[Viewer]] = {}
        self._due: dict[Reader, int] = {}
        self._wake = asyncio.Event()
        self._tasks = asyncio.TaskGroup()
        self._asking: set[Viewer] = set()
        router.before_batch.append(self._hold_for)

    async def admit(self, token: Token, session: Session) -> Viewer:
        """The viewer of a token, again for a session that renews or repeats it.

        Refused if Arvados says no, TooMany if its user has enough sessions, Unavailable if Arvados
        cannot be asked.
        """
        identity = await self._identities.of(token)
        self._check_room(identity.user_uuid, session)
        viewer = self._viewers.get(token.digest)
        if viewer is None:
            viewer = Viewer(token, identity, self._reader(identity), self._book)
            self._viewers[token.digest] = viewer
            self._by_token.setdefault(identity.token_uuid, set()).add(viewer)
            self._by_user.setdefault(identity.user_uuid, set()).add(viewer)
            self._check.add_token(viewer.reader.key, token)
        viewer.sessions.add(session)
        return viewer

    def _check_room(self, user_uuid: str, session: Session) -> None:
        if not self._per_user or self.sessions_of(user_uuid) < self._per_user:
            return
        if not any(session in viewer.sessions for viewer in self._by_user[user_uuid]):
            raise TooMany

    def release(self, viewer: Viewer, session: Session) -> None:
        """The session is over."""
        if session not in viewer.sessions:
            return
        viewer.sessions.discard(session)
        if not viewer.sessions:
            self._forget(viewer)

    def _forget(self, viewer: Viewer) -> None:
        del self._viewers[viewer.token.digest]
        _remove(self._by_token, viewer.identity.token_uuid, viewer)
        _remove(self._by_user, viewer.identity.user_uuid, viewer)
        reader = viewer.reader
        if not self._check.drop_token(reader.key, viewer.token):
            self._router.remove(reader)
            reader.end()
            del self._readers[reader.key]

    def sessions_of(self, user_uuid: str) -> int:
        """How many sessions a user has open, over all their tokens."""
        return sum(len(viewer.sessions) for viewer in self._by_user.get(user_uuid, ()))

    def _reader(self, identity: Identity) -> Reader:
        key = (identity.user_uuid, identity.scopes, identity.is_root)
        reader = self._readers.get(key)
        if reader is None:
            reader = Reader(identity, self._check, self._book.judge)
            self._readers[key] = reader
            self._router.add(reader)
            self._renew_soon(reader)
        return reader

    # Grants.

    def _renew_soon(self, reader: Reader) -> None:
        """Ask for the reader's grants, and judge nothing before the answer."""
        self._router.hold(reader)
        self._due[reader] = self._due.get(reader, 0) + 1
        self._wake.set()

    def _hold_for(self, stored: StoredEvent) -> None:
        """What changes the graph waits, for those it can concern, until it is known how."""
        change = graph_change(stored)
        if change is not None:
            for reader in self._router.reaching(change.uuids, admins=change.admins):
                self._renew_soon(reader)

    async def run(self) -> None:
        """Follow grants and tokens until cancelled."""
        await self._nats.subscribe(f"{subjects.GRANTS_CHANGED}.*", self._grants_changed)
        await self._nats.subscribe(subjects.GRANTS_STARTED, self._publisher_started)
        self._nats.on_change(self._connection_changed)
        async with self._tasks as tasks:
            tasks.create_task(
                tokens_watch.follow(
                    self._nats, self._identities.own, self._by_token.keys, self._gone
                )
            )
            tasks.create_task(self._renewing())
            tasks.create_task(self._rounds())

    async def _grants_changed(self, message: Message) -> None:
        user_uuid = message.subject.rpartition(".")[2]
        try:
            generation = msgspec.json.decode(message.data, type=_Numbered).generation
        except MALFORMED as error:
            raise BadInput("not a change of grants") from error
        self._book.forget(user_uuid, generation)
        for reader in {viewer.reader for viewer in self._by_user.get(user_uuid, ())}:
            self._renew_soon(reader)

    async def _publisher_started(self, _: Message) -> None:
        for reader in self._readers.values():
            self._renew_soon(reader)

    def _connection_changed(self, connected: bool) -> None:
        """What was told meanwhile was not heard."""
        if connected:
            self._again(tuple(self._readers.values()))

    async def _renewing(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            due, self._due = self._due, {}
            users = {reader.user_uuid for reader in due}
            known = await self._renewed(users)
            for reader, holds in due.items():
                self._regrant(reader, holds, known=known)
            for user in users if known else ():
                self._tell(user)
            if not known:
                asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._again, tuple(due))

    async def _renewed(self, users: set[str]) -> bool:
        try:
            await self._book.renew(users)
        except (Unavailable, BadInput) as error:
            logger.warning(
                "grants are not known; Arvados is asked about each object",
                extra={"action": "viewers.no_grants", "users": len(users), "error": str(error)},
            )
            return False
        return True

    def _regrant(self, reader: Reader, holds: int, *, known: bool) -> None:
        if known:
            self._router.regrant(reader, self._book.held(reader.user_uuid), holds)
        elif holds or time.monotonic() - reader.granted_at > STALE:
            self._router.regrant(reader, None, holds)

    def _again(self, readers: Iterable[Reader]) -> None:
        """Ask once more, without holding up anybody: Arvados answers meanwhile."""
        for reader in readers:
            if self._readers.get(reader.key) is reader:
                self._due.setdefault(reader, 0)
        self._wake.set()

    def _tell(self, user_uuid: str) -> None:
        change = self._book.take_change(user_uuid)
        if change is None or not change.narrows:
            return
        for viewer in tuple(self._by_user.get(user_uuid, ())):
            failures.each(viewer.sessions, lambda session: session.narrowed(change))

    # Tokens.

    async def _gone(self, token_uuid: str, reason: str) -> None:
        if reason != TOKEN_STALE:
            self._end(token_uuid, reason)
            return
        for viewer in tuple(self._by_token.get(token_uuid, ())):
            if viewer not in self._asking:
                self._asking.add(viewer)
                self._tasks.create_task(self._ask_again(viewer))

    async def _ask_again(self, viewer: Viewer) -> None:
        try:
            if reason := await self._identities.gone(viewer.token, viewer.identity):
                self._end(viewer.identity.token_uuid, reason)
        finally:
            self._asking.discard(viewer)

    def _end(self, token_uuid: str, reason: str) -> None:
        self._identities.forget(token_uuid)
        for viewer in tuple(self._by_token.get(token_uuid, ())):
            metrics.ended_tokens.inc()
            logger.info(
                "token is dead; its sessions end",
                extra={
                    "action": "viewers.token_gone",
                    "token_uuid": token_uuid,
                    "reason": reason,
                    "sessions": len(viewer.sessions),
                },
            )
            failures.each(viewer.sessions, lambda session: session.ended(reason))

    async def _rounds(self) -> None:
        """Every second the tokens that expire; every minute all grants."""
        next_round = time.monotonic() + self._book.refresh
        while True:
            await asyncio.sleep(1.0)
            self._end_expired()
            if time.monotonic() < next_round:
                continue
            next_round = time.monotonic() + self._book.refresh
            self._again(tuple(self._readers.values()))
            self._book.drop_unused(self._by_user.keys())

    def _end_expired(self) -> None:
        now = self._book.now()
        for viewer in tuple(self._viewers.values()):
            expires = viewer.identity.expires_at
            if expires is not None and expires <= now:
                self._end(viewer.identity.token_uuid, _EXPIRED)


def _remove(index: dict[str, set[Viewer]], key: str, viewer: Viewer) -> None:
    viewers = index.get(key, set())
    viewers.discard(viewer)
    if not viewers:
        index.pop(key, None)


class _Numbered(msgspec.Struct):
    generation: int
