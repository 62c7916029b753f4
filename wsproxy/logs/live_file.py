# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One log file of a watched container: its live readers, and one frame for all of them.

The first bytes after a pause leave at once; what follows within 20 ms gathers into one frame, since
the cost of a fan-out is its number of writes (docs/facts/realtime.md 2.2). Readers are live at
`place`, which is where the next frame begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from wsproxy import metrics
from wsproxy.logs.follower import Follower
from wsproxy.logs.frontier import Frontier, Jump, Run
from wsproxy.logs.pieces import PIECE_BYTES, Piece, pieces
from wsproxy.logs.place import LogPlace
from wsproxy.logs.recent_bytes import RecentBytes
from wsproxy.transport import failures

GATHER_SECONDS = 0.02
MANY_READERS = 1000
GATHER_FOR_MANY_SECONDS = 0.1


class LogFile:
    """One file of a container: how far it went live, and who is there."""

    def __init__(self, container: str, name: str, recent: RecentBytes) -> None:
        self.container = container
        self.name = name
        self._recent = recent
        self.frontier = Frontier()
        self.live: list[Follower] = []
        self.ahead: list[Follower] = []
        """Readers that asked for a place the file has not reached."""
        self._gathered: list[bytes] = []
        self._gathered_at = LogPlace(0, 0)
        self._size = 0
        self._sent_at = float("-inf")
        self._due: asyncio.TimerHandle | None = None

    @property
    def place(self) -> LogPlace:
        """Where a reader must be to be live: all before it was sent to those who are."""
        return self._gathered_at if self._gathered else self.frontier.place

    @property
    def _next(self) -> LogPlace:
        """The place after all that has gathered."""
        return LogPlace(self._gathered_at.epoch, self._gathered_at.offset + self._size)

    def apply(self, steps: Iterator[Run | Jump]) -> None:
        """Send the runs to the live readers; at a jump leave them behind at its place."""
        for step in steps:
            if isinstance(step, Run):
                self._recent.append(self, LogPlace(step.epoch, step.offset), step.data)
                self._send(step)
            else:
                self._jump(step.place)
        self._wake_ahead()

    def _wake_ahead(self) -> None:
        if self.ahead:
            waiting, self.ahead = self.ahead, []
            for consumer in waiting:
                consumer.reached(self.name)

    def _send(self, run: Run) -> None:
        """Send bytes that follow the frontier as it was, now or within a moment."""
        if not self.live:
            return
        place = LogPlace(run.epoch, run.offset)
        if self._gathered and place != self._next:
            self.flush()
        if not self._gathered:
            self._gathered_at = place
        self._gathered.append(run.data)
        self._size += len(run.data)
        if self._size >= PIECE_BYTES:
            self.flush()
        elif self._due is None:
            many = len(self.live) > MANY_READERS
            gather = GATHER_FOR_MANY_SECONDS if many else GATHER_SECONDS
            loop = asyncio.get_running_loop()
            wait = self._sent_at + gather - loop.time()
            if wait <= 0:
                self.flush()
            else:
                self._due = loop.call_later(wait, self.flush)

    def flush(self) -> None:
        """One frame of all that has gathered, and one write for each live reader."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if not self._gathered:
            return
        place, data = self.place, b"".join(self._gathered)
        self._gathered, self._size = [], 0
        self._sent_at = asyncio.get_running_loop().time()
        message = Piece(self.container, self.name, place.epoch, place.offset, data).message
        slow = [consumer for consumer in self.live if consumer.send_buffer.lagging]
        for consumer in slow:
            self.live.remove(consumer)
        failures.each(self.live, lambda consumer: consumer.send(message))
        metrics.log_frames.inc(len(self.live))
        metrics.log_lags.inc(len(slow))
        failures.each(slow, lambda consumer: consumer.fall_behind(self.name, place))
        self._wake_ahead()

    def _jump(self, place: LogPlace) -> None:
        self.flush()
        left, self.live = self.live, []
        failures.each(left, lambda consumer: consumer.fall_behind(self.name, place))

    def leave(self, follower: Follower) -> None:
        """Send it nothing more."""
        for followers in (self.live, self.ahead):
            if follower in followers:
                followers.remove(follower)

    def end(self) -> None:
        """Nobody follows it any more."""
        self.flush()
        self._recent.forget(self)

    def last(self, place: LogPlace, stop: int) -> bytes:
        """Bytes from a place up to before `stop`, if all are among the last that came."""
        return self._recent.read(self, place, stop)

    def recent(self, place: LogPlace) -> Piece | None:
        """The bytes from a place on, if they are among the last that came."""
        goal = self.place
        if place.epoch != goal.epoch:
            return None
        stop = min(goal.offset, place.offset + PIECE_BYTES)
        data = self.last(place, stop)
        if not data:
            return None
        whole = stop == goal.offset
        made = pieces(self.container, self.name, place, data, whole=whole)
        return made[0] if made else None
