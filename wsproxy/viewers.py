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
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Iterable
from typing import Protocol

import msgspec

from arvados_nats import grants_wire, subjects
from arvados_nats.errors import ArvadosNatsError, BadInput, Unavailable
from arvados_nats.events import Event
from arvados_nats.grant_book import STALE, GrantBook
from arvados_nats.grant_subjects import Change
from arvados_nats.identities import Identities
from arvados_nats.nats_client import Message, Nats
from arvados_nats.permissions import Identity
from arvados_nats.tokens import Token
from wsproxy import metrics
from wsproxy.permission_check import PermissionCheck
from wsproxy.reader import Reader, ReaderKey
from wsproxy.router import Router
from wsproxy.stored_event import StoredEvent

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
_TOKENS_AT_ONCE = 1000
_EXPIRED = "expired"
_NO_ROWS = ("-gj3su-000000000000000", "-gj3su-anonymouspublic")
"""SystemRootToken and AnonymousUserToken are no rows of the database (facts/arvados.md 2)."""


class Session(Protocol):
    """What a viewer's connection is told."""

    def ended(self, reason: str) -> None:
        """The token is dead: `expired`, `deleted` or `changed`. Never waits, never raises."""

    def narrowed(self, change: Change) -> None:
        """Some objects may not be shown any more. Never waits, never raises."""


class Viewer:
    """One token with at least one session open."""

    __slots__ = ("identity", "reader", "sessions", "token")

    def __init__(self, token: Token, identity: Identity, reader: Reader) -> None:
        self.token = token
        self.identity = identity
        self.reader = reader
        self.sessions: set[Session] = set()


class Viewers:
    """All viewers of the process; `run` keeps their grants and tokens up to date."""

    def __init__(
        self,
        nats: Nats,
        identities: Identities,
        book: GrantBook,
        router: Router,
        check: PermissionCheck,
    ) -> None:
        self._nats = nats
        self._identities = identities
        self._book = book
        self._router = router
        self._check = check
        self._viewers: dict[bytes, Viewer] = {}
        self._by_token: dict[str, set[Viewer]] = {}
        self._readers: dict[ReaderKey, Reader] = {}
        self._sessions: Counter[str] = Counter()
        self._by_user: dict[str, set[Viewer]] = {}
        self._due: dict[Reader, int] = {}
        self._wake = asyncio.Event()
        router.before_batch.append(self._hold_for)

    async def admit(self, token: Token, session: Session) -> Viewer:
        """The viewer of a token. Refused if Arvados says no, Unavailable if it can not be asked."""
        identity = await self._identities.of(token)
        viewer = self._viewers.get(token.digest)
        if viewer is None:
            viewer = Viewer(token, identity, self._reader(identity))
            self._viewers[token.digest] = viewer
            self._by_token.setdefault(identity.token_uuid, set()).add(viewer)
            self._by_user.setdefault(identity.user_uuid, set()).add(viewer)
            self._check.add_token(viewer.reader.key, token)
        viewer.sessions.add(session)
        self._sessions[identity.user_uuid] += 1
        return viewer

    def release(self, viewer: Viewer, session: Session) -> None:
        """The session is over."""
        if session not in viewer.sessions:
            return
        viewer.sessions.discard(session)
        self._sessions[viewer.identity.user_uuid] -= 1
        if not viewer.sessions:
            self._forget(viewer)

    def _forget(self, viewer: Viewer) -> None:
        if not self._sessions[viewer.identity.user_uuid]:
            del self._sessions[viewer.identity.user_uuid]
        del self._viewers[viewer.token.digest]
        _remove(self._by_token, viewer.identity.token_uuid, viewer)
        _remove(self._by_user, viewer.identity.user_uuid, viewer)
        reader = viewer.reader
        if not self._check.drop_token(reader.key, viewer.token):
            self._router.remove(reader)
            reader.end()
            del self._readers[reader.key]

    def sessions_of(self, user_uuid: str) -> int:
        """How many sessions a user has open, over all his tokens."""
        return self._sessions[user_uuid]

    def _reader(self, identity: Identity) -> Reader:
        key = (identity.user_uuid, identity.scopes, identity.is_root)
        reader = self._readers.get(key)
        if reader is None:
            reader = Reader(identity, self._check, self._book.now)
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
        uuids = graph_uuids(stored)
        if uuids:
            for reader in self._router.reaching(uuids):
                self._renew_soon(reader)

    async def run(self) -> None:
        """Follow grants and tokens until cancelled."""
        await self._nats.subscribe(f"{subjects.GRANTS_CHANGED}.*", self._grants_changed)
        await self._nats.subscribe(subjects.GRANTS_STARTED, self._publisher_started)
        await self._nats.subscribe(f"{subjects.TOKENS_GONE}.*", self._token_gone)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renewing())
            tasks.create_task(self._rounds())

    async def _grants_changed(self, message: Message) -> None:
        user_uuid = message.subject.rpartition(".")[2]
        try:
            generation = msgspec.json.decode(message.data, type=_Numbered).generation
        except msgspec.MsgspecError as error:
            raise BadInput("not a change of grants") from error
        self._book.forget(user_uuid, generation)
        for reader in {viewer.reader for viewer in self._by_user.get(user_uuid, ())}:
            self._renew_soon(reader)

    async def _publisher_started(self, _: Message) -> None:
        for reader in self._readers.values():
            self._renew_soon(reader)

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
            for session in tuple(viewer.sessions):
                session.narrowed(change)

    # Tokens.

    async def _token_gone(self, message: Message) -> None:
        token_uuid = message.subject.rpartition(".")[2]
        try:
            reason = msgspec.json.decode(message.data, type=grants_wire.TokenGone).reason
        except msgspec.MsgspecError:
            reason = "deleted"
        self._end(token_uuid, reason)

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
            for session in tuple(viewer.sessions):
                session.ended(reason)

    async def _rounds(self) -> None:
        """Every second the tokens that expire; every minute all tokens and all grants."""
        next_round = time.monotonic() + self._book.refresh
        while True:
            await asyncio.sleep(1.0)
            self._end_expired()
            if time.monotonic() < next_round:
                continue
            next_round = time.monotonic() + self._book.refresh
            self._again(tuple(self._readers.values()))
            self._book.drop_unused(self._by_user.keys())
            with contextlib.suppress(ArvadosNatsError):
                await self._check_tokens()

    def _end_expired(self) -> None:
        now = self._book.now()
        for viewer in tuple(self._viewers.values()):
            expires = viewer.identity.expires_at
            if expires is not None and expires <= now:
                self._end(viewer.identity.token_uuid, _EXPIRED)

    async def _check_tokens(self) -> None:
        """Ask which tokens still live; a notice may have been lost."""
        tokens = [token for token in self._by_token if not token.endswith(_NO_ROWS)]
        for start in range(0, len(tokens), _TOKENS_AT_ONCE):
            asked = tokens[start : start + _TOKENS_AT_ONCE]
            answer = await self._nats.request(subjects.TOKENS_GET, msgspec.json.encode(asked))
            grants_wire.check_answer(answer.headers)
            try:
                live = msgspec.json.decode(answer.data, type=grants_wire.TokensAnswer)
            except msgspec.MsgspecError as error:
                raise BadInput("not an answer about tokens") from error
            for gone in set(asked) - {state.token_uuid for state in live.tokens}:
                self._end(gone, "deleted")


def _remove(index: dict[str, set[Viewer]], key: str, viewer: Viewer) -> None:
    viewers = index.get(key, set())
    viewers.discard(viewer)
    if not viewers:
        index.pop(key, None)


class _Numbered(msgspec.Struct):
    generation: int


def graph_uuids(stored: StoredEvent) -> tuple[str, ...]:
    """Whoever has one of these in his grants may read more or less after this event; else empty.

    A project or role: those who reach it or its owner. A permission link: those who reach its tail.
    A user: the user himself. facts/arvados.md 1, Revocations.
    """
    facts, event = stored.facts, stored.event
    if facts is None or stored.kind is None or not event.verified:
        return ()
    named: tuple[object, ...] = ()
    match stored.kind.name:
        case "group":
            named = (facts.uuid, facts.owner_uuid, _old(event, "owner_uuid"))
        case "link" if facts.is_permission is not False:
            named = (facts.tail_uuid or _old(event, "tail_uuid"),)
        case "user":
            named = (facts.uuid,)
    return tuple(uuid for uuid in named if isinstance(uuid, str) and uuid)


def _old(event: Event, name: str) -> object:
    attributes = event.properties.get("old_attributes")
    return attributes.get(name) if isinstance(attributes, dict) else None
