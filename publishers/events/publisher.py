# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The event publisher: each row of Arvados' logs table becomes one message of ARVADOS_EVENTS.

Take the lock, listen, read from the stream what it has, and forward every row that it lacks:
`event_source` -> `enrich` -> `stream_writer`. Whatever fails, the position is kept by the stream
itself, and the same steps are taken again (design: flow 1).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from arvados_nats.contract import events, streams, subjects
from arvados_nats.errors import ArvadosNatsError
from arvados_nats.nats.client import Nats
from arvados_nats.service import tracing
from arvados_nats.service.ops import Health
from publishers import metrics
from publishers.events import enrich, resume
from publishers.events import rows as log_rows
from publishers.events.enrich import Term
from publishers.events.event_source import EventSource, Scans
from publishers.events.notify_queue import Notified
from publishers.events.rows import LogRow
from publishers.jetstream.writer import Outgoing, Overtaken, StreamWriter
from publishers.postgres.database import Database, Session
from publishers.postgres.leader import Leadership, Lock
from publishers.retry import Attempts

logger = logging.getLogger(__name__)

CHANNEL = "logs"
LOCK = Lock(streams.EVENTS)


@dataclass(frozen=True, slots=True)
class Options:
    """How events are read and kept."""

    scans: Scans = field(default_factory=Scans)
    limits: streams.StreamLimits = streams.DEFAULT_EVENT_LIMITS
    fresh_start: timedelta = timedelta(minutes=10)
    """How far back an empty stream begins."""


async def run(nats: Nats, database: Database, health: Health, options: Options) -> None:
    """Publish while this process has the lock, stand by while another has it; until cancelled."""
    publisher = _Publisher(nats, database, health, options, Attempts(health, "events"))
    while True:
        try:
            async with database.session() as session:
                await publisher.lead(session)
        except ArvadosNatsError as error:
            await publisher.attempts.failed(error)


@dataclass(frozen=True, slots=True)
class _Publisher:
    nats: Nats
    database: Database
    health: Health
    options: Options
    attempts: Attempts

    async def lead(self, session: Session) -> None:
        """Publish for as long as the session, and with it the lock, lasts."""
        replicas = self.options.limits.replicas
        leadership = Leadership(self.nats, LOCK, self.attempts, replicas, streams.EVENTS)
        async with leadership.held(session):
            notified = Notified()
            await session.listen(CHANNEL, notified.heard)
            metrics.EVENTS_LEADING.set(1)
            try:
                while True:
                    await self._publish_until_overtaken(notified, session)
            finally:
                metrics.EVENTS_LEADING.set(0)

    async def _publish_until_overtaken(self, notified: Notified, session: Session) -> None:
        try:
            await self._publish(notified, session)
        except Overtaken as error:
            logger.warning(
                "the stream has changed, reading it again",
                extra={"action": "events.overtaken", "error": str(error)},
            )

    async def _publish(self, notified: Notified, session: Session) -> None:
        """Publish what the stream lacks, then every row that comes."""
        nats, database, scans = self.nats, self.database, self.options.scans
        await streams.ensure(nats, streams.event_stream(self.options.limits))
        fresh = self.options.fresh_start
        fresh_start = await log_rows.now(database) - fresh
        past = await resume.from_stream(nats, scans.wide, fresh_start, fresh)
        self.attempts.succeeded()
        writer = StreamWriter(
            nats,
            streams.EVENTS,
            past.last_sequence,
            health=self.health,
            on_dropped=lambda message: self._pass_over(message.id, "too_large"),
        )
        term = Term(database)
        source = EventSource(database, notified, past, scans, session.clock)
        reading = asyncio.create_task(past.read())
        writing = asyncio.create_task(_write(writer, (), ()))

        async def settled() -> None:
            await writing

        try:
            async with aclosing(source.batches(settled)) as batches:
                async for rows in batches:
                    messages = await self._messages(rows, term)
                    await writing
                    writing = asyncio.create_task(_write(writer, rows, messages))
        finally:
            reading.cancel()
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def _messages(self, rows: Sequence[LogRow], term: Term) -> list[Outgoing]:
        """Messages of rows that were read together; a row that fails by itself is passed over."""
        try:
            return outgoing(await enrich.events_of(self.database, rows, term))
        except ArvadosNatsError:
            raise
        except Exception:
            if len(rows) > 1:
                return [one for row in rows for one in await self._messages([row], term)]
            logger.exception("a row cannot be published", extra={"action": "events.failed"})
            self._pass_over(rows[0].uuid, "failed")
            return []

    def _pass_over(self, row_uuid: str, reason: str) -> None:
        """Whoever posts such rows can be found by the last one, in the log and in health."""
        metrics.skipped(reason)
        self.health.notes["events"] = f"the last row that was passed over: {row_uuid} ({reason})"
        logger.warning(
            "row passed over",
            extra={"action": "events.passed_over", "uuid": row_uuid, "reason": reason},
        )


def outgoing(found: Sequence[events.Event]) -> list[Outgoing]:
    """Messages of events that were read together, marked where a change of rights follows."""
    last = max((n for n, event in enumerate(found) if _changes_rights(event)), default=0)
    return [_outgoing(event, follows=number < last) for number, event in enumerate(found)]


def _changes_rights(event: events.Event) -> bool:
    kind = subjects.kind_of(event.object_uuid)
    return kind is not None and kind.name in events.GRAPH_KINDS


def _outgoing(event: events.Event, *, follows: bool) -> Outgoing:
    subject = subjects.event(event.object_uuid, event.event_type)
    headers = {events.GRAPH_FOLLOWS: "1"} if follows else {}
    return Outgoing(subject, event.uuid, events.encode(event), headers)


async def _write(
    writer: StreamWriter, rows: Sequence[LogRow], messages: Sequence[Outgoing]
) -> None:
    """Store the messages of rows; meanwhile the next rows are read."""
    await writer.write(messages)
    if rows:
        _count(rows)


def _count(rows: Sequence[LogRow]) -> None:
    metrics.EVENTS_PUBLISHED.inc(len(rows))
    now = time.time()  # noqa: TID251  (a figure)
    for row in rows:
        metrics.EVENT_LAG.observe(now - _seconds(row.created_at))
        if tracing.on():
            _trace(row, now)
    metrics.EVENT_NEWEST.set(_seconds(rows[-1].created_at))


def _trace(row: LogRow, stored: float) -> None:
    began, kind = _seconds(row.created_at), row.kind
    tracing.record("row stored", began, stored, row_uuid=row.uuid, object_kind=kind)


def _seconds(moment: datetime) -> float:
    return moment.replace(tzinfo=UTC).timestamp()
