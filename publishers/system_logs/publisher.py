# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A machine's system log into the stream ARVADOS_SYSLOG, each record once and in order.

Records are stored in batches. The place of the last one is kept on disk when all of a batch is
stored; after a crash the stream is asked for the place of this machine's last record. What NATS
cannot take waits in the journal, or in the spool of a pipe.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from arvados_nats.contract import streams, subjects, system_log_records
from arvados_nats.errors import BadInput, Unavailable, said
from arvados_nats.nats.acks import Ack, JetStreamError
from arvados_nats.nats.client import Nats
from publishers.retry import Attempts
from publishers.system_logs import metrics
from publishers.system_logs.place import Place, PlaceFile, is_of_a_journal, is_up_to

logger = logging.getLogger(__name__)

_BATCH = 128
_HEADER_BYTES = 4096
_ACK_SECONDS = 10.0
_ID = "Nats-Msg-Id"
_CURSOR = "Arvados-Cursor"


class Source(Protocol):
    """Where lines come from."""

    def lines(self, cursor: str) -> AsyncIterator[tuple[str, bytes]]:
        """(cursor, line) after a cursor."""

    def stored(self, cursor: str) -> None:
        """All up to here is in the stream."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record on its way. `cursor` is its place in the source."""

    cursor: str
    subject: str
    payload: bytes
    at: str

    @property
    def headers(self) -> dict[str, str]:
        """The place, which the stream is asked for, and an id that nobody else can use up: the
        server remembers those of the whole stream."""
        digest = hashlib.sha256(f"{self.subject} {self.cursor} ".encode() + self.payload)
        return {_CURSOR: self.cursor, _ID: digest.hexdigest()}


class Sender:
    """Carries one source of one machine into the stream."""

    def __init__(self, nats: Nats, host: str, places: PlaceFile, attempts: Attempts) -> None:
        self._nats = nats
        self._host = host
        self._places = places
        self._attempts = attempts
        self._stored = ""
        """Cursor of this machine's last record in the stream when we began."""

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
        """Ask how far the stream is; without a place on disk begin there, and keep that."""
        pattern = subjects.system_logs_of(self._host)
        last = await self._attempts.until_done(
            lambda: self._nats.last(streams.SYSTEM_LOGS, pattern)
        )
        self._attempts.succeeded()
        self._stored = last.headers.get(_CURSOR, "") if last else ""
        place = self._places.place
        known = place.cursor or (self._stored if is_of_a_journal(self._stored) else "")
        if self._places.is_new or known != place.cursor:
            self._places.save(Place(place.source, known))

    async def _read(self, source: Source, queue: asyncio.Queue[Outgoing | None]) -> None:
        async for cursor, line in source.lines(self._places.place.cursor):
            if is_up_to(cursor, self._stored):
                continue  # stored by a process that could not keep its place any more
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
        """Store all of it, as often as it takes; keep the place.

        What is sent again is stored once: the server knows its id for two minutes.
        """
        left = list(batch)
        while left:
            try:
                left = await self._send(left)
                if left:
                    raise TimeoutError("NATS does not acknowledge what was sent")
            except (Unavailable, JetStreamError, TimeoutError) as error:
                await self._attempts.failed(Unavailable(f"system logs wait: {said(error)}"))
        self._attempts.succeeded()
        self._places.save(Place(self._places.place.source, batch[-1].cursor))
        metrics.RECORDS.inc(len(batch))
        written = datetime.fromisoformat(batch[-1].at).timestamp()
        now = time.time()  # noqa: TID251  (a figure)
        metrics.LAG_SECONDS.set(max(0.0, now - written))

    async def _send(self, items: Sequence[Outgoing]) -> list[Outgoing]:
        """Send these in order; those of which it is not known that they were stored."""
        sent: list[tuple[Outgoing, asyncio.Future[Ack]]] = []
        try:
            for item in items:
                future = await self._nats.publish_stored(item.subject, item.payload, item.headers)
                sent.append((item, future))
            await asyncio.wait([future for _, future in sent], timeout=_ACK_SECONDS)
            return [item for item, future in sent if not _is_settled(future)]
        finally:
            for _, future in sent:
                future.cancel()


def _is_settled(future: asyncio.Future[Ack]) -> bool:
    """Whether a record was stored, or can never be."""
    if not future.done():
        return False
    error = future.exception()
    if isinstance(error, BadInput):
        metrics.SKIPPED.labels("refused").inc()
        logger.warning(
            "a record is refused and left out",
            extra={"action": "system_logs.refused", "error": str(error)},
        )
        return True
    return error is None


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
