# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Notice that grants changed, and tell: run by the one replica that holds the lock.

Three things make it look: an event of a link, user or role, an answer that a replica gave, and the
clock. Events narrow whose grants are read again (`affected`); the round over everybody finds
what left no row: merges, overlapping links, Arvados' own late recomputation (docs/facts/arvados.md
1, Revocations). Looking takes turns with resting, so that a flood of posted rows costs a bounded
part of the database's time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NoReturn

from arvados_nats.contract import events, subjects
from arvados_nats.nats.client import Message, Nats, Subscription
from arvados_nats.permission_client import grants_messages
from arvados_nats.permission_client.grants_messages import GrantsAnswered, GrantsChanged
from publishers.permissions import metrics
from publishers.permissions.affected import GRAPH_KINDS, touched
from publishers.permissions.query import GrantsQuery
from publishers.permissions.watched import Watch, batches

logger = logging.getLogger(__name__)

ROUND = 60.0
"""Seconds in which everybody who is watched is read again."""
_BATCH = 100
_GATHER = 0.005
_REST = 2.0
"""Rest after a look, as a multiple of the time it took."""
_LONGEST_REST = 2.0


class GrantsLeader:
    """Looks and tells until cancelled; Unavailable ends it, and another replica takes over."""

    def __init__(self, nats: Nats, query: GrantsQuery, *, round_seconds: float = ROUND) -> None:
        self._nats = nats
        self._query = query
        self._watch = Watch()
        self._round_seconds = round_seconds
        self._wake = asyncio.Event()
        self._nodes: set[str] = set()
        self._users: set[str] = set()
        """What is near a change, as `affected.Touched`."""
        self._due: set[str] = set()
        self._everybody = False
        self._generation = 0
        self._round: list[list[str]] = []
        self._next_turn = 0.0
        self._told: Counter[str] = Counter()
        nats.on_change(self._connection_changed)

    def answered(self, note: GrantsAnswered) -> None:
        """A replica answered: watch those users, also while another process leads."""
        unsure = self._watch.answered(note)
        metrics.WATCHED.set(len(self._watch))
        if unsure:
            self._due |= unsure
            self._wake.set()

    async def run(self, ready: Callable[[], None] = lambda: None) -> NoReturn:
        """Take over from whoever led before, then look whenever there is reason to."""
        async with contextlib.AsyncExitStack() as stack:
            for subscription in await self._subscribe():
                stack.push_async_callback(subscription.unsubscribe)
            await self._nats.flush()
            self._watch.renumber()  # who led before may have read of a database that went back
            await self._read(self._watch.users(), "takeover")
            self._log("takeover")
            await self._nats.publish(subjects.GRANTS_STARTED)
            ready()
            while True:
                await self._wait()
                started = asyncio.get_running_loop().time()
                await self._look()
                spent = asyncio.get_running_loop().time() - started
                await asyncio.sleep(min(spent * _REST, _LONGEST_REST))

    async def _subscribe(self) -> list[Subscription]:
        stored = subjects.STORED_EVENTS
        wanted = [f"{stored}.{kind}.>" for kind in GRAPH_KINDS]
        return [await self._nats.subscribe(subject, self._graph_event) for subject in wanted]

    async def _graph_event(self, message: Message) -> None:
        near = touched(events.decode(message.data))
        if near is None:
            self._everybody = True
        else:
            self._nodes |= near.nodes
            self._users |= near.users
        if near is None or any(near):
            metrics.HINTS.inc()
            self._wake.set()

    def _connection_changed(self, connected: bool) -> None:
        if connected:
            # Events were missed meanwhile.
            self._everybody = True
            self._wake.set()

    async def _wait(self) -> None:
        """Until there is something to do; hints that come together are looked at together."""
        pause = self._next_turn - asyncio.get_running_loop().time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(pause, 0)):
                await self._wake.wait()
            await asyncio.sleep(_GATHER)
        self._wake.clear()

    async def _look(self) -> None:
        nodes, self._nodes = self._nodes, set()
        users, self._users = self._users, set()
        due, self._due = self._due, set()
        everybody, self._everybody = self._everybody, False
        cause = "event" if nodes or users or everybody else "answer" if due else "round"
        if nodes or users:
            reaching = await self._query.reaching(nodes) if nodes else set()
            due |= self._watch.affected(nodes, users | reaching)
        if everybody:
            due |= {*self._watch.users()}
        if named := due & (users | nodes):
            # Whom a change is about should not wait until all who can see them are read.
            await self._read([*named], cause)
            due -= named
        await self._read([*due, *(self._turn() - due)], cause)
        self._log(cause)

    def _turn(self) -> set[str]:
        """The part of the round over everybody that is due now."""
        now = asyncio.get_running_loop().time()
        if now < self._next_turn:
            return set()
        if not self._round:
            self._round = [*batches(self._watch.users(), _BATCH)]
        pause = self._round_seconds * _BATCH / max(len(self._watch), _BATCH)
        self._next_turn = max(self._next_turn, now - pause) + pause
        return {*self._round.pop()} if self._round else set()

    async def _read(self, users: list[str], cause: str) -> None:
        for batch in [*batches(dict.fromkeys(users), _BATCH)] or [[]]:
            reading = await self._query.read(batch)
            if reading.generation < self._generation:
                self._watch.renumber()
            self._generation = reading.generation
            metrics.READS.inc(len(batch))
            await self._tell(self._watch.take(reading, cause))
            # Answers that replicas gave meanwhile are these.
            self._due.difference_update(user for user in batch if self._watch.settled(user))

    async def _tell(self, changes: Iterable[GrantsChanged]) -> None:
        for change in changes:
            metrics.CHANGES.labels(change.cause).inc()
            self._told["users"] += 1
            self._told["lost"] += len(change.lost)
            self._told["gained"] += len(change.gained)
            subject = subjects.grants_changed(change.user_uuid)
            await self._nats.publish(subject, grants_messages.encode(change))

    def _log(self, cause: str) -> None:
        """One line for a look, however many it concerned: a link to a role changes thousands."""
        if self._told:
            logger.info(
                "grants changed",
                extra={"action": "grants.changed", "cause": cause, **self._told},
            )
            self._told.clear()
