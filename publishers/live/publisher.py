# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The live publisher: what users with a native NATS connection may subscribe to.

It carries each stored event and each run of log bytes to `arvados.live.<share>.<owner>.<object>.…`,
once for every share point above an object through which it may be seen; a user's subscriptions
decide the rest (`grant_subjects`). What is shown to one reader names no other: the audience of a
live event is the one pair it is shown under, and the facts of the permission rule stay inside.

One process is active, by a lock of its own. It notes how far it has come, and goes on from there
when NATS was away, as its successor does: a message can come twice then, with the same
`Nats-Sequence`, and none is left out.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from arvados_nats.contract import events, log_chunks, streams, subjects
from arvados_nats.contract.departures import HEADER as GONE
from arvados_nats.contract.departures import departed, hidden
from arvados_nats.contract.events import Event
from arvados_nats.contract.log_chunks import Chunk, ContainerEnd
from arvados_nats.errors import ArvadosNatsError, BadInput, Unavailable
from arvados_nats.nats.client import Nats
from arvados_nats.nats.history import StoredMessage
from arvados_nats.permissions import object_facts
from arvados_nats.service.ops import Health
from publishers import metrics
from publishers.jetstream import kept
from publishers.jetstream.follower import follow
from publishers.jetstream.room import Room
from publishers.live import audience as live_audience
from publishers.live.audience import Above, RequestsOfContainers, Shares, Shown
from publishers.live.cursor import Cursor, Options
from publishers.postgres.database import Database, Session
from publishers.postgres.leader import Leadership, Lock
from publishers.retry import Attempts

logger = logging.getLogger(__name__)

LOCK = Lock("arvados.live")

_PLACE = ("Nats-Sequence", "Nats-Time-Stamp")
_ID = "Nats-Msg-Id"

Pass = Callable[[StoredMessage, str, object], None]
"""Go past a message: which one, for what kind of reason, and why."""
Deliver = Callable[[list[StoredMessage], Pass], Awaitable[None]]
T = TypeVar("T")


async def run(nats: Nats, database: Database, health: Health, options: Options) -> None:
    """Publish while this process has the lock, stand by while another has it; until cancelled."""
    attempts = Attempts(health, "live")
    while True:
        failure: ArvadosNatsError = Unavailable("the live publisher ended")
        try:
            async with database.session() as session:
                await _lead(_Live(nats, database, health, options), session, attempts)
        except* ArvadosNatsError as group:
            failure = kept.first_of(group)
        await attempts.failed(failure)


async def _lead(live: _Live, session: Session, attempts: Attempts) -> None:
    async with Leadership(live.nats, LOCK, attempts, live.options.replicas).held(session):
        under_way = asyncio.Barrier(3)
        async with asyncio.TaskGroup() as tasks:
            for stream, subject, deliver in (
                (streams.EVENTS, subjects.EVENTS, live.events),
                (streams.LOGS, subjects.LOGS, live.logs),
            ):
                tasks.create_task(live.carry(stream, subject, deliver, under_way))
            await under_way.wait()
            attempts.succeeded()


class _Live:
    """One term of leading: the two streams on their way, and what both know of the database."""

    def __init__(self, nats: Nats, database: Database, health: Health, options: Options) -> None:
        self.nats = nats
        self._health = health
        self.options = options
        self.shares = Shares(database)
        self._requests = RequestsOfContainers(database)
        self._room = Room(nats, streams.LOGS, subjects.LOGS)

    async def carry(
        self, stream: str, subject: str, deliver: Deliver, under_way: asyncio.Barrier
    ) -> None:
        """Deliver all that a stream stores, from where the last leader stopped."""
        cursor = Cursor(self.nats, stream, subject, self.options)
        async with follow(self.nats, stream, subject) as follower:
            try:
                begin = await cursor.start()
                await under_way.wait()
                while True:
                    async for batch in follower.batches(begin):
                        await _deliver(deliver, batch, functools.partial(self._pass, cursor))
                        _observe(stream, batch[0])
                        await cursor.reached(batch[-1].sequence, batch[-1].time)
                    begin = await cursor.start()
            finally:
                await cursor.stop()

    def _pass(self, cursor: Cursor, message: StoredMessage, reason: str, why: object) -> None:
        metrics.LIVE_SKIPPED.labels(reason).inc()
        passed = cursor.pass_over(message, why)
        told = f"{passed.count} of {cursor.stream} passed over, the last: {passed.last[-1]}"
        self._health.notes[f"live, {cursor.stream}"] = told
        if passed.count.bit_count() == 1:  # 1, 2, 4, 8, …: whoever sends many fills no log
            logger.warning(told, extra={"action": "live.passed_over"})

    async def events(self, batch: list[StoredMessage], pass_over: Pass) -> None:
        """Show changes to those who may see the object."""
        decoded = _readable(batch, lambda message: events.decode(message.data), pass_over)
        for _, event in decoded:
            self._requests.seen(event)
            self.shares.seen(event)
        left = {event.uuid: found for _, event in decoded if (found := departed(event))}
        told = [*(event for _, event in decoded), *left.values()]
        pairs = [pair for event in told for pair in event.audience]
        above = await self.shares.read(pairs, live_audience.last_places(told))
        for message, event in decoded:
            await self._show_event(message, event, left.get(event.uuid), above, pass_over)

    async def _show_event(
        self,
        message: StoredMessage,
        event: Event,
        left: Event | None,
        above: Above,
        pass_over: Pass,
    ) -> None:
        """First to those who may see it; then, that the object is gone, to those who could."""
        kind = subjects.kind_of(event.object_uuid)
        if kind is None or kind.name not in live_audience.KINDS:
            metrics.LIVE_SKIPPED.labels("kind").inc()
            return
        found = live_audience.of_event(event, kind.name, above)
        _count("event", found)
        headers = {_ID: event.uuid, **_place(message)}
        await self._send(message, event, found, headers, pass_over)
        if left is not None:
            shares = {share for share, _, _ in found}
            before = live_audience.of_event(left, kind.name, above)
            lost = [shown for shown in before if shown[0] not in shares]
            await self._send(message, left, lost, {**headers, GONE: "true"}, pass_over)
        for one in hidden(event):
            by_itself = [(uuid, owner, uuid) for owner, uuid in one.audience]
            await self._send(message, one, by_itself, {**headers, GONE: "true"}, pass_over)

    async def _send(
        self,
        message: StoredMessage,
        event: Event,
        shown_under: list[Shown],
        headers: dict[str, str],
        pass_over: Pass,
    ) -> None:
        for share, owner, obj in shown_under:
            subject = subjects.live_event(share, owner, obj, event.object_uuid, event.event_type)
            shown = msgspec.structs.replace(event, audience=[(owner, obj)], facts={})
            try:
                await self.nats.publish(subject, events.encode(shown), headers=headers)
            except BadInput as error:
                pass_over(message, "unsendable", error)

    async def logs(self, batch: list[StoredMessage], pass_over: Pass) -> None:
        """Show the bytes of containers to those who may see a request for it."""
        await self._room.taken(batch)
        parsed = _readable(batch, _log, pass_over)
        requests = await self._requests.read({log.container_uuid for _, log in parsed})
        above = await self.shares.read(
            (owner, uuid) for shown in requests.values() for uuid, owner in shown
        )
        for message, log in parsed:
            found = live_audience.of_log(requests[log.container_uuid], above)
            _count("log", found)
            file = message.subject.rpartition(".")[2]
            for share, owner, obj in found:
                subject = subjects.live_log(share, owner, obj, log.container_uuid, file)
                headers = {**log.headers, **_place(message)}
                try:
                    await self.nats.publish(subject, message.data, headers=headers)
                except BadInput as error:
                    pass_over(message, "unsendable", error)


async def _deliver(deliver: Deliver, batch: list[StoredMessage], pass_over: Pass) -> None:
    """Deliver a batch; a message with which that fails by itself is passed over."""
    try:
        await deliver(batch, pass_over)
    except ArvadosNatsError:
        raise
    except Exception as error:
        if len(batch) == 1:
            logger.exception("a message cannot be delivered", extra={"action": "live.failed"})
            pass_over(batch[0], "failed", repr(error))
            return
        for message in batch:
            await _deliver(deliver, [message], pass_over)


def _readable(
    batch: list[StoredMessage], read: Callable[[StoredMessage], T], pass_over: Pass
) -> list[tuple[StoredMessage, T]]:
    found = []
    for message in batch:
        try:
            found.append((message, read(message)))
        except BadInput as error:
            pass_over(message, "bad", error)
    return found


def _observe(stream: str, oldest: StoredMessage) -> None:
    stored = object_facts.timestamp(oldest.time)
    what = "event" if stream == streams.EVENTS else "log"
    now = time.time()  # noqa: TID251  (a figure)
    metrics.LIVE_LAG.labels(what).observe(max(0.0, now - (stored or 0.0)))


def _count(what: str, shown: list[Shown]) -> None:
    if shown:
        metrics.LIVE_PUBLISHED.labels(what).inc(len(shown))
    else:
        metrics.LIVE_SKIPPED.labels("nobody").inc()


def _log(message: StoredMessage) -> Chunk | ContainerEnd:
    """A run of bytes or an end marker of a container."""
    found = log_chunks.parse(message.subject, message.headers, message.data)
    if not subjects.is_uuid(found.container_uuid):
        raise BadInput("not the log of a container")
    return found


def _place(message: StoredMessage) -> dict[str, str]:
    """What a reader joins, orders and resumes by; the server wrote it."""
    return {name: message.headers[name] for name in _PLACE}
