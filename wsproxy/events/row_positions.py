# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Where a log row stands in the stream of events: what v0's `last_log_id` means.

Ids are neither in commit order nor honest (docs/facts/arvados.md 0.2, 0.3), so the row itself is
looked for: among the newest, then near the place where the ids of most rows pass it. A row that is
not in the stream gives the place from which on all higher ids are, or the time given by a filter.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median_low
from typing import Any

from arvados_nats.contract import events, streams, subjects
from arvados_nats.errors import BadInput
from arvados_nats.nats.client import Nats
from arvados_nats.nats.history import BATCH_BYTES, StoredMessage
from wsproxy.events.recent import Recent
from wsproxy.transport.fair import Fair

_ALL = f"{subjects.EVENTS}.>"
_SAMPLE = 7
"""Rows looked at around a place: fewer than half of them may have an id that lies."""
_NEAR = (200, 4000)
"""How many events around the place where a row should be are looked through for it, first few."""
_CLOCKS_APART = timedelta(minutes=5)
SEARCHES = 2
"""Rows that are looked for at a time, each for another reader: that may be thousands of messages
for one short command."""


@dataclass(frozen=True, slots=True)
class Place:
    """Events after `sequence`; where `exact` is false, of those the ones with higher ids."""

    sequence: int
    exact: bool


class RowPositions:
    """Finds log rows in the stream."""

    def __init__(self, nats: Nats, recent: Recent) -> None:
        self._nats = nats
        self._recent = recent
        self._searches = Fair(SEARCHES, 1)

    async def after_row(self, row_id: int, since: datetime | None, reader: str) -> Place:
        """Where to read on after row `row_id`; nothing created before `since` is wanted.

        A search is followed by a rest of the same length. Raises Unavailable.
        """
        sequence = self._recent.sequence_of(row_id)
        if sequence is not None:
            return Place(sequence, exact=True)
        clock = asyncio.get_running_loop().time
        async with self._searches.turn(reader):
            began = clock()
            place = await self._search(row_id, since)
            await asyncio.sleep(clock() - began)
            return place

    async def _search(self, row_id: int, since: datetime | None) -> Place:
        info = await self._nats.stream_info(streams.EVENTS)
        state = info["state"] if info else {"first_seq": 1, "last_seq": 0}
        first, last = max(state["first_seq"], 1), state["last_seq"]
        passing = await self._where_ids_pass(row_id, first, last)
        for near in _NEAR:
            begin = max(first, passing - near)
            for message in await self._page({"seq": begin}, 2 * near):
                if _id(message) == row_id:
                    return Place(message.sequence, exact=True)
        place = begin - 1
        if since is not None:
            place = max(place, await self._before(since))
        return Place(place, exact=False)

    async def _where_ids_pass(self, row_id: int, first: int, last: int) -> int:
        """A sequence about which the ids around it change from lower to higher ones."""
        low, high = first, last + 1
        while high - low > _SAMPLE:
            middle = (low + high) // 2
            ids = [_id(message) for message in await self._page({"seq": middle}, _SAMPLE)]
            known = [found for found in ids if found is not None]
            if known and median_low(known) <= row_id:
                low = middle
            else:
                high = middle
        return low

    async def _before(self, since: datetime) -> int:
        """A sequence before all events of rows created at `since` or later."""
        start = (since.astimezone(UTC) - _CLOCKS_APART).isoformat()
        first = await self._nats.first_since(streams.EVENTS, _ALL, start)
        if first is not None:
            return first - 1
        info = await self._nats.stream_info(streams.EVENTS)
        return int(info["state"]["last_seq"]) if info else 0

    async def _page(self, start: dict[str, Any], count: int) -> list[StoredMessage]:
        found: list[StoredMessage] = []
        while len(found) < count:
            page, left = await self._nats.page(
                streams.EVENTS,
                {
                    **start,
                    "next_by_subj": _ALL,
                    "batch": min(count - len(found), 1000),
                    "max_bytes": BATCH_BYTES,
                },
            )
            found += page
            if not page or not left:
                break
            start = {"seq": page[-1].sequence + 1}
        return found


def _id(message: StoredMessage) -> int | None:
    try:
        return events.decode(message.data).id
    except BadInput:
        return None
