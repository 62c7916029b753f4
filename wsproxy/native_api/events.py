# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`arvados.api.events`: what the stream of events holds, for a native client without a socket.

A page of changes from a cursor on, judged by the rule that sockets are judged by, by where the
objects are now, with grants asked for after the end of the page was known: a change of permission
that is in the stream acts on all of it. Where the rule would ask Arvados the answer is no, since no
token is here. Each event carries the sequence that its live message carries, and the end says up to
where the page goes, so that the two are joined without a gap or a repeat (docs/clients.md).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from arvados_nats.contract import answers, events, streams, subjects
from arvados_nats.contract.answers import Part
from arvados_nats.errors import BadInput, Unavailable
from arvados_nats.nats.client import Nats
from arvados_nats.nats.history import BATCH_BYTES
from arvados_nats.permissions.judge import Judge
from arvados_nats.permissions.rule import Decision
from arvados_nats.protocol_v1.requests import EventsTarget, Words
from wsproxy.cursors import Codec
from wsproxy.events import stored_event
from wsproxy.events.block import Block
from wsproxy.events.cursor import EventCursor
from wsproxy.events.event_source import EventSource
from wsproxy.events.filters import ANEW, GONE, Filters
from wsproxy.events.principal import decide_event
from wsproxy.events.stored_event import StoredEvent
from wsproxy.native_api import reply as native_reply
from wsproxy.native_api.reply import DEFAULT_BYTES, GetJudge

MAX_EVENTS = 1000
_EXAMINED = 20_000
"""Events looked at for one answer: a rare kind takes several answers, each of them short."""
_RUN = 500
_ALL = f"{subjects.EVENTS}.*.*.*"
_BEHIND_SECONDS = 2.0
_EXAMPLE = '{"owners": ["zzzzz-j7d0g-0123456789abcde"], "cursor": "…", "limit": 100}'


class EventsRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Lists are alternatives, different lists must all match; see `requests_v1.EventsTarget`.

    Without a cursor the answer begins with the oldest event that is kept, or with `begin` `now`
    gives the present place alone.
    """

    owners: Words | None = None
    objects: Words | None = None
    kinds: Words | None = None
    event_types: Words | None = None
    cursor: Annotated[str, Meta(max_length=256)] | None = None
    begin: Literal["now", "oldest"] = "oldest"
    limit: Annotated[int, Meta(ge=1, le=MAX_EVENTS)] = 100
    max_bytes: Annotated[int, Meta(ge=1, le=native_reply.MAX_BYTES)] = DEFAULT_BYTES


class NativeEvents:
    """Answers for `arvados.api.events`."""

    def __init__(self, nats: Nats, source: EventSource, cursors: Codec) -> None:
        self._nats = nats
        self._source = source
        self._cursors = cursors

    async def answer(self, payload: bytes, get_judge: GetJudge) -> AsyncIterator[Part]:
        """One page of events, then the end."""
        asked = native_reply.request(payload, EventsRequest, _EXAMPLE)
        page = _Page(asked)
        cursor = None if asked.cursor is None else self._cursors.events(asked.cursor)
        end, first = await extent(self._nats, self._source)
        last = end.sequence
        known = cursor is None or await self._source.knows(cursor)
        gap, place = _begin(asked, cursor, first, last, known=known)
        judge = await get_judge()  # refuses a dead token before anything else is read
        if gap:
            yield Part(headers={answers.GAP: gap})
        async for block, reached in self._blocks(place, last, page):
            now = await self._source.present.block(block)
            judge = await get_judge()
            for stored in now.for_reader(judge.identity, judge.grants, place, reached):
                if part := page.part(stored, judge):
                    part.headers[answers.CURSOR] = self._cursor(end, stored.sequence)
                    yield part
                place = stored.sequence
                if page.full:
                    break
            if page.full:
                break
            place = reached
            page.looked_at(len(block.events))
            if page.full:
                break
        yield Part(
            headers={
                answers.END: self._cursor(end, place),
                answers.MORE: native_reply.flag(place < last),
                answers.SEQUENCE: str(place),
            }
        )

    def _cursor(self, end: EventCursor, sequence: int) -> str:
        return self._cursors.encode(msgspec.structs.replace(end, sequence=sequence))

    async def _blocks(self, place: int, last: int, page: _Page) -> AsyncIterator[tuple[Block, int]]:
        """Events after `place` and up to `last`, with the place that each block reaches.

        Where few of them are wanted, and they are not in memory, only those are read.
        """
        count = min(page.wanted, _RUN)
        while place < last:
            begins = self._source.recent.begins
            if page.pattern == _ALL or place + 1 >= begins:
                block = await self._source.history.after(place, last)
                place = min(block.next_sequence - 1, last)
            else:
                found, place = await self._stored(place, min(begins - 1, last), page, count)
                count = min(2 * count, _RUN)
                block = Block(found, place + 1)
            yield block, place
            await asyncio.sleep(0)

    async def _stored(
        self, place: int, stop: int, page: _Page, count: int
    ) -> tuple[Sequence[StoredEvent], int]:
        """A part of the stream itself, and the place that it reaches, at most `stop`."""
        body = {"next_by_subj": page.pattern, "seq": place + 1, "batch": count}
        limits = {"max_bytes": BATCH_BYTES}
        messages, left = await self._nats.whole_page(streams.EVENTS, body | limits, stop)
        found = []
        for message in messages:
            with contextlib.suppress(BadInput):
                found.append(stored_event.decode(message.sequence, message.data))
        if messages and left and messages[-1].sequence < stop:
            return found, messages[-1].sequence
        return [stored for stored in found if stored.sequence <= stop], stop


async def extent(nats: Nats, source: EventSource) -> tuple[EventCursor, int]:
    """The end of the stream, and its first sequence.

    The end is what the stream itself says, and this process has come so far: what was
    live before the request is in the answer.
    """
    info = await nats.stream_info(streams.EVENTS)
    if info is None:
        raise Unavailable("there is no stream of events")
    first, last = info["state"]["first_seq"], info["state"]["last_seq"]
    try:
        async with asyncio.timeout(_BEHIND_SECONDS):
            await source.ready.wait()
            await source.reached(last)
    except TimeoutError as error:
        raise Unavailable("the stream is ahead of this process") from error
    end = source.cursor(last)
    if end.created != info["created"] or not await source.knows(end):
        raise Unavailable(ANEW)
    return end, max(first, 1)


class _Page:
    """What one request wants, and how much of it is there already."""

    def __init__(self, asked: EventsRequest) -> None:
        target = EventsTarget(
            owners=asked.owners,
            objects=asked.objects,
            kinds=asked.kinds,
            event_types=asked.event_types,
        )
        self._filters = Filters(target)
        self._events_left = asked.limit
        self._bytes_left = asked.max_bytes
        self._looks_left = _EXAMINED
        self.pattern = pattern(self._filters.kinds, asked.objects, asked.event_types)

    @property
    def wanted(self) -> int:
        """How many more events there is room for."""
        return self._events_left

    @property
    def full(self) -> bool:
        """Whether the next event belongs to the next page."""
        return self._events_left <= 0 or self._bytes_left <= 0 or self._looks_left <= 0

    def looked_at(self, count: int) -> None:
        """So many events were, whether they are wanted or not."""
        self._looks_left -= count

    def part(self, stored: StoredEvent, judge: Judge) -> Part | None:
        """The event as its reader sees it; None if it is not for them."""
        if decide_event(judge, stored) is not Decision.YES or stored.facts is None:
            return None
        pairs = stored.event.audience
        if stored.facts.requests is not None:
            pairs = judge.requests_shown(stored.facts)
        elif stored.moved:
            pairs = [(stored.facts.owner_uuid, stored.facts.uuid)]
        if not self._filters.match(stored, pairs):
            return None
        # As the live publisher shows it: what is shown to one reader names no other.
        data = events.encode(msgspec.structs.replace(stored.event, audience=pairs, facts={}))
        self._events_left -= 1
        self._bytes_left -= len(data)
        return Part(data, {answers.SEQUENCE: str(stored.sequence)})


def _begin(
    asked: EventsRequest, cursor: EventCursor | None, first: int, last: int, *, known: bool
) -> tuple[str | None, int]:
    """What is missing before the page, if anything, and after which sequence it begins; `known`:
    the cursor is of this life of the stream."""
    if cursor is None:
        return None, last if asked.begin == "now" else first - 1
    if not known or cursor.sequence > last:
        return ANEW, first - 1
    if cursor.sequence + 1 < first:
        return GONE, first - 1
    return None, cursor.sequence


def pattern(
    kinds: frozenset[str] | None, objects: list[str] | None, event_types: list[str] | None
) -> str:
    """Subjects of the stream that hold all that is wanted, as narrow as a single pattern can be.

    The objects of containers include their requests, so a request is not looked for by subject.
    """
    kind = uuid = "*"
    if objects is not None and len(objects) == 1 and subjects.is_uuid(objects[0]):
        named = subjects.kind_of(objects[0])
        if named is None or named.name != "container_request":
            kind, uuid = named.name if named else subjects.OTHER, objects[0]
    if kinds is not None and len(kinds) == 1 and kind == "*":
        (kind,) = kinds
    tail = "*"
    if event_types is not None and len(event_types) == 1:
        tail = subjects.event(None, event_types[0]).rpartition(".")[2]
    return f"{subjects.EVENTS}.{kind}.{uuid}.{tail}"
