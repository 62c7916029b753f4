# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How far the live publisher has come in a stream, kept in NATS for its successor.

Written after the messages it speaks of, on the same connection, so it is never ahead of them;
with the times when the stream was made and when the message was stored, since sequences mean
nothing in another life of the stream.
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
from arvados_nats.nats.lives import Life
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
        self._catch_up = options.catch_up.total_seconds()
        self._created = ""
        self._place = ""
        """How far this leader has come, as it is kept."""
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
        now = Life(self._nats, self.stream)
        await now.look()
        self._created = now.created
        kept = await self._nats.last_of_leader(
            streams.CURSORS, subjects.cursor(READER, self.stream)
        )
        if kept is not None and not self._passed_over.count:
            self._passed_over = passed_over.read(kept.headers)
        last = await self._behind(kept.data.decode(errors="replace") if kept else self._place, now)
        if last is None or last == now.last:
            await self.reached(now.last, now.last_at)
            return now.last
        begin = max(last, await self._before(_seconds(now.looked_at) - self._catch_up, now.last))
        if begin > last:
            logger.warning(
                "the interruption was too long, live messages are left out",
                extra={"action": "live.skipped", "stream": self.stream, "count": begin - last},
            )
        return begin

    async def _behind(self, place: str, now: Life) -> int | None:
        """Where the last leader stopped in this life of the stream; None: nobody ever began."""
        number, created, stored_at = (*place.split(" "), "", "")[:3]
        if number.isdecimal():
            then = Life(self._nats, self.stream, created, int(number), stored_at)
            # What stands in a stream that was made anew was never shown.
            return int(number) if await then.look() else 0
        young = _seconds(now.looked_at) - _seconds(now.created) < self._catch_up
        return 0 if young else None

    async def _before(self, seconds: float, end: int) -> int:
        """The last sequence that was stored before a moment."""
        since = datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
        first = await self._nats.first_since(self.stream, self._pattern, since)
        return end if first is None else first - 1

    async def reached(self, sequence: int, stored_at: str) -> None:
        """All messages up to this one are on their way."""
        self._place = f"{sequence} {self._created} {stored_at}"
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
        if self._place:
            subject = subjects.cursor(READER, self.stream)
            headers = self._passed_over.headers or None
            await self._nats.publish(subject, self._place.encode(), headers=headers)
            self._written = time.monotonic()


def _seconds(moment: str) -> float:
    """Since 1970, by the clock of the NATS servers, which have written all these times."""
    return object_facts.timestamp(moment or None) or 0.0
