# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Where publishing stopped: the stream itself says what it holds.

Nothing is kept anywhere else, so no restart, take-over or restored disk can disagree with it. Its
newest messages are read when a publisher begins to lead; those before them, back to the beginning
of the window, while it publishes already (`Past`), so that a take-over takes as long whatever the
stream holds. What may be in the part that was not read yet is asked about, and so is the rare row
that is older than the window.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from arvados_nats.contract import streams, subjects
from arvados_nats.errors import MALFORMED, ArvadosNatsError, Unavailable
from arvados_nats.nats.client import Nats
from arvados_nats.nats.history import BATCH_BYTES, StoredMessage
from publishers import metrics
from publishers.events.rows import LogRow
from publishers.events.seen_rows import KnownRows

logger = logging.getLogger(__name__)

ALL_EVENTS = f"{subjects.EVENTS}.>"
MSG_ID = "Nats-Msg-Id"

_SKEW = timedelta(minutes=5)
"""How far the clocks of PostgreSQL and NATS may differ."""
_BLOCK = 500
"""Messages that are read together: as many as keep nobody waiting."""
_SUBJECTS = 100
"""Subjects in one question."""
_LONGEST_REST = 0.1
_RETRY_SECONDS = 1.0


class _Stored(msgspec.Struct):
    """The part of an event that says which row it was: not its id, which is another row's where
    PostgreSQL has lost its last ones."""

    uuid: str
    created_at: datetime


_decoder = msgspec.json.Decoder(_Stored)


class Past:
    """What the stream held when publishing began; `read` it beside publishing.

    It is read from its end backwards. Of a row that was created since the part that was read began,
    `known` says whether the stream has it.
    """

    def __init__(self, nats: Nats, state: Mapping[str, Any]) -> None:
        self.known = KnownRows(datetime.min)
        self.last_sequence: int = state["last_seq"]
        self.newest: datetime | None = None
        """The newest created_at among the last messages: the last one may be a late row."""
        self.whole = False
        """All of the window was read."""
        self._nats = nats
        self._first: int = max(state["first_seq"], 1)
        self._since = datetime.fromisoformat(state["first_ts"]).replace(tzinfo=None)
        self._reached = self.last_sequence + 1
        self._covered = datetime.max
        """Whatever was stored since then was read."""
        self._came = asyncio.Event()

    async def begin(self, window: timedelta, fresh_start: datetime, fresh: timedelta) -> None:
        """Read the newest messages; the window reaches back from the newest row of them, or begins
        at `fresh_start`.

        A stream that began a moment ago was empty, with the rows of `fresh` before it: what is
        older is not lacking, and would come behind what is newer.
        """
        found = [row for stored in await self._block() if (row := _row(stored))]
        self.newest = max((row.created_at for row in found), default=None)
        begin = fresh_start
        if self.newest is not None:
            begin = max(self.newest - window, min(self._since - fresh, fresh_start))
        self.known = KnownRows(begin)
        self._take(found)
        self.whole = self.whole or self.newest is None

    async def read(self) -> None:
        """Read the rest of the window, resting as long as reading takes."""
        clock = asyncio.get_running_loop().time
        while not self.whole:
            began = clock()
            try:
                self._take([row for stored in await self._block() if (row := _row(stored))])
            except ArvadosNatsError as error:
                logger.info(
                    "what the stream holds cannot be read yet",
                    extra={"action": "resume.past", "error": str(error)},
                )
                await asyncio.sleep(_RETRY_SECONDS)
            self._came.set()
            await asyncio.sleep(min(clock() - began, _LONGEST_REST))
        logger.info(
            "what the stream holds is known",
            extra={"action": "resume.position", "known": len(self.known)},
        )

    async def lacking(self, rows: Sequence[LogRow]) -> list[LogRow]:
        """The ones among rows of the window that the stream lacks; the others are known then."""
        unsure = [row for row in rows if not self._is_sure(row) and not self._has(row)]
        stored = await self._among(unsure)
        for row in unsure:
            if row.uuid in stored:
                self.known.add(row.id, row.uuid, row.created_at)
        lacking = [row for row in rows if not self._has(row)]
        metrics.skipped("duplicate", len(rows) - len(lacking))
        return lacking

    async def settled(self, row: LogRow) -> bool:
        """Whether a row from before the window needs nothing; it is counted then.

        Either the stream has it, or the stream does not reach back so far and the row is too old.
        """
        state = await _state(self._nats)
        first = datetime.fromisoformat(state["first_ts"]).replace(tzinfo=None)
        if not state["messages"] or first > row.created_at:
            metrics.skipped("too_old")
            return True
        subject = subjects.event(row.object_uuid, row.event_type)
        since = rfc3339(row.created_at - _SKEW)
        begin = await self._nats.first_since(streams.EVENTS, subject, since)
        if begin is None:
            return False
        end: int = state["last_seq"]
        async for stored in self._nats.history(streams.EVENTS, subject, first=begin, until=end):
            if stored.headers.get(MSG_ID) == row.uuid:
                metrics.skipped("duplicate")
                return True
        return False

    def _has(self, row: LogRow) -> bool:
        return self.known.has(row.uuid, row.created_at)

    def _is_sure(self, row: LogRow) -> bool:
        return self.whole or row.created_at - _SKEW >= self._covered

    def _take(self, rows: Sequence[_Stored]) -> None:
        for row in rows:
            self.known.add(None, row.uuid, row.created_at)
        self.whole = self._reached <= self._first or self._covered < self.known.floor - _SKEW

    async def _block(self) -> list[StoredMessage]:
        """The messages before those that were read already."""
        end = self._reached
        begin = after = max(end - _BLOCK, self._first)
        found: list[StoredMessage] = []
        while after < end:
            question = {"seq": after, "next_by_subj": ALL_EVENTS}
            limits = {"batch": _BLOCK, "max_bytes": BATCH_BYTES}
            page, left = await self._nats.whole_page(streams.EVENTS, question | limits, end - 1)
            found += [stored for stored in page if stored.sequence < end]
            after = page[-1].sequence + 1 if page and left else end
        self._reached = begin
        if found:
            self._covered = _moment(found[0])
        return found

    async def _among(self, rows: Sequence[LogRow]) -> set[str]:
        """Which of these the stream has: by the last message of each subject, mostly."""
        named: defaultdict[str, list[LogRow]] = defaultdict(list)
        for row in rows:
            named[subjects.event(row.object_uuid, row.event_type)].append(row)
        found: set[str] = set()
        for start in range(0, len(named), _SUBJECTS):
            asked = [*named][start : start + _SUBJECTS]
            for stored in await self._nats.last_of_each(streams.EVENTS, asked):
                found |= await self._before(stored, named[stored.subject])
        return found

    async def _before(self, last: StoredMessage, rows: Sequence[LogRow]) -> set[str]:
        """Which of the rows about one subject the stream has, up to its last message."""
        found = {row.uuid for row in rows if row.uuid == last.headers.get(MSG_ID)}
        rest = {row.uuid: row for row in rows if row.uuid not in found}
        oldest = min((row.created_at for row in rest.values()), default=datetime.max)
        if not rest or _moment(last) < oldest - _SKEW:
            return found
        since = rfc3339(oldest - _SKEW)
        first = await self._nats.first_since(streams.EVENTS, last.subject, since)
        question = {"seq": first or last.sequence, "next_by_subj": last.subject}
        limits = {"batch": _BLOCK, "max_bytes": BATCH_BYTES}
        page, left = await self._nats.whole_page(streams.EVENTS, question | limits, last.sequence)
        if left:  # an object with very many events
            while not all(map(self._is_sure, rest.values())):
                self._came.clear()
                await self._came.wait()
            return found | {row.uuid for row in rest.values() if self._has(row)}
        return found | (rest.keys() & {stored.headers.get(MSG_ID) for stored in page})


async def from_stream(
    nats: Nats, window: timedelta, fresh_start: datetime, fresh: timedelta
) -> Past:
    """The end of the stream, and the rows of the last `window` before the newest stored event.

    An empty stream begins with the rows since `fresh_start` (UTC, no zone), which is `fresh` before
    now.
    """
    past = Past(nats, await _state(nats))
    await past.begin(window, fresh_start, fresh)
    logger.info(
        "publishing goes on where the stream ends",
        extra={
            "action": "resume.begin",
            "sequence": past.last_sequence,
            "newest": str(past.newest),
            "known": len(past.known),
        },
    )
    return past


async def _state(nats: Nats) -> dict[str, Any]:
    info = await nats.stream_info(streams.EVENTS)
    if info is None:
        raise Unavailable(f"the stream {streams.EVENTS} is gone")
    state: dict[str, Any] = info["state"]
    return state


def _moment(stored: StoredMessage) -> datetime:
    return datetime.fromisoformat(stored.time).astimezone(UTC).replace(tzinfo=None)


def _row(stored: StoredMessage) -> _Stored | None:
    try:
        row = _decoder.decode(stored.data)
    except MALFORMED:
        return None
    row.created_at = row.created_at.astimezone(UTC).replace(tzinfo=None)
    return row


def rfc3339(moment: datetime) -> str:
    """A time (UTC, no zone) as NATS' API takes it."""
    return moment.isoformat() + "Z"
