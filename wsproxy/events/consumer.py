# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One subscription's way along the stream of events: live, or behind and catching up.

The stream is the overflow queue. A consumer whose connection is full leaves the live readers, waits
for room, reads on from its place at its own pace, and joins live again in the loop turn in which it
has reached the last dispatched event: nothing is lost, nothing comes twice, and nobody else waits.
A replay is the same thing begun at an older place; what is not at hand is read for all who want it
(`history`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from arvados_nats.errors import BadInput, Unavailable
from arvados_nats.permissions.grants import Grants
from arvados_nats.service import tracing
from wsproxy import metrics
from wsproxy.events.batch import Batch
from wsproxy.events.block import Block
from wsproxy.events.history import History
from wsproxy.events.present import Present
from wsproxy.events.principal import Principal
from wsproxy.events.recent import Recent
from wsproxy.events.stored_event import StoredEvent
from wsproxy.transport import failures
from wsproxy.transport.send_buffer import SendBuffer

logger = logging.getLogger(__name__)

_TURN = 25
"""Events that a reader who is behind gets at once; then live ones have their turn."""
_RETRY_SECONDS = 1.0


class Engine(Protocol):
    """The parts of the event source that consumers use (`event_source.EventSource`)."""

    recent: Recent
    history: History
    present: Present
    turns: asyncio.Semaphore
    """Of those who are behind one at a time judges and sends, in the order in which they came: live
    events wait for one of them, not for all."""

    @property
    def position(self) -> int:
        """Sequence of the last event that was dispatched."""


class EventConsumer:
    """Delivers to `accept`, in order, what `principal` may see after a place in the stream."""

    def __init__(
        self,
        engine: Engine,
        principal: Principal,
        send_buffer: SendBuffer,
        accept: Callable[[Batch], None],
        live_again: Callable[[], None] | None = None,
        queued: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._engine = engine
        self._principal = principal
        self._send_buffer = send_buffer
        self._accept = accept
        self._live_again = live_again
        self._queued = queued
        self._told = False
        """That it waits, since it was live last."""
        self._task: asyncio.Task[None] | None = None
        self.position = 0
        """Nothing up to this sequence will be delivered (again)."""
        self._starts = 0
        self.live = False
        self.ended = False

    def start(self, after: int) -> None:
        """Deliver what follows `after`; also goes back to an older place, or on to a newer."""
        if self.ended:
            return
        self._leave()
        self._starts += 1
        self.position = after
        if self._task is None:
            if after >= self._engine.position and not self._send_buffer.lagging:
                self._join()
            else:
                self._task = asyncio.create_task(self._catch_up(), name="event consumer")
                failures.end_with(self._send_buffer, self._task)

    @property
    def running(self) -> bool:
        """Whether it delivers, live or catching up."""
        return self.live or self._task is not None

    def halt(self) -> None:
        """Deliver nothing until the next `start`."""
        self._leave()
        if self._task:
            self._task.cancel()
            self._task = None

    def stop(self) -> None:
        """Deliver nothing ever more."""
        self.ended = True
        self.halt()

    def deliver(self, batch: Batch) -> None:
        if batch.first <= self.position:
            rest = [stored for stored in batch.events if stored.sequence > self.position]
            if not rest:
                return
            batch = Batch(rest)
        if self._send_buffer.lagging:
            self.fall_behind(batch.first - 1)
            return
        self.position = batch.last
        try:
            self._accept(batch)
        except Exception as error:
            failures.end(self._send_buffer, error)

    def fall_behind(self, sequence: int) -> None:
        if not self.live:
            return
        metrics.lags.inc()
        self.start(max(sequence, self.position))

    def _join(self) -> None:
        if not self.live and not self.ended:
            self.live, self._told = True, False
            metrics.sinks.inc()
            self._principal.sinks.append(self)
            if self._live_again:
                self._live_again()

    def _leave(self) -> None:
        if self.live:
            self.live = False
            metrics.sinks.dec()
            if self in self._principal.sinks:
                self._principal.sinks.remove(self)

    async def _catch_up(self) -> None:
        metrics.sinks_blocked.inc()
        with tracing.span("events replayed", after=self.position):
            await self._replay()

    async def _replay(self) -> None:
        try:
            while not self._send_buffer.closed:
                await self._send_buffer.writable()
                place = self._place
                if self.position < self._engine.position:
                    block = await self._block()
                    if block and place == self._place:
                        now = await self._as_of_now(block)
                        if now and place == self._place:
                            await self._deliver(now)
                if self.position >= self._engine.position and not self._send_buffer.lagging:
                    self._join()
                    return
                await asyncio.sleep(0)
        finally:
            if self._task is asyncio.current_task():
                self._task = None
            metrics.sinks_blocked.dec()

    async def _block(self) -> Block | None:
        """The next events, which are read for all who need them."""
        try:
            return await self._engine.history.after(
                self.position, self._engine.position, self._tell
            )
        except Unavailable as error:
            logger.warning(
                "old events cannot be read; trying again",
                extra={"action": "feed.history", "error": str(error)},
            )
            await asyncio.sleep(_RETRY_SECONDS)
            return None

    def _tell(self, ahead: int) -> None:
        if not self._told:
            self._told = True
            self._queued(ahead)

    async def _as_of_now(self, block: Block) -> Block | None:
        """The block as it is to be judged; None for now if nobody can tell.

        Where nobody tells the reader's grants either, Arvados is asked about each object.
        """
        await self._principal.settled()
        try:
            return await self._engine.present.block(block)
        except (Unavailable, BadInput) as error:
            if self._principal.ask_arvados:
                asked = [stored.for_arvados() for stored in block.events]
                return Block(asked, block.next_sequence)
            logger.warning(
                "who may read old events is not known; trying again",
                extra={"action": "feed.present", "error": str(error)},
            )
            await asyncio.sleep(_RETRY_SECONDS)
            return None

    async def _deliver(self, block: Block) -> None:
        """What of a block may be shown, and on to its end; ends early where the reader stands
        elsewhere meanwhile, is full, or has other grants, by which other events may be theirs."""
        principal, end = self._principal, min(block.next_sequence - 1, self._engine.position)
        if principal.holding:
            return
        place, grants = self._place, principal.grants
        rest: Sequence[StoredEvent] = block.for_reader(
            principal.identity, grants, self.position, end
        )
        while rest:
            async with self._engine.turns:
                if self._is_elsewhere(place, grants):
                    return
                rest, asked = self._deliver_some(rest)
                place = self._place
                await asyncio.sleep(0)  # the turn is over when everybody else had theirs
            if asked is not None:
                allowed = await principal.judge(asked)
                if self._is_elsewhere(place, grants):
                    return
                self._take(asked, allowed=allowed)
                place = self._place
        if not self._is_elsewhere(place, grants):
            self.position = max(self.position, end)

    @property
    def _place(self) -> tuple[int, int]:
        """The same sequence is another event where the stream was made anew meanwhile."""
        return self._starts, self.position

    def _is_elsewhere(self, place: tuple[int, int], grants: Grants | None) -> bool:
        if self._send_buffer.lagging or self._principal.grants is not grants:
            return True
        return self._place != place

    def _deliver_some(
        self, events: Sequence[StoredEvent]
    ) -> tuple[Sequence[StoredEvent], StoredEvent | None]:
        """Deliver what one turn of the loop takes; what is left, and who has to be asked before."""
        for number, stored in enumerate(events):
            if number >= _TURN or self._send_buffer.lagging:
                return events[number:], None
            allowed = self._principal.judge_now(stored)
            if allowed is None:
                return events[number + 1 :], stored
            self._take(stored, allowed=allowed)
        return (), None

    def _take(self, stored: StoredEvent, *, allowed: bool) -> None:
        self.position = stored.sequence
        if allowed:
            self._accept(Batch((stored,)))
