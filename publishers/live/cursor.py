# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How far the live publisher has come in a stream, kept in NATS for its successor.

Written after the messages it speaks of, on the same connection, so it is never ahead of them;
with the time when the stream was made, since sequences mean nothing in another life of it.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from arvados_nats.contract import streams, subjects
from arvados_nats.errors import Unavailable
from arvados_nats.nats import passed_over
from arvados_nats.nats.client import Nats
from arvados_nats.nats.history import StoredMessage
from arvados_nats.nats.passed_over import PassedOver
from arvados_nats.permissions import object_facts

logger = logging.getLogger(__name__)

READER = "live"

_WRITE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Options:
    """How long an interruption is made up for, and on how many servers cursors are kept."""

    catch_up: timedelta = timedelta(minutes=5)
    replicas: int = 1


class Cursor:
    """The cursor of one stream, whose messages are stored under `<subject>.>`."""

    def __init__(self, nats: Nats, stream: str, subject: str, options: Options) -> None:
        self._nats = nats
        self.stream = stream
        self._pattern = f"{subject}.>"
        self._catch_up = options.catch_up
        self._created = ""
        self._reached: int | None = None
        self._written = 0.0
        self._passed_over = PassedOver()

    def pass_over(self, message: StoredMessage, why: object) -> PassedOver:
        """Note that a message cannot be processed; all of them so far."""
        self._passed_over = self._passed_over.and_(message, why)
        self._written = 0.0  # it is written at once
        return self._passed_over

    async def start(self) -> int:
        """The last sequence that needs nothing: where the last leader stopped, but no longer ago
        than `catch_up`; the end of the stream when there was none."""
        info = await self._nats.stream_info(self.stream)
        end: int = info["state"]["last_seq"] if info else 0
        self._created = str(info["created"]) if info else ""
        kept = await self._nats.last_of_leader(
            streams.CURSORS, subjects.cursor(READER, self.stream)
        )
        if kept is not None and not self._passed_over.count:
            self._passed_over = passed_over.read(kept.headers)
        last = self._behind(kept.data if kept else b"", end)
        if last is None or last == end:
            await self.reached(end)
            return end
        begin = max(last, await self._before(datetime.now(UTC) - self._catch_up, end))
        if begin > last:
            logger.warning(
                "the interruption was too long, live messages are left out",
                extra={"action": "live.skipped", "stream": self.stream, "count": begin - last},
            )
        return begin

    def _behind(self, kept: bytes, end: int) -> int | None:
        """Where the last leader stopped in this life of the stream; None: nobody ever began."""
        number, _, created = kept.decode(errors="replace").partition(" ")
        if number.isdigit() and created in ("", self._created):
            return min(int(number), end)
        made = object_facts.timestamp(self._created or None) or 0.0
        young = time.time() - made < self._catch_up.total_seconds()  # noqa: TID251
        # What stands in a stream that was just made anew was never shown.
        return 0 if number.isdigit() or young else None

    async def _before(self, moment: datetime, end: int) -> int:
        """The last sequence that was stored before a moment."""
        since = moment.isoformat().replace("+00:00", "Z")
        first = await self._nats.first_since(self.stream, self._pattern, since)
        return end if first is None else first - 1

    async def reached(self, sequence: int) -> None:
        """All messages up to this sequence are on their way."""
        self._reached = sequence
        if time.monotonic() - self._written >= _WRITE_SECONDS:
            await self._write()

    async def stop(self) -> None:
        """Leave the cursor where we are."""
        try:
            await self._write()
        except Unavailable as error:
            logger.info(
                "cursor is not written", extra={"action": "live.cursor", "error": str(error)}
            )

    async def _write(self) -> None:
        if self._reached is not None:
            subject = subjects.cursor(READER, self.stream)
            headers = self._passed_over.headers or None
            place = f"{self._reached} {self._created}".encode()
            await self._nats.publish(subject, place, headers=headers)
            self._written = time.monotonic()
