# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One log file as a tailer knows it: what is in the stream, what to read next, where to cut.

Pure. The byte offset is the cursor. A read begins a few bytes before the end of what is known, so
that a file that began anew and has grown past its old size is noticed (docs/facts/arvados-demand.md
G10); a file that is shorter than what is known has begun anew too. Either way its next bytes belong
to a new epoch. Whole lines go out at once; an unfinished line waits for one poll.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from arvados_nats.contract.log_chunks import Chunk, cut
from arvados_nats.errors import ArvadosNatsError

MAX_READ = 512 * 1024
"""Bytes asked for in one call. All tailers together may hold as much each while NATS is away."""

OVERLAP = 64
"""Bytes of what is known that are read again, to see that it is still the same file."""

_NOTHING_WAITED = -1


class Rewritten(ArvadosNatsError):
    """The file no longer holds the bytes that were read before."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The last message of a file's subject: its sequence (0 if none), and where it ends.

    `known` are the last bytes before `offset`, at most OVERLAP.
    """

    sequence: int = 0
    epoch: int = 0
    offset: int = 0
    known: bytes = b""
    pushed: bool = False

    def holds(self, chunk: Chunk) -> bool:
        """Whether the stream ends exactly with this chunk's bytes."""
        return (self.epoch, self.offset) == (chunk.epoch, chunk.end)

    def is_before(self, chunk: Chunk) -> bool:
        """Whether this chunk may follow: it joins, or begins an epoch, or nothing is there."""
        if not self.sequence:
            return True
        joins = (self.epoch, self.offset) == (chunk.epoch, chunk.offset)
        return joins or (chunk.offset == 0 and chunk.epoch > self.epoch)


def stored(sequence: int, chunk: Chunk) -> Stored:
    """What a chunk that is the last of its subject says about its file."""
    return Stored(sequence, chunk.epoch, chunk.end, chunk.data[-OVERLAP:], chunk.pushed)


def stored_rubbish(sequence: int) -> Stored:
    """A last message that is no chunk: a container may publish anything as its own log.

    The file goes on in an epoch that is higher than any before it.
    """
    return Stored(sequence, epoch=sequence)


@dataclass(slots=True)
class LogFile:
    """State of one file. `offset` is the first byte that was not yet given out as a chunk."""

    container_uuid: str
    name: str
    epoch: int = 0
    offset: int = 0
    held: bytes = b""
    pushed: bool = False
    _known: bytes = b""
    _waited: int = field(default=_NOTHING_WAITED)

    @property
    def read_to(self) -> int:
        """Offset of the first byte that was not yet read."""
        return self.offset + len(self.held)

    def resume(self, last: Stored) -> None:
        """Go on where the stream ends."""
        self.epoch = last.epoch
        self.offset = last.offset
        self.pushed = last.pushed
        self.held = b""
        self._known = last.known
        self._waited = _NOTHING_WAITED

    def wanted(self, size: int) -> tuple[int, int] | None:
        """First and last byte to read of a file of `size` bytes, or None if all is known."""
        if size <= self.read_to:
            return None
        return self.read_to - len(self._known), min(size, self.read_to + MAX_READ) - 1

    def wanted_next(self) -> tuple[int, int]:
        """First and last byte to read of a file whose size is not known."""
        return self.read_to - len(self._known), self.read_to + MAX_READ - 1

    def last_known(self) -> tuple[int, int] | None:
        """First and last byte of the end that is known; `take` compares them and gives nothing."""
        return (self.read_to - len(self._known), self.read_to - 1) if self._known else None

    def take(self, data: bytes) -> list[Chunk]:
        """Chunks that bytes read at `wanted` complete; Rewritten if they belong to another file."""
        overlap = len(self._known)
        if data[:overlap] != self._known[: len(data)]:
            raise Rewritten
        fresh = data[overlap:]
        if not fresh:
            return []
        self._known = (self._known + fresh)[-OVERLAP:]
        pieces = cut(self.held + fresh)
        self.held = b""
        last = pieces.pop()
        lines = last.rfind(b"\n") + 1
        chunks = self._chunks([*pieces, last[:lines]])
        self.held = last[lines:]
        return chunks

    def settle(self) -> list[Chunk]:
        """The end of a poll: an unfinished line that waited since the last one goes out."""
        if self.held and self._waited == self.offset:
            return self.flush()
        self._waited = self.offset if self.held else _NOTHING_WAITED
        return []

    def flush(self) -> list[Chunk]:
        """Give out what is held back."""
        pieces, self.held = [self.held], b""
        self._waited = _NOTHING_WAITED
        return self._chunks(pieces)

    def restart(self) -> list[Chunk]:
        """The file began anew: what is held back of the old one, then the next epoch."""
        chunks = self.flush()
        self.epoch += 1
        self.offset = 0
        self._known = b""
        return chunks

    def _chunks(self, pieces: list[bytes]) -> list[Chunk]:
        chunks = []
        for piece in filter(None, pieces):
            chunks.append(Chunk(self.container_uuid, self.name, self.epoch, self.offset, piece))
            self.offset += len(piece)
        return chunks
