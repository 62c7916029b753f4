# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Arvados' word: every row of the logs table, once, as it becomes visible.

NOTIFY wakes us and names rows to read at once, in the order of their commits. It is not trusted:
it is lost with a connection, some rows never send it, and anybody may send anything. The scan is
the truth. It goes forward by created_at, which no user can set, and looks back a little every
second, over minutes every few seconds and over half an hour every minute, since a transaction may
commit long after it wrote its rows (docs/facts/arvados.md 0.2, 3, 10). Ids are never a cursor. What
NOTIFY names does not wait for the answers that a scan waits for.

Until the stream has told all that it holds (`resume.Past`) only what is new is looked for, and what
is found is asked about.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from arvados_nats.contract.subjects import is_uuid
from arvados_nats.postgres.primary import STATEMENT_TIMEOUT
from publishers import metrics
from publishers.events import rows as log_rows
from publishers.events.notify_queue import Notified
from publishers.events.resume import Past
from publishers.events.rows import LogRow
from publishers.events.seen_rows import slice_of, start_of
from publishers.postgres.database import Database

_LIST_PAGE = 5_000


@dataclass(frozen=True, slots=True)
class Scans:
    """How far back and how often the scan looks; how many rows are read at a time."""

    near: timedelta = timedelta(seconds=3)
    near_every: float = 1.0
    middle: timedelta = timedelta(minutes=2)
    middle_every: float = 5.0
    wide: timedelta = timedelta(minutes=30)
    wide_every: float = 60.0
    grace: timedelta = timedelta(milliseconds=250)
    """Rows younger than this are left to their NOTIFY, which knows the order of commits."""
    batch: int = 500


class EventSource:
    """Rows in order, from the beginning of the window; made anew whenever publishing begins."""

    def __init__(
        self,
        database: Database,
        notified: Notified,
        past: Past,
        scans: Scans,
        clock: Callable[[], Awaitable[datetime]],
    ) -> None:
        self._database = database
        self._now = clock
        self._notified = notified
        self._past = past
        self._known = past.known
        self._scans = scans
        self._clock = self._high = past.newest or past.known.floor
        self._due = {"near": 0.0, "middle": 0.0, "wide": 0.0}

    async def batches(
        self, settled: Callable[[], Awaitable[None]]
    ) -> AsyncGenerator[list[LogRow], None]:
        """Batches of new rows, for ever; a row handed out once is not handed out again.

        `settled` returns when the last is stored: it is awaited before news are.
        """
        async for rows in self._missed():
            yield rows
        self._due["near"] = 0.0
        while True:
            # Commits are better ordered by NOTIFY: what it has named goes before what is found, and
            # what was committed before the session that hears told its clock was named by then.
            if due := self._is_due("near"):
                self._clock = await self._now()
            async for rows in self._drain(len(self._notified)):
                yield rows
            if due:
                async for rows in self._scan():
                    yield rows
            await settled()
            await self._notified.wait(self._due["near"] - time.monotonic())

    async def _missed(self) -> AsyncIterator[list[LogRow]]:
        """What came while nobody published."""
        self._clock = await self._now()
        self._high = min(self._high, self._clock)
        if self._past.whole:
            known, counts = self._known.counts(), await self._count(self._known.floor)
            async for rows in self._differing(counts, known):
                yield rows
            self._ran("wide")
        else:
            begin = max(self._high - self._scans.near, self._known.floor)
            # To the last one that is visible: what NOTIFY names from now on was committed later.
            async for rows in self._span(begin, self._clock + self._scans.near, set()):
                yield rows

    async def _drain(self, count: int) -> AsyncIterator[list[LogRow]]:
        """The rows of `count` notified ids."""
        while count > 0:
            ids = self._notified.take(min(count, self._scans.batch))
            count -= self._scans.batch
            if rows := await self._read_notified(ids):
                yield rows

    def _is_due(self, scan: str) -> bool:
        return time.monotonic() >= self._due[scan]

    def _ran(self, scan: str) -> None:
        """Plan the next runs; a wide scan covers the narrower ones."""
        every = {
            "near": self._scans.near_every,
            "middle": self._scans.middle_every,
            "wide": self._scans.wide_every,
        }
        for name, seconds in every.items():
            self._due[name] = time.monotonic() + seconds
            if name == scan:
                return

    async def _scan(self) -> AsyncIterator[list[LogRow]]:
        """What is new up to the clock, then the widest look back that is due."""
        begin = max(self._high - self._scans.near, self._known.floor)
        async for rows in self._span(begin, self._clock - self._scans.grace):
            yield rows
        if not self._past.whole:
            self._ran("near")
            return
        if self._notified.take_overflow() or self._is_due("wide"):
            self._known.forget_before(self._high - self._scans.wide)
            scan, since = "wide", self._known.floor
        elif self._is_due("middle"):
            scan, since = "middle", max(self._high - self._scans.middle, self._known.floor)
        else:
            self._ran("near")
            return
        known, asking = self._known.counts(), asyncio.ensure_future(self._count(since))
        async for rows in self._meanwhile(asking):
            yield rows
        async for rows in self._differing(asking.result(), known):
            yield rows
        self._ran(scan)

    async def _meanwhile(self, asking: asyncio.Future[Any]) -> AsyncIterator[list[LogRow]]:
        """The rows that NOTIFY names until PostgreSQL has answered a scan."""
        try:
            while not asking.done():
                async for rows in self._drain(len(self._notified)):
                    yield rows
                news = asyncio.create_task(self._notified.wait(STATEMENT_TIMEOUT))
                try:
                    await asyncio.wait((asking, news), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    news.cancel()
        finally:
            asking.cancel()

    async def _differing(
        self, counts: Mapping[int, int], known: Mapping[int, int]
    ) -> AsyncIterator[list[LogRow]]:
        """Unknown rows of all slices of time in which PostgreSQL counts other than we do.

        `known` are our own counts from before PostgreSQL was asked.
        """
        for begin, end in list(self._known.differing(counts, known)):
            listed: set[str] = set()
            async for rows in self._span(begin, end, listed):
                yield rows
            self._known.keep_only(begin, end, listed)

    def _count(self, since: datetime) -> Awaitable[dict[int, int]]:
        return log_rows.count_rows(self._database, start_of(slice_of(since)))

    async def _span(
        self, begin: datetime, end: datetime, listed: set[str] | None = None
    ) -> AsyncIterator[list[LogRow]]:
        """Unknown rows with begin <= created_at < end, in that order.

        All that are there are added to `listed`; nothing else is read meanwhile, so it is whole.
        """
        after = (begin, "")
        while True:
            asking = asyncio.create_task(log_rows.list_rows(self._database, after, end, _LIST_PAGE))
            if listed is None:
                async for rows in self._meanwhile(asking):
                    yield rows
            page = await asking
            if listed is not None:
                listed.update(uuid for _, uuid in page)
            unknown = [uuid for created, uuid in page if not self._known.has(uuid, created)]
            for start in range(0, len(unknown), self._scans.batch):
                uuids = unknown[start : start + self._scans.batch]
                found = await log_rows.read_by_uuid(self._database, uuids)
                found = await self._past.lacking(found)
                if rows := self._take(sorted(found, key=_moment)):
                    yield rows
            if len(page) < _LIST_PAGE:
                return
            after = page[-1]

    async def _read_notified(self, ids: list[int]) -> list[LogRow]:
        """The rows that NOTIFY named, unless they are known."""
        new = [row_id for row_id in ids if not self._known.has_id(row_id)]
        metrics.skipped("duplicate", len(ids) - len(new))
        rows = await log_rows.read_by_id(self._database, new) if new else []
        metrics.skipped("no_row", len(new) - len(rows))
        inside = [row for row in rows if self._known.reaches(row.created_at)]
        wanted = {row.uuid for row in await self._past.lacking(inside)}
        return self._take(
            [
                row
                for row in rows
                if row.uuid in wanted
                or not (self._known.reaches(row.created_at) or await self._past.settled(row))
            ]
        )

    def _take(self, rows: Sequence[LogRow]) -> list[LogRow]:
        """Remember rows as handed out; only those that can be published are."""
        metrics.EVENTS_READ.inc(len(rows))
        new = []
        for row in rows:
            if self._known.reaches(row.created_at):
                if not self._known.add(row.id, row.uuid, row.created_at):
                    metrics.skipped("duplicate")
                    continue
                # A row from a host whose clock is ahead must not move the scan beyond the others.
                self._high = max(self._high, min(row.created_at, self._clock))
            if not is_uuid(row.uuid):
                metrics.skipped("bad_uuid")
            elif row.properties is None:
                metrics.skipped("undecodable")
            else:
                new.append(row)
        return new


def _moment(row: LogRow) -> tuple[datetime, int]:
    """Rows that one transaction wrote in the same microsecond have their ids in order."""
    return row.created_at, row.id
