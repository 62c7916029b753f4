# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How far one log file has been sent to those who follow it live, decided chunk by chunk.

Pure. Live messages can be lost, doubled and late; the byte offset decides. Bytes that join what was
sent are a `Run` for every live reader. When a chunk does not join, the frontier jumps behind it and
the live readers, left where they were, fetch what they miss from history like anybody who is
behind: there is no other way of repair.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from arvados_nats.contract.log_chunks import Chunk
from wsproxy.logs.place import LogPlace
from wsproxy.logs.utf8 import incomplete_tail


@dataclass(frozen=True, slots=True)
class Run:
    """Bytes for the live readers, who are at `offset` in `epoch`."""

    epoch: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Jump:
    """Live readers stay behind at this place."""

    place: LogPlace


@dataclass(slots=True)
class Frontier:
    """The place that live readers of a file have reached.

    `held` are bytes after it that begin a character whose rest has not come. `sequence` is the
    stream's number of the last message of the file's subject, 0 when none is known.
    """

    epoch: int = 0
    end: int = 0
    held: bytes = b""
    sequence: int = 0

    @property
    def place(self) -> LogPlace:
        """Where a reader must be to go live."""
        return LogPlace(self.epoch, self.end)

    @property
    def edge(self) -> int:
        """Offset after the last byte that has come."""
        return self.end + len(self.held)

    def accept(self, chunk: Chunk, sequence: int, previous: int | None) -> Iterator[Run | Jump]:
        """What a chunk means for the live readers; use up each step before asking for the next.

        `previous` is the stream's number of the message before it on its subject, if told: only
        this shows whether an epoch ended with what was seen of it.
        """
        unbroken = previous is not None and previous == self.sequence
        if chunk.epoch < self.epoch:
            return
        self.sequence = max(sequence, self.sequence)
        if chunk.epoch > self.epoch:
            yield from self._restart(chunk.epoch, unbroken)
        if chunk.end <= self.edge:
            return
        if chunk.offset > self.edge:
            yield Jump(self.place)
            self._move(chunk.epoch, chunk.offset)
        yield from self._grow(chunk.data[self.edge - chunk.offset :])

    def finish(self, epoch: int, size: int) -> Iterator[Run | Jump]:
        """The file ends at `size` in `epoch`; a file that is known to be longer stays as it is."""
        if epoch > self.epoch:
            yield Jump(self.place)
            self._move(epoch, size)
        elif epoch == self.epoch and size > self.edge:
            yield Jump(self.place)
            self._move(epoch, size)
        else:
            yield from self._flush()

    def begin(self, chunk: Chunk, sequence: int) -> Iterator[Run]:
        """Take the file's last stored chunk as what there was before anybody looked."""
        self.epoch, self.sequence = chunk.epoch, sequence
        self._move(chunk.epoch, chunk.offset)
        yield from self._grow(chunk.data)

    def _restart(self, epoch: int, unbroken: bool) -> Iterator[Run | Jump]:
        if unbroken:
            yield from self._flush()
        else:
            yield Jump(self.place)
        self._move(epoch, 0)

    def _grow(self, data: bytes) -> Iterator[Run]:
        data = self.held + data
        tail = incomplete_tail(data)
        whole = data[: len(data) - tail] if tail else data
        self.held = data[len(data) - tail :] if tail else b""
        if whole:
            yield self._run(whole)

    def _flush(self) -> Iterator[Run]:
        held, self.held = self.held, b""
        if held:
            yield self._run(held)

    def _run(self, data: bytes) -> Run:
        run = Run(self.epoch, self.end, data)
        self.end += len(data)
        return run

    def _move(self, epoch: int, offset: int) -> None:
        self.epoch, self.end, self.held = epoch, offset, b""
