# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What users may read, remembered by a service: asked of the permission publisher when needed.

Questions that come at the same time travel as one. An answer is used for a minute; after that, it
is asked whether it still holds, which costs a digest. While no publisher answers, an old answer
is used up to a bound, and unknown users are refused with Unavailable (fail closed).

A service that has readers connected runs `grants_watch.follow` on its cache.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Coroutine, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import msgspec

from arvados_nats.contract import subjects
from arvados_nats.contract.places import USER_INFIX
from arvados_nats.errors import BadInput, Unavailable
from arvados_nats.nats.client import Message, Nats
from arvados_nats.permission_client import grants_messages
from arvados_nats.permission_client.grants_messages import Assembly, GrantsAnswer, GrantsQuestion
from arvados_nats.permissions.grant_subjects import Change, compare, merged
from arvados_nats.permissions.grants import OWNED, ClusterState, Grants
from arvados_nats.permissions.judge import Judge
from arvados_nats.permissions.rule import Identity

REFRESH = 60.0
"""Seconds for which an answer is used unasked."""
STALE = 300.0
"""Seconds for which an answer is used while nobody can be asked."""
_FORGOTTEN = 900.0
_BATCH = 200
_PATIENCE = 5.0
"""Where no publisher listens NATS says so at once; one that answers slowly is better than none."""
_UNTOLD = 16
_CROSSING = 10.0
"""Seconds within which an answer may be overtaken by a later one."""


@dataclass(slots=True)
class _Entry:
    grants: Grants
    version: str
    untold: list[Grants]
    """All that was given out since `take_change`: somebody may have been let in with any of
    them."""
    overflown: bool = False
    checked: float = field(default_factory=time.monotonic)
    used: float = field(default_factory=time.monotonic)

    @property
    def age(self) -> float:
        return time.monotonic() - self.checked

    def replace(self, grants: Grants) -> None:
        """Give these out from now on."""
        self.grants = grants
        self.untold.append(grants)
        if len(self.untold) > _UNTOLD:
            self.overflown = True
            del self.untold[0]


class _Told(NamedTuple):
    """A change that was told: from when on, and to which version."""

    generation: int
    version: str
    moment: float


class GrantsCache:
    """Answers `of(user)`; one for a process."""

    def __init__(self, nats: Nats, *, refresh: float = REFRESH, stale: float = STALE) -> None:
        self._nats = nats
        self.refresh = refresh
        self._stale = stale
        self._entries: dict[str, _Entry] = {}
        self._outdated: dict[str, _Told] = {}
        self._waiting: dict[str, asyncio.Future[Grants]] = {}
        self._asking: set[asyncio.Task[None]] = set()
        self._epoch = time.time() - time.monotonic()  # noqa: TID251  (until the first answer)
        """The database's clock when our monotonic one stood at 0."""

    async def of(self, user_uuid: str) -> Grants:
        """What the user may read. Unavailable if that is unknown and nobody can say."""
        entry = self._entries.get(user_uuid)
        if entry is not None:
            entry.used = time.monotonic()
            if entry.age < self.refresh and user_uuid not in self._outdated:
                return entry.grants
        try:
            return await asyncio.shield(self._ask_soon(user_uuid))
        except Unavailable:
            entry = self._entries.get(user_uuid)
            if entry is None or entry.age > self._stale or user_uuid in self._outdated:
                raise
            return entry.grants

    def now(self) -> float:
        """Seconds since 1970 by the database's clock, which trash and expiry times are held to."""
        return time.monotonic() + self._epoch

    def judge(self, identity: Identity, grants: Grants) -> Judge:
        """The rule for who holds these grants, as of now."""
        return Judge(identity, grants, self.now())

    def held(self, user_uuid: str) -> Grants | None:
        """What was last known, without asking."""
        entry = self._entries.get(user_uuid)
        return entry.grants if entry else None

    def forget(self, user_uuid: str, generation: int, version: str = "") -> None:
        """Use no answer about the user that is older than `generation`, and another `version`."""
        entry = self._entries.get(user_uuid)
        if entry is not None and entry.grants.generation >= generation:
            return
        if entry is not None and entry.version == version:
            self._confirm(user_uuid, generation)
        else:
            self._outdated[user_uuid] = _Told(generation, version, time.monotonic())

    def begin_anew(self) -> None:
        """A publisher has taken over, maybe because the database went back (a failover): whatever
        is answered and told from now on is later than all that is known."""
        for entry in self._entries.values():
            entry.grants = msgspec.structs.replace(entry.grants, generation=0)

    def is_outdated(self, user_uuid: str) -> bool:
        """Whether a change was told that no answer has in it yet."""
        return user_uuid in self._outdated

    async def renew(self, users: Iterable[str], at: tuple[str, ...] = ()) -> None:
        """Ask about these users now, whatever is known. Unavailable if nobody can say.

        `at`: what changed is what they have at these groups. Where all else is known, that is all
        that is asked; the publisher, which looks at everything, tells if more is different.
        """
        asked = [*users]
        few = {user for user in asked if at and self._stands_alone(user)}
        for batch in _batches([*few]):
            await self._ask(batch, at)
        for batch in _batches([user for user in asked if user not in few]):
            await self._ask(batch)

    def _stands_alone(self, user: str) -> bool:
        """Whether what the user has somewhere depends on no other user, as far as is known."""
        entry = self._entries.get(user)
        if entry is None or entry.grants.user_uuid != user or user in self._outdated:
            return False
        return not any(
            bits & OWNED and USER_INFIX in uuid and uuid != user
            for uuid, bits in entry.grants.targets.items()
        )

    def take_change(self, user_uuid: str) -> Change | None:
        """What anybody may have lost or gained who was let in since this was last asked."""
        entry = self._entries.get(user_uuid)
        if entry is None:
            return None
        changes = [compare(grants, entry.grants) for grants in entry.untold]
        found = merged(changes, unsure=entry.overflown)
        entry.untold, entry.overflown = [entry.grants], False
        return found or None

    def drop_unused(self, in_use: Collection[str]) -> None:
        """Forget users that are not in use and were not asked for in a quarter of an hour."""
        now = time.monotonic()
        for user in [u for u, e in self._entries.items() if now - e.used > _FORGOTTEN]:
            if user not in in_use:
                del self._entries[user]
        # Changes are told of everybody whom any replica of any service knows.
        self._outdated = {
            user: told
            for user, told in self._outdated.items()
            if user in self._entries or now - told.moment < _CROSSING
        }

    def _ask_soon(self, user_uuid: str) -> asyncio.Future[Grants]:
        """One question for all users that are asked for in this turn of the loop."""
        future = self._waiting.get(user_uuid)
        if future is None:
            future = asyncio.get_running_loop().create_future()
            future.add_done_callback(_retrieve)
            if not self._waiting:
                asyncio.get_running_loop().call_soon(self._ask_waiting)
            self._waiting[user_uuid] = future
        return future

    def _ask_waiting(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for batch in _batches([*waiting]):
            self._spawn(self._settle({user: waiting[user] for user in batch}))

    async def _settle(self, waiting: dict[str, asyncio.Future[Grants]]) -> None:
        try:
            await self._ask([*waiting])
        except (Unavailable, BadInput) as error:
            for future in waiting.values():
                future.set_exception(Unavailable(str(error)))
            return
        for user, future in waiting.items():
            entry = self._entries.get(user)
            if entry is None or user in self._outdated:
                future.set_exception(Unavailable("the permission publisher does not know the user"))
            else:
                future.set_result(entry.grants)

    async def _ask(self, users: Iterable[str], at: tuple[str, ...] = ()) -> None:
        entries = self._entries
        versions = {user: entries[user].version if user in entries else "" for user in users}
        asked = time.monotonic()
        answer = await self._exchange(GrantsQuestion(versions, at))
        # Never behind the database: what ends there must not live on here while answers travel.
        self._epoch = answer.now - asked
        state = ClusterState(role_groups_visible=answer.role_groups_visible)
        if answer.at:
            await self._take_at(versions, answer)
            return
        for found in answer.users:
            grants = grants_messages.received(found, state, answer.generation)
            self._take(found.user_uuid, grants, found.version)
            await asyncio.sleep(0)  # rows do not wait for two hundred users
        for user in answer.same:
            self._confirm(user, answer.generation)

    async def _take_at(self, users: Iterable[str], answer: GrantsAnswer) -> None:
        """Put what users have at some groups into what is known of them. It counts as no newer than
        it was, so that every change which is told is still one."""
        found = {
            one.user_uuid: {uuid: bits for bits, uuids in one.targets.items() for uuid in uuids}
            for one in answer.users
        }
        for user in users:
            entry = self._entries.get(user)
            if entry is None or entry.grants.generation >= answer.generation:
                continue
            elsewhere = {u: b for u, b in entry.grants.targets.items() if u not in answer.at}
            targets = elsewhere | found.get(user, {})
            grants = msgspec.structs.replace(entry.grants, targets=targets)
            version = grants_messages.grants_version(grants)
            told = self._outdated.get(user)
            if version != entry.version and (told is None or told.version == version):
                self._outdated.pop(user, None)
                entry.replace(grants)
                entry.version = version
            await asyncio.sleep(0)

    async def _exchange(self, question: GrantsQuestion) -> GrantsAnswer:
        assembly = Assembly()
        replies = self._nats.request_all(
            subjects.GRANTS_GET, grants_messages.encode(question), window=_PATIENCE
        )
        async with aclosing(cast(AsyncGenerator[Message, None], replies)) as messages:
            async for message in messages:
                if answer := assembly.add(message.headers, message.data):
                    return answer
        raise Unavailable("no permission publisher answers in time")

    def _take(self, user: str, grants: Grants, version: str) -> None:
        """Keep an answer, unless a later one is known or it is from before a change we heard of."""
        entry = self._entries.get(user)
        overtaken = entry is not None and entry.grants.generation > grants.generation
        # Answers cross by moments only; later, the database has gone back (a failover).
        if overtaken and entry is not None and entry.age < _CROSSING:
            return
        if self._is_outdated(user, grants.generation, version):
            return
        self._outdated.pop(user, None)
        if entry is None:
            self._entries[user] = _Entry(grants, version, [grants])
        else:
            entry.replace(grants)
            entry.version, entry.checked = version, time.monotonic()

    def _is_outdated(self, user: str, generation: int, version: str) -> bool:
        told = self._outdated.get(user)
        if told is None or told.version == version:
            return False
        return generation < told.generation and time.monotonic() - told.moment < _CROSSING

    def _confirm(self, user: str, generation: int) -> None:
        entry = self._entries.get(user)
        if entry is None or self._is_outdated(user, generation, entry.version):
            return
        self._outdated.pop(user, None)
        entry.checked = time.monotonic()
        # Whoever was admitted with these grants since a change must not count as from before it.
        entry.grants = msgspec.structs.replace(entry.grants, generation=generation)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)


def _batches(users: list[str]) -> Iterator[list[str]]:
    return (users[at : at + _BATCH] for at in range(0, len(users), _BATCH))


def _retrieve(future: asyncio.Future[Grants]) -> None:
    """Nobody may be waiting any more when a question fails; that is no error of its own."""
    if not future.cancelled():
        future.exception()
