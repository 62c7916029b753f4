# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The readers of the process, and what each of them may read now.

Logins of one user and scopes share a `Principal`. What a user may read comes from the permission
publisher (`GrantsCache`) and is asked for again when it is told to have changed, and, before
anybody is shown a change of the permission graph (a permission link, a role, a user), for those
whom it can concern: they are on hold until the answer is there. While no publisher answers,
Arvados is asked about each object instead.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from arvados_nats.contract import subjects
from arvados_nats.errors import BadInput, Unavailable
from arvados_nats.nats.client import Message, Nats
from arvados_nats.permission_client import grants_messages, grants_watch
from arvados_nats.permission_client.grants_cache import STALE, GrantsCache
from arvados_nats.permissions.grant_subjects import Change
from arvados_nats.permissions.rule import Identity
from wsproxy.events.graph_changes import graph_change
from wsproxy.events.permission_check import PermissionCheck
from wsproxy.events.principal import Principal, PrincipalKey
from wsproxy.events.router import Router
from wsproxy.events.stored_event import StoredEvent
from wsproxy.transport.limits import TooMany

logger = logging.getLogger(__name__)

MOST_OF_USER = 50
"""Readers of one user: each set of scopes is one, and judges every event by itself."""
_RETRY_SECONDS = 1.0
_ROUND_AT_ONCE = 50
"""Readers whom nobody waits for that are asked about in one question."""


@dataclass(slots=True)
class _Due:
    """Somebody to be asked about, how often they are on hold for it, and at which groups alone
    something can be different; None: anywhere."""

    holds: int = 0
    at: frozenset[str] | None = frozenset()


class Principals:
    """All principals; `run` keeps their grants up to date."""

    def __init__(
        self, nats: Nats, grants_cache: GrantsCache, router: Router, check: PermissionCheck
    ) -> None:
        self._nats = nats
        self._grants_cache = grants_cache
        self._router = router
        self._check = check
        self._principals: dict[PrincipalKey, Principal] = {}
        self._by_user: dict[str, set[Principal]] = {}
        self._due: dict[Principal, _Due] = {}
        self._asked: dict[Principal, _Due] = {}
        """Who were due, while the answer is on its way."""
        self._told_meanwhile: set[Principal] = set()
        """Those of them of whom a change was told since: the answer may be from before it."""
        self._wake = asyncio.Event()
        router.before_batch.append(self._hold_for)

    def of(self, identity: Identity) -> Principal:
        """The principal of an identity, a new one if need be; TooMany beyond `MOST_OF_USER`."""
        key = (identity.user_uuid, identity.scopes, identity.is_root)
        principal = self._principals.get(key)
        if principal is None:
            if len(self._by_user.get(identity.user_uuid, ())) >= MOST_OF_USER:
                raise TooMany("too many tokens of this user with other scopes each")
            principal = Principal(identity, self._check, self._grants_cache.judge)
            self._principals[key] = principal
            self._by_user.setdefault(identity.user_uuid, set()).add(principal)
            self._router.add(principal)
            self._renew_soon(principal)
        return principal

    def forget(self, principal: Principal) -> None:
        """Nobody reads as this one any more."""
        self._router.remove(principal)
        principal.end()
        del self._principals[principal.key]
        same = self._by_user[principal.user_uuid]
        same.discard(principal)
        if not same:
            del self._by_user[principal.user_uuid]
        self._due.pop(principal, None)
        self._asked.pop(principal, None)
        self._told_meanwhile.discard(principal)

    async def run(self, moved: Callable[[Change], None]) -> None:
        """Follow grants until cancelled. `moved` is told what a user lost or gained."""
        await grants_watch.hear(self._nats, self._grants_cache, self._changed, self._all_again)

        async def hidden(message: Message) -> None:
            uuids = grants_messages.hidden(message.data)
            for user in {reader.user_uuid for reader in self._router.reaching(uuids)}:
                moved(Change(user, 0, lost=uuids))

        await self._nats.subscribe(subjects.GRANTS_HIDDEN, hidden)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renewing(moved))
            tasks.create_task(self._rounds())

    def _renew_soon(
        self, principal: Principal, change: StoredEvent | None = None, at: str | None = None
    ) -> None:
        """Ask for the reader's grants, and judge nothing before the answer.

        `change`: the event that changes them; `at`: at this group alone.
        """
        self._router.hold(principal, change)
        due = self._due.setdefault(principal, _Due())
        due.holds += 1
        due.at = None if at is None or due.at is None else due.at | {at}
        self._wake.set()

    def _hold_for(self, stored: StoredEvent) -> None:
        """What changes the graph waits, for those it can concern, until it is known how."""
        change = graph_change(stored)
        if change is not None:
            for principal in self._router.reaching(change.uuids):
                self._renew_soon(principal, stored, change.at)

    def _changed(self, user_uuid: str) -> None:
        known = None
        if not self._grants_cache.is_outdated(user_uuid):
            known = self._grants_cache.held(user_uuid)
        for principal in self._by_user.get(user_uuid, ()):
            if principal in self._asked and principal.holding:
                self._told_meanwhile.add(principal)
            elif known is None or not principal.goes_by(known):
                self._renew_soon(principal)

    def _all_again(self) -> None:
        """Ask once more, without holding up anybody: Arvados answers meanwhile."""
        self._again(tuple(self._principals.values()))

    async def _renewing(self, moved: Callable[[Change], None]) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            due = self._asked = self._next_due()
            users = {principal.user_uuid for principal in due}
            known = await self._renewed(due)
            told, self._asked, self._told_meanwhile = self._told_meanwhile, {}, set()
            for principal in told:
                if self._grants_cache.is_outdated(principal.user_uuid):
                    self._renew_soon(principal)
            for principal, asked in due.items():
                self._regrant(principal, asked.holds, known=known)
            for user in users if known else ():
                if change := self._grants_cache.take_change(user):
                    moved(change)
            if not known:
                asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._again, tuple(due))

    def _next_due(self) -> dict[Principal, _Due]:
        """Some of those who are to be asked about, whose events wait for it before all others: a
        round over everybody must not hold them up."""
        waiting = {principal: due for principal, due in self._due.items() if due.holds}
        due = dict(islice((waiting or self._due).items(), None if waiting else _ROUND_AT_ONCE))
        for principal in due:
            del self._due[principal]
        if self._due:
            self._wake.set()
        return due

    async def _renewed(self, due: dict[Principal, _Due]) -> bool:
        everywhere = {principal.user_uuid for principal, one in due.items() if one.at is None}
        somewhere: defaultdict[frozenset[str], set[str]] = defaultdict(set)
        for principal, one in due.items():
            if one.at is not None and principal.user_uuid not in everywhere:
                somewhere[one.at].add(principal.user_uuid)
        try:
            for at, users in somewhere.items():
                await self._grants_cache.renew(users, tuple(at))
            await self._grants_cache.renew(everywhere)
        except (Unavailable, BadInput) as error:
            logger.warning(
                "grants are not known; Arvados is asked about each object",
                extra={"action": "logins.no_grants", "users": len(due), "error": str(error)},
            )
            return False
        return True

    def _regrant(self, principal: Principal, holds: int, *, known: bool) -> None:
        if known:
            self._router.regrant(principal, self._grants_cache.held(principal.user_uuid), holds)
        elif holds or time.monotonic() - principal.granted_at > STALE:
            self._router.regrant(principal, None, holds)

    def _again(self, principals: tuple[Principal, ...]) -> None:
        for principal in principals:
            if self._principals.get(principal.key) is principal:
                self._due.setdefault(principal, _Due()).at = None
        self._wake.set()

    async def _rounds(self) -> None:
        """What was told may have been lost: everybody is asked about now and then."""
        while True:
            await asyncio.sleep(self._grants_cache.refresh)
            self._all_again()
            self._grants_cache.drop_unused(self._by_user.keys())
