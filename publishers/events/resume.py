# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Where publishing stopped: the stream itself says what it holds.

Nothing is kept anywhere else, so no restart, take-over or restored disk can disagree with it. Read
when a publisher begins to lead, and for the rare row that is older than the window.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from arvados_nats.contract import streams, subjects
from arvados_nats.errors import MALFORMED, Unavailable
from arvados_nats.nats.client import Nats
from arvados_nats.nats.history import StoredMessage
from publishers import metrics
from publishers.events.rows import LogRow
from publishers.events.seen_rows import KnownRows

logger = logging.getLogger(__name__)

ALL_EVENTS = f"{subjects.EVENTS}.>"
MSG_ID = "Nats-Msg-Id"

_SKEW = timedelta(minutes=5)
"""How far the clocks of PostgreSQL and NATS may differ."""
_TAIL = 200
"""The newest created_at is looked for in so many messages: the last one may be a late row."""


class _Stored(msgspec.Struct):
    """The part of an event that says which row it was."""

    id: int
    uuid: str
    created_at: datetime


_decoder = msgspec.json.Decoder(_Stored)


@dataclass(frozen=True, slots=True)
class Position:
    """What the stream holds: the rows of the window, and its last sequence."""

    known: KnownRows
    last_sequence: int


async def from_stream(nats: Nats, window: timedelta, fresh_start: datetime) -> Position:
    """Read the rows of the last `window` before the newest stored event.

    An empty stream begins with the rows since `fresh_start` (UTC, no zone).
    """
    state = await _state(nats)
    last: int = state["last_seq"]
    newest = None
    async for stored in nats.history(streams.EVENTS, ALL_EVENTS, first=max(last - _TAIL, 1)):
        if row := _row(stored):
            newest = max(newest or row.created_at, row.created_at)
    if newest is None:
        return Position(KnownRows(fresh_start), last)
    known = KnownRows(newest - window)
    since = rfc3339(known.floor - _SKEW)
    async for stored in nats.history(streams.EVENTS, ALL_EVENTS, since=since):
        last = max(last, stored.sequence)
        if row := _row(stored):
            known.add(row.id, row.uuid, row.created_at)
    logger.info(
        "publishing goes on where the stream ends",
        extra={
            "action": "resume.position",
            "sequence": last,
            "newest": str(newest),
            "known": len(known),
        },
    )
    return Position(known, last)


async def is_settled(nats: Nats, row: LogRow) -> bool:
    """Whether a row from before the window needs nothing; it is counted then.

    Either the stream has it, or the stream does not reach back so far and the row is too old.
    """
    state = await _state(nats)
    first = datetime.fromisoformat(state["first_ts"]).replace(tzinfo=None)
    if not state["messages"] or first > row.created_at:
        metrics.skipped("too_old")
        return True
    subject = subjects.event(row.object_uuid, row.event_type)
    since = rfc3339(row.created_at - _SKEW)
    async for stored in nats.history(streams.EVENTS, subject, since=since):
        if stored.headers.get(MSG_ID) == row.uuid:
            metrics.skipped("duplicate")
            return True
    return False


async def _state(nats: Nats) -> dict[str, Any]:
    info = await nats.stream_info(streams.EVENTS)
    if info is None:
        raise Unavailable(f"the stream {streams.EVENTS} is gone")
    state: dict[str, Any] = info["state"]
    return state


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
