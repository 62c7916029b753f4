# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a page of stored chunks holds of a file from a place on, cut into frames' worth of bytes.

Pure. A reader that is behind goes from piece to piece: bytes, or the news that some are not there,
or that the file began anew. Many small chunks make one piece, and no piece ends inside a UTF-8
character unless nothing joins it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from arvados_nats.contract import log_chunks
from arvados_nats.contract.log_chunks import Chunk
from arvados_nats.protocol_v1 import messages as messages_v1
from wsproxy.logs import utf8
from wsproxy.logs.place import LogPlace
from wsproxy.transport.frames import Message

PIECE_BYTES = 32 * 1024
"""Most bytes of a piece: half of what may wait for a peer before it counts as behind."""


@dataclass(slots=True)
class Piece:
    """Bytes `offset` up to before `next` of a file; the message is built once, when asked for.

    `ahead`: where the next read begins, if this is the first of several pieces that one read gave.
    """

    container: str
    file: str
    epoch: int
    offset: int
    data: bytes
    ahead: LogPlace | None = field(default=None, repr=False, compare=False)
    _message: Message | None = field(default=None, repr=False)

    @property
    def next(self) -> LogPlace:
        """The place after it."""
        return LogPlace(self.epoch, self.offset + len(self.data))

    @property
    def message(self) -> Message:
        """The `log` message of these bytes, one for all readers."""
        if self._message is None:
            text = messages_v1.Log.of(self.container, self.file, self.epoch, self.offset, self.data)
            self._message = Message(messages_v1.encode(text))
        return self._message


@dataclass(frozen=True, slots=True)
class Hole:
    """Bytes from `place` up to before `to` are not to be had; `to` is None where not known, and the
    file goes on at the beginning of `epoch`."""

    place: LogPlace
    to: int | None
    reason: str
    epoch: int = 0

    @property
    def next(self) -> LogPlace:
        """Where the file goes on."""
        if self.to is None:
            return LogPlace(self.epoch, 0)
        return LogPlace(self.place.epoch, self.to)


@dataclass(frozen=True, slots=True)
class NewEpoch:
    """The file ended in the epoch before, with every byte seen, and began anew."""

    epoch: int


class After(Enum):
    """What comes after the bytes that a page holds."""

    MORE = "the page is full, the stream has more"
    DRY = "the stream has no more now"
    HOLE = "the next chunk does not join"
    EPOCH = "the next chunk begins the file anew"
    STOP = "all that was asked for"


@dataclass(frozen=True, slots=True)
class StreamPage:
    """Chunks of one file with their sequence numbers, in stream order.

    `joined`: a chunk just before them ends at the place that was asked for. `more`: the stream has
    more behind the message with sequence number `last`. `life`: of the stream.
    """

    chunks: list[tuple[int, Chunk]]
    joined: bool
    more: bool
    last: int
    life: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """The joined bytes of a page from a place on.

    `met` is the place of the chunk that does not join (HOLE) or begins anew (EPOCH); `touched`
    says whether the page holds a chunk that reaches the place asked for, in the same epoch.
    """

    data: bytes
    after: After
    touched: bool
    met: LogPlace | None = None


def join(page: StreamPage, place: LogPlace, stop: int | None) -> Found:
    """The bytes of one file's chunks from `place` up to before `stop`, as far as they join."""
    run = bytearray()
    position, touched = place.offset, page.joined or place.offset == 0
    for _, chunk in page.chunks:
        if chunk.epoch < place.epoch:
            continue
        if chunk.epoch > place.epoch:
            met = LogPlace(chunk.epoch, 0)
            return Found(bytes(run), After.EPOCH, touched, met)
        if chunk.offset > position:
            met = LogPlace(chunk.epoch, chunk.offset)
            return Found(bytes(run), After.HOLE, touched, met)
        touched = touched or chunk.end >= position
        if chunk.end > position:
            run += chunk.data[position - chunk.offset :]
            position = chunk.end
        if stop is not None and position >= stop:
            return Found(bytes(run[: stop - place.offset]), After.STOP, touched)
    return Found(bytes(run), After.MORE if page.more else After.DRY, touched)


def pieces(container: str, file: str, place: LogPlace, data: bytes, *, whole: bool) -> list[Piece]:
    """Cut bytes into pieces; unless `whole`, a character whose rest may follow is left off."""
    if not whole:
        data = data[: len(data) - utf8.incomplete_tail(data)]
    made, offset = [], place.offset
    for part in log_chunks.cut(data, limit=PIECE_BYTES):
        made.append(Piece(container, file, place.epoch, offset, part))
        offset += len(part)
    return made
