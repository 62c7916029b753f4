# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One user as seen through one set of scopes: what may be shown to all their connections alike.

Judging is the read rule on the reader's grants. Where that says *ask*, or while the grants
are not known, Arvados is asked with the reader's own token, once for each object, and events of
this reader wait in order behind the question; nobody else waits. While new grants are on their way
the reader is on hold: nothing is judged by grants that are known to be old.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from arvados_nats.contract import subjects
from arvados_nats.contract.subjects import Kind
from arvados_nats.permissions.grants import Grants
from arvados_nats.permissions.judge import Judge
from arvados_nats.permissions.object_facts import ObjectFacts
from arvados_nats.permissions.rule import ALL, Decision, Identity, scopes_allow
from wsproxy.events.batch import Batch
from wsproxy.events.departures import Changes, departures
from wsproxy.events.permission_check import PermissionCheck
from wsproxy.events.stored_event import DELETE, StoredEvent

logger = logging.getLogger(__name__)

MAX_WAITING = 2000
"""Events that may wait behind a question; with more, the reader's consumers go back to the
stream."""

_TOGETHER = 100
"""Events that are written at once, of those that waited."""

PrincipalKey = tuple[str, tuple[str, ...], bool]

_YES, _NO = Decision.YES, Decision.NO


class Sink(Protocol):
    """What takes the events a reader may see."""

    def deliver(self, batch: Batch) -> None:
        """Take events, in stream order. Never waits, never raises."""

    def fall_behind(self, sequence: int) -> None:
        """Events after `sequence` were not delivered: read them from the stream."""


class Principal:
    """Judges events for one user and scopes, and hands them to sinks in order."""

    def __init__(
        self,
        identity: Identity,
        check: PermissionCheck,
        judge: Callable[[Identity, Grants], Judge],
    ) -> None:
        self.identity = identity
        self.key: PrincipalKey = (identity.user_uuid, identity.scopes, identity.is_root)
        self.grants: Grants | None = None
        """None while nobody can tell: then Arvados is asked about each object."""
        self.granted_at = time.monotonic()
        self.sinks: list[Sink] = []
        """Sinks of every event that the reader may see."""
        self._check = check
        self._judge = judge
        # Several tokens share a principal; when each expires is its login's business.
        self._identity = msgspec.structs.replace(identity, expires_at=None)
        self._waiting: deque[tuple[StoredEvent, list[Sink]]] = deque()
        self._working: asyncio.Task[None] | None = None
        self._generation = 0
        self._holds = 0
        self._changes: Changes | None = None
        """Those of the last seconds."""
        self.busy = False
        """Every event must `wait`: behind others, or until new grants are there."""
        self._released = asyncio.Event()
        self._released.set()

    @property
    def user_uuid(self) -> str:
        return self.identity.user_uuid

    @property
    def holding(self) -> bool:
        return self._holds > 0

    @property
    def ask_arvados(self) -> bool:
        """Whether Arvados is asked about each object: nobody tells the grants, nor is about to."""
        return self.grants is None and not self.holding

    def goes_by(self, grants: Grants) -> bool:
        """Whether events are judged by these, or what confirmed them."""
        return self.grants is not None and self.grants.targets is grants.targets

    def hold(self, change: StoredEvent | None = None) -> None:
        """Judge nothing until as many are released: new grants are on their way.

        `change`: the event that changes them.
        """
        if change is not None:
            if self._changes is None or not self._changes.go_on(change, self.grants):
                self._changes = Changes(change, self.grants)
        self._holds += 1
        self.busy = True
        self._released.clear()

    def release(self, holds: int = 1) -> None:
        """End as many `hold`s."""
        self._holds -= holds
        if not self._holds:
            self.busy = self._working is not None
            self._released.set()

    async def settled(self) -> None:
        """Return when no new grants are on their way."""
        await self._released.wait()

    def set_grants(self, grants: Grants | None) -> None:
        """Judge by these from now on; answers that Arvados gave earlier are forgotten."""
        self.grants = grants
        self.granted_at = time.monotonic()
        self._generation += 1
        self._check.forget(self.key)

    def offer(self, stored: StoredEvent, sinks: list[Sink]) -> None:
        """Deliver an event to `sinks` if the reader may see it, behind those offered before."""
        if not sinks:
            return
        verdict = self.sees(stored)
        if verdict:
            batch = Batch((stored,))
            for sink in tuple(sinks):
                sink.deliver(batch)
        elif verdict is None:
            self.wait(stored, sinks)

    @property
    def judges_alike(self) -> bool:
        """Whether the answer for one of the events that are `alike` holds for all of them."""
        return ALL in self.identity.scopes and self.grants is not None

    def sees(self, stored: StoredEvent) -> bool | None:
        """Whether the event may be shown; None: it must `wait`, behind others or for an answer."""
        if self.busy:
            return None
        decision = self.decide(stored)
        if decision is _YES:
            return True
        return False if decision is _NO else None

    def deliver(self, batch: Batch) -> None:
        """Hand what the reader `sees` to the sinks of all events."""
        for sink in tuple(self.sinks):
            sink.deliver(batch)

    def decide(self, stored: StoredEvent) -> Decision:
        """What the rule says now; `NO` for an event about no object."""
        grants = self.grants
        judge = self._judge(self._identity, grants) if grants is not None else None
        return decide_event(judge, stored)

    def loses(self, left: StoredEvent) -> bool:
        """Whether the reader could read the object before this change, by what was known then."""
        known = self._changes.before(left, self.grants) if self._changes else (self.grants,)
        return any(
            decide_event(self._judge(self._identity, grants), left) is _YES
            for grants in known
            if grants is not None
        )

    def shown(self, stored: StoredEvent, *, allowed: bool) -> Sequence[StoredEvent]:
        """What of an event is to be delivered: itself, or what is gone by it."""
        if allowed:
            return (stored,)
        return [left for left in departures(stored) if self.loses(left)]

    def judge_now(self, stored: StoredEvent) -> bool | None:
        """As `judge`, where that needs no waiting; else None."""
        if self._holds:
            return None
        decision = self.decide(stored)
        return None if decision is Decision.ASK else decision is _YES

    async def judge(self, stored: StoredEvent) -> bool:
        """Whether the event may be shown now; asks Arvados if need be. Never yes on doubt."""
        while True:
            await self._released.wait()
            generation = self._generation
            decision = self.decide(stored)
            if decision is not Decision.ASK:
                return decision is _YES
            readable = await self._ask(stored)
            if generation == self._generation and not self._holds:
                return readable

    async def _ask(self, stored: StoredEvent) -> bool:
        if stored.event.event_type != DELETE or not stored.tells_last_owner:
            return await self._check.ask(self.key, stored.event.object_uuid or "")
        if stored.kind is None or stored.facts is None:
            return False
        if not _in_scope(self.identity.scopes, stored.kind, stored.facts):
            return False
        # The object is gone, so its readers are those of the project it was in, and those to whom
        # it was shown before. Who can see a user's name cannot see their home.
        owner = stored.facts.owner_uuid
        if self.grants is not None and self.grants.is_admin:
            return True
        if owner == self.user_uuid or self._check.known(self.key, stored.event.object_uuid or ""):
            return True
        kind = subjects.kind_of(owner)
        return kind is not None and kind.name == "group" and await self._check.ask(self.key, owner)

    def wait(self, stored: StoredEvent, sinks: list[Sink]) -> None:
        """Judge the event, and deliver it to `sinks`, after those that wait already."""
        self._waiting.append((stored, sinks))
        if self._working is None:
            self.busy = True
            self._working = asyncio.create_task(self._work(), name="reader")
        elif len(self._waiting) > MAX_WAITING:
            self._give_up()

    def _give_up(self) -> None:
        """Too much waits: the stream holds it as well."""
        before: dict[int, tuple[Sink, int]] = {}
        for stored, sinks in self._waiting:
            for sink in sinks:
                before.setdefault(id(sink), (sink, stored.sequence - 1))
        self._waiting.clear()
        for sink, sequence in before.values():
            sink.fall_behind(sequence)

    async def _work(self) -> None:
        try:
            while self._waiting:
                stored, _ = self._waiting[0]
                allowed = await self.judge(stored)
                if self._waiting and self._waiting[0][0] is stored:
                    self._deliver_waiting(allowed=allowed)
                    await asyncio.sleep(0)  # other readers do not wait for two thousand events
        finally:
            self._working = None
            self.busy = self.holding

    def _deliver_waiting(self, *, allowed: bool) -> None:
        """The first of what waits, and with it, in one write, what needs no further question."""
        stored, sinks = self._waiting.popleft()
        seen = [*self.shown(stored, allowed=allowed)]
        while self._waiting and self._waiting[0][1] is sinks and len(seen) < _TOGETHER:
            stored, _ = self._waiting[0]
            verdict = self.judge_now(stored)
            if verdict is None:
                break
            self._waiting.popleft()
            seen += self.shown(stored, allowed=verdict)
        if seen:
            batch = Batch(seen)
            for sink in tuple(sinks):
                sink.deliver(batch)

    def end(self) -> None:
        """Nobody reads any more."""
        self._waiting.clear()
        self.sinks.clear()
        if self._working:
            self._working.cancel()


def decide_event(judge: Judge | None, stored: StoredEvent) -> Decision:
    """Whether an event may be shown, None for grants that are not known; `NO` for an event about
    no object."""
    facts, kind = stored.facts, stored.kind
    if facts is None or kind is None:
        return _NO
    if judge is None or stored.judged_by_arvados:
        return Decision.ASK
    if facts.kind != kind.name and not _in_scope(judge.identity.scopes, kind, facts):
        return _NO  # a deleted object, judged like one of another kind
    return judge.decide(facts, include_trash=True)


def _in_scope(scopes: tuple[str, ...], kind: Kind, facts: ObjectFacts) -> bool:
    return ALL in scopes or scopes_allow(scopes, "GET", f"/arvados/v1/{kind.path}/{facts.uuid}")
