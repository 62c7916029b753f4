# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Log chunks in the stream ARVADOS_LOGS, found by file and byte offset.

An edge to NATS. The stream knows sequence numbers only; within one file epochs and offsets grow
with them, so a place is found by search and remembered, and pages after it follow on.
"""

from __future__ import annotations

from collections import OrderedDict

from arvados_nats.contract import log_chunks, streams, subjects
from arvados_nats.contract.log_chunks import Chunk, ContainerEnd
from arvados_nats.errors import BadInput
from arvados_nats.nats.client import Message, Nats
from arvados_nats.nats.history import StoredMessage
from wsproxy.logs.pieces import StreamPage, join
from wsproxy.logs.place import LogPlace

_PAGE_MESSAGES = 500
_PAGE_BYTES = 256 * 1024
_PLACES = 20_000
_TRIES = 20
"""Messages that are no chunk of the file, looked at one by one: a container may store any."""

_Key = tuple[str, str, LogPlace]


class StoredLogs:
    """All stored log chunks, for any number of readers."""

    def __init__(self, nats: Nats) -> None:
        self._nats = nats
        self._places: OrderedDict[_Key, tuple[int, bool]] = OrderedDict()
        self._life = 0
        """Of the stream; where a page of a former one ended means nothing."""

    def forget(self) -> None:
        """The stream is another one: its sequences are others."""
        self._places.clear()
        self._life += 1

    async def last(self, container: str) -> list[tuple[int, Chunk | ContainerEnd]]:
        """The last message of each file of a container, and its end, with sequence numbers.

        Where it has named too many, of those that Arvados itself writes.
        """
        try:
            found = await self._last_of(subjects.logs_of(container))
        except BadInput:
            usual = (log_chunks.END_TOKEN, *log_chunks.USUAL_FILES)
            found = await self._last_of(*(subjects.log(container, name) for name in usual))
        return [
            (stored.sequence, parsed) for stored in found if (parsed := _parse(stored)) is not None
        ]

    async def starts(self, container: str) -> list[tuple[int, Chunk | ContainerEnd]]:
        """As `last`; chunks that are too short to show where their characters begin have the bytes
        before them."""
        last = await self.last(container)
        return [
            (sequence, await self._in_context(parsed) if isinstance(parsed, Chunk) else parsed)
            for sequence, parsed in last
        ]

    async def _in_context(self, chunk: Chunk) -> Chunk:
        if chunk.offset == 0 or len(chunk.data) > 3:
            return chunk
        container, file = chunk.container_uuid, chunk.file
        place = LogPlace(chunk.epoch, max(chunk.offset - 3, 0))
        before = join(await self.page(container, file, place), place, chunk.offset).data
        if place.offset + len(before) != chunk.offset:
            return chunk
        return Chunk(container, file, chunk.epoch, place.offset, before + chunk.data)

    async def _last_of(self, *patterns: str) -> list[StoredMessage]:
        found, _ = await self._nats.page(streams.LOGS, {"multi_last": patterns, "batch": 1000})
        return found

    async def newer(self, container: str, sequence: int) -> bool:
        """Whether anything of a container was stored after `sequence`."""
        pattern = subjects.logs_of(container)
        return await self._nats.next(streams.LOGS, pattern, sequence + 1) is not None

    async def page(self, container: str, file: str, place: LogPlace) -> StreamPage:
        """Chunks of a file from the one that holds `place` on, or from the first after it."""
        subject, life = subjects.log(container, file), self._life
        first, joined = self._places.get((subject, file, place), (0, False))
        if not first:
            first = await self._find(subject, file, place)
        found, left = await self._nats.page(
            streams.LOGS,
            {
                "next_by_subj": subject,
                "seq": max(first, 1),
                "batch": _PAGE_MESSAGES,
                "max_bytes": _PAGE_BYTES,
            },
        )
        chunks = [
            (stored.sequence, chunk)
            for stored in found
            if isinstance(chunk := _parse(stored), Chunk) and chunk.file == file
        ]
        return StreamPage(chunks, joined, left > 0, found[-1].sequence if found else 0, life)

    def remember(self, container: str, file: str, place: LogPlace, page: StreamPage) -> None:
        """Note where in the stream the next page begins when this one was used up to `place`."""
        for sequence, chunk in reversed(page.chunks if page.life == self._life else []):
            if _starts(chunk) <= place:
                stop = LogPlace(chunk.epoch, chunk.end)
                joined, passed = stop == place, stop <= place
                key = (subjects.log(container, file), file, place)
                self._note(key, sequence + 1 if passed else sequence, joined=joined)
                break

    def skip(self, container: str, file: str, place: LogPlace, page: StreamPage) -> None:
        """Note that the page holds nothing for `place`: look behind it."""
        key = (subjects.log(container, file), file, place)
        if page.life == self._life:
            self._note(key, page.last + 1, joined=page.joined)

    def _note(self, key: _Key, sequence: int, *, joined: bool) -> None:
        self._places[key] = (sequence, joined)
        self._places.move_to_end(key)
        if len(self._places) > _PLACES:
            self._places.popitem(last=False)

    async def _find(self, subject: str, file: str, place: LogPlace) -> int:
        """Sequence of the last chunk that begins at or before `place`, or of the first one.

        The way there halves and, every other step, guesses by the offsets at both ends: chunks are
        of like size, so most searches take a handful of questions.
        """
        low = await self._chunk(subject, file, 1)
        high = await self._last(subject, file)
        if low is None or high is None or _starts(low[1]) >= place:
            return low[0] if low else 1
        if _starts(high[1]) <= place:
            return high[0]
        guess = True
        while high[0] - low[0] > 1:
            middle = _between(low, high, place, guess)
            guess = not guess
            found = await self._chunk(subject, file, middle)
            if found is None or found[0] >= high[0]:
                high = (middle, high[1])
            elif _starts(found[1]) <= place:
                low = found
            else:
                high = (middle, found[1])
        return low[0]

    async def _chunk(self, subject: str, file: str, first: int) -> tuple[int, Chunk] | None:
        """The first chunk of the file at or after a sequence number, unless it is far from it."""
        for _ in range(_TRIES):
            stored = await self._nats.next(streams.LOGS, subject, first)
            if stored is None:
                return None
            chunk = _parse(stored)
            if isinstance(chunk, Chunk) and chunk.file == file:
                return stored.sequence, chunk
            first = stored.sequence + 1
        return None

    async def _last(self, subject: str, file: str) -> tuple[int, Chunk] | None:
        """The last chunk; a number above all where another file with the same token is last."""
        stored = await self._nats.last(streams.LOGS, subject)
        if stored is None:
            return None
        chunk = _parse(stored)
        if isinstance(chunk, Chunk) and chunk.file == file:
            return stored.sequence, chunk
        return stored.sequence + 1, Chunk("", file, 2**53, 0, b"")


def _starts(chunk: Chunk) -> LogPlace:
    return LogPlace(chunk.epoch, chunk.offset)


def _between(low: tuple[int, Chunk], high: tuple[int, Chunk], place: LogPlace, guess: bool) -> int:
    """A sequence number above `low` and below `high` to look at next."""
    middle = (low[0] + high[0]) // 2
    span = high[1].offset - low[1].offset
    if guess and low[1].epoch == high[1].epoch and span > 0:
        share = (place.offset - low[1].offset) / span
        middle = low[0] + int((high[0] - low[0]) * share)
    return min(max(middle, low[0] + 1), high[0] - 1)


def heard(message: Message) -> tuple[Chunk | ContainerEnd, int, int]:
    """What the stream republished, its sequence, and that of the one before it on the subject."""
    parsed = log_chunks.parse(message.subject, message.headers, message.data)
    try:
        headers = message.headers
        return parsed, int(headers["Nats-Sequence"]), int(headers["Nats-Last-Sequence"])
    except (KeyError, ValueError) as error:
        raise BadInput("a stored message without its sequence") from error


def _parse(stored: StoredMessage) -> Chunk | ContainerEnd | None:
    try:
        return log_chunks.parse(stored.subject, stored.headers, stored.data)
    except BadInput:
        return None
