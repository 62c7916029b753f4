# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A machine's system log into the stream ARVADOS_SYSLOG, each record once and in order.

Records are stored in batches. The place of the last one is kept on disk when all of a batch is
stored; after a crash or a lost connection the stream is asked what of a batch it has already. What
NATS cannot take waits in the journal, or in the spool of a pipe.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from arvados_nats.contract import streams, subjects, system_log_records
from arvados_nats.errors import BadInput, Unavailable
from arvados_nats.nats.acks import Ack, JetStreamError
from arvados_nats.nats.client import Nats
from publishers.retry import Attempts
from publishers.system_logs import metrics
from publishers.system_logs.place import Place, PlaceFile

logger = logging.getLogger(__name__)

_BATCH = 128
_HEADER_BYTES = 4096
_ACK_SECONDS = 10.0
_ID = "Nats-Msg-Id"


class Source(Protocol):
    """Where lines come from."""

    def lines(self, cursor: str) -> AsyncIterator[tuple[str, bytes]]:
        """(cursor, line) after a cursor."""

    def stored(self, cursor: str) -> None:
        """All up to here is in the stream."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record on its way. `cursor` is its place in the source, and its message id."""

    cursor: str
    subject: str
    payload: bytes
    at: str


class Sender:
    """Carries one source of one machine into the stream."""

    def __init__(self, nats: Nats, host: str, places: PlaceFile, attempts: Attempts) -> None:
        self._nats = nats
        self._host = host
        self._places = places
        self._attempts = attempts
        self._sure = False
        """Whether the stream has nothing of us beyond the place on disk."""

    async def run(self, source: Source) -> None:
        """Until the source ends; then all of it is stored."""
        await self._begin()
        queue: asyncio.Queue[Outgoing | None] = asyncio.Queue(_BATCH)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read(source, queue))
            async for batch in _batches(queue):
                await self._store(batch)
                source.stored(batch[-1].cursor)

    async def _begin(self) -> None:
        """Without a place on disk begin after what the stream has of this machine, and keep that
        before anything is sent: what a crash interrupts is then looked for behind it."""
        pattern = subjects.system_logs_of(self._host)
        last = await self._attempts.until_done(
            lambda: self._nats.last(streams.SYSTEM_LOGS, pattern)
        )
        self._attempts.succeeded()
        if self._places.is_new:
            cursor = last.headers.get(_ID, "") if last else ""
            known = cursor if _is_of_a_journal(cursor) else ""
            self._places.save(Place(self._places.place.source, known, last.sequence if last else 0))

    async def _read(self, source: Source, queue: asyncio.Queue[Outgoing | None]) -> None:
        async for cursor, line in source.lines(self._places.place.cursor):
            if outgoing := self._outgoing(cursor, line):
                await queue.put(outgoing)
        await queue.put(None)

    def _outgoing(self, cursor: str, line: bytes) -> Outgoing | None:
        try:
            record = system_log_records.read(line, self._host)
        except BadInput as error:
            metrics.SKIPPED.labels("unreadable").inc()
            logger.warning(
                "a line is no record and is left out",
                extra={"action": "system_logs.unreadable", "error": str(error)},
            )
            return None
        room = min(self._nats.max_payload, streams.MAX_SYSTEM_RECORD) - _HEADER_BYTES
        payload, cut = system_log_records.encode(record, room)
        if cut:
            metrics.SHORTENED.inc()
        return Outgoing(cursor, subjects.system_log(self._host, record.unit), payload, record.at)

    async def _store(self, batch: Sequence[Outgoing]) -> None:
        """Store what the stream has not, as often as it takes; keep the place."""
        sequence: int | None = None
        while sequence is None:
            try:
                known = {} if self._sure else await self._known()
                sequence = max((*known.values(), *await self._send(batch, known)))
            except (Unavailable, JetStreamError, TimeoutError) as error:
                self._sure = False
                await self._attempts.failed(Unavailable(f"system logs wait: {error}"))
        self._sure = True
        self._attempts.succeeded()
        self._places.save(Place(self._places.place.source, batch[-1].cursor, sequence))
        metrics.RECORDS.inc(len(batch))
        written = datetime.fromisoformat(batch[-1].at).timestamp()
        now = time.time()  # noqa: TID251  (a figure)
        metrics.LAG_SECONDS.set(max(0.0, now - written))

    async def _known(self) -> dict[str, int]:
        """Sequences of what was stored of this machine beyond the place on disk, by cursor."""
        history = self._nats.history(
            streams.SYSTEM_LOGS,
            subjects.system_logs_of(self._host),
            first=self._places.place.sequence + 1,
        )
        return {stored.headers.get(_ID, ""): stored.sequence async for stored in history}

    async def _send(self, batch: Sequence[Outgoing], known: dict[str, int]) -> list[int]:
        """Send what is not known, in order; the sequences under which it was stored."""
        futures: list[asyncio.Future[Ack]] = []
        try:
            async with asyncio.timeout(_ACK_SECONDS):
                for item in (item for item in batch if item.cursor not in known):
                    headers = {_ID: item.cursor}
                    ack = await self._nats.publish_stored(item.subject, item.payload, headers)
                    futures.append(ack)
                return [ack["seq"] for ack in await asyncio.gather(*futures)]
        finally:
            for future in futures:
                future.cancel()


async def _batches(queue: asyncio.Queue[Outgoing | None]) -> AsyncIterator[list[Outgoing]]:
    """What is there, as soon as something is, until None comes."""
    ended = False
    while not ended:
        items = [await queue.get()]
        while not queue.empty():
            items.append(queue.get_nowait())
        ended = items[-1] is None
        if batch := [item for item in items if item is not None]:
            yield batch


def _is_of_a_journal(cursor: str) -> bool:
    """Whether it is a cursor of journald's; offsets of a pipe mean nothing without its folder."""
    return cursor.startswith("s=")
