# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The stream of events as one unbroken sequence, for the whole process.

One subscription to what the stream republishes. Every stored message is republished, so each
carries the sequence after the one before; where one is missing the stream itself is read before
anything later goes on. A lost last message shows no hole, so the end of the stream is compared
every few seconds and after each reconnect. A stream that was made anew begins again at 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

from arvados_nats.contract import streams, subjects
from arvados_nats.contract.events import GRAPH_FOLLOWS
from arvados_nats.errors import ArvadosNatsError, BadInput, Unavailable
from arvados_nats.nats.client import Message, Nats
from arvados_nats.nats.history import BATCH_BYTES
from arvados_nats.nats.lives import Life
from arvados_nats.permissions import object_facts
from arvados_nats.service.ops import Health
from wsproxy import metrics
from wsproxy.events import stored_event
from wsproxy.events.cursor import EventCursor, mark
from wsproxy.events.history import History
from wsproxy.events.present import Present
from wsproxy.events.recent import Recent
from wsproxy.events.router import Router
from wsproxy.events.stored_event import StoredEvent

logger = logging.getLogger(__name__)

_ALL = f"{subjects.EVENTS}.>"
_PART = "events"
_PREFILL = 2000
_CHECK_SECONDS = 5.0
_RETRY_SECONDS = 0.5
_TURN_SECONDS = 0.005
"""How long the loop may be kept busy with events before sockets get their turn."""
_BATCH = 500
_TOGETHER = 64
_TOGETHER_BYTES = 64 * 1024
"""Events, and bytes of them, that are dispatched in one go at most."""
_GRAPH_SECONDS = 0.25
"""How long events wait for the change of rights that is announced behind them."""
_MAX_ARRIVED = 50_000
"""Messages that may wait while the stream is read."""

Arrival = tuple[int, bytes, str]
"""Sequence, payload, and when it was stored."""


class EventSource:
    """Takes each event once, in order, and hands it to the router; `run` until cancelled."""

    def __init__(
        self, nats: Nats, router: Router, health: Health, now: Callable[[], float]
    ) -> None:
        """`now`: seconds since 1970 by the database's clock."""
        self.router = router
        self.recent = Recent()
        self.history = History(nats, self.recent)
        self.turns = asyncio.Semaphore(1)
        self.present = Present(nats, now)
        self.created = ""
        """When the stream was made: sequences of another life of it mean nothing."""
        self.resets = 0
        """How often it was another one since we began."""
        self.ready = asyncio.Event()
        self.on_reset: set[Callable[[], None]] = set()
        """Called when the stream turns out to be another one."""
        self._nats = nats
        self._health = health
        health.faults.setdefault(_PART, "the stream was not read yet")
        self._position = 0
        self._seen = (0, "")
        """The newest message, and when it was stored."""
        self._lock = asyncio.Lock()
        self._check_now = asyncio.Event()
        self._turn_began = 0.0
        self._arrived: list[Arrival] = []
        self._arrival = asyncio.Event()
        self._graph_follows = False
        self._moved: asyncio.Future[None] | None = None

    @property
    def position(self) -> int:
        """Sequence of the last event that was dispatched."""
        return self._position

    def cursor(self, sequence: int) -> EventCursor:
        """The place after a message of this life of the stream."""
        seen, stored_at = self._seen
        return EventCursor(self.created, sequence, seen, mark(stored_at))

    async def knows(self, cursor: EventCursor) -> bool:
        """Whether a cursor is of this life of the stream: what was seen then is there, or so old
        that it is gone."""
        if cursor.created != self.created:
            return False
        if not cursor.mark:
            return True
        seen = cursor.seen
        question = {"seq": seen, "next_by_subj": _ALL, "batch": 1, "max_bytes": BATCH_BYTES}
        messages, _ = await self._nats.whole_page(streams.EVENTS, question, seen)
        if not messages:  # all of it is gone with age; or it has lost its end, or is an older copy
            info = await self._nats.stream_info(streams.EVENTS)
            return info is not None and int(info["state"]["last_seq"]) >= seen
        return messages[0].sequence > seen or mark(messages[0].time) == cursor.mark

    async def reached(self, sequence: int) -> None:
        """Return when everything up to `sequence` was dispatched."""
        while self._position < sequence:
            if self._moved is None:
                self._moved = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._moved)

    async def run(self) -> None:
        """Dispatch events until cancelled."""
        self._nats.on_change(lambda _: self._check_now.set())
        async with self._lock:
            subscription = await self._nats.subscribe(f"{subjects.STORED_EVENTS}.>", self._take)
            await self._begin()
        self.ready.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._dispatch_arrived())
                tasks.create_task(self._watch_the_end())
        finally:
            await subscription.unsubscribe()

    async def _begin(self) -> None:
        """Find the end of the stream, and remember the newest events before it."""
        while True:
            try:
                await self._nats.flush()
                info = await self._nats.stream_info(streams.EVENTS)
                if info is None:
                    raise Unavailable(f"there is no stream {streams.EVENTS} yet")
                self.created = info["created"]
                first = max(info["state"]["first_seq"], info["state"]["last_seq"] - _PREFILL + 1, 1)
                self.recent.reset(first)
                self._position = first - 1
                await self._read_up_to(info["state"]["last_seq"], self._remember)
                self._health.well(_PART)
                return
            except ArvadosNatsError as error:
                self._health.fault(_PART, error)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _take(self, message: Message) -> None:
        """Put a message down; what came in one read from NATS is looked at together."""
        if len(self._arrived) < _MAX_ARRIVED:  # the rest is a hole, and read from the stream
            sequence = int(message.headers.get("Nats-Sequence", 0))
            time_stamp = message.headers.get("Nats-Time-Stamp", "")
            self._arrived.append((sequence, message.data, time_stamp))
        self._graph_follows = GRAPH_FOLLOWS in message.headers
        self._arrival.set()

    async def _dispatch_arrived(self) -> None:
        while True:
            await self._arrival.wait()
            await self._until_graph_came()
            self._arrival.clear()
            arrived, self._arrived = self._arrived, []
            async with self._lock:
                for start in range(0, len(arrived), _BATCH):
                    await self._join(arrived[start : start + _BATCH])

    async def _until_graph_came(self) -> None:
        """Have a change of rights at hand with the events that it was stored behind."""
        if not self._graph_follows:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRAPH_SECONDS):
                while self._graph_follows:
                    self._arrival.clear()
                    await self._arrival.wait()
        self._graph_follows = False

    async def _join(self, arrived: list[Arrival]) -> None:
        """Dispatch what continues the sequence; read what is missing before what follows it."""
        run: list[Arrival] = []
        place = self._position
        for sequence, payload, stored_at in arrived:
            if sequence <= place:
                continue
            if sequence > place + 1:
                await self._dispatch(run)
                run = []
                metrics.holes.inc()
                await self._repair(sequence - 1)
            run.append((sequence, payload, stored_at))
            place = sequence
        await self._dispatch(run)

    async def _dispatch(self, run: list[Arrival]) -> None:
        if run:
            self._seen = run[-1][0], run[-1][2]
        events = [
            stored
            for sequence, payload, _ in run
            if (stored := self._decoded(sequence, payload)) is not None
        ]
        self.router.prepare(events)
        for together in _portions(events):
            self._move_to(together[-1].sequence)
            for stored in together:
                self.recent.add(stored)
                self.present.seen(stored)
            with metrics.dispatch_seconds.time():
                self.router.dispatch(together)
            metrics.event_lag.observe(age(together[0]))
            await self._give_way()
        if run:
            self._move_to(run[-1][0])
        if events:
            metrics.queue_delay.set(age(events[-1]))
            _newest(events[-1])

    async def _remember(self, run: list[Arrival]) -> None:
        for sequence, payload, stored_at in run:
            self._seen = sequence, stored_at
            stored = self._decoded(sequence, payload)
            self._move_to(sequence)
            if stored is not None:
                self.recent.add(stored)
                _newest(stored)

    async def _give_way(self) -> None:
        """Let sockets have their turn, seldom enough that what they write goes out together."""
        now = time.monotonic()
        if now - self._turn_began > _TURN_SECONDS:
            await asyncio.sleep(0)
            self._turn_began = time.monotonic()

    def _move_to(self, sequence: int) -> None:
        self._position = sequence
        if self._moved is not None:
            self._moved.set_result(None)
            self._moved = None

    def _decoded(self, sequence: int, payload: bytes) -> StoredEvent | None:
        metrics.events_in.inc()
        try:
            return stored_event.decode(sequence, payload)
        except BadInput as error:
            metrics.bad_events.inc()
            logger.warning(
                "event left out",
                extra={"action": "events.bad", "sequence": sequence, "error": str(error)},
            )
            return None

    async def _repair(self, last: int) -> None:
        """Read what is missing up to `last`, however long NATS takes to answer."""
        while self._position < last:
            try:
                await self._read_up_to(last, self._found)
            except Unavailable as error:
                self._health.fault(_PART, error)
                await asyncio.sleep(_RETRY_SECONDS)
        self._health.well(_PART)

    async def _found(self, run: list[Arrival]) -> None:
        metrics.repaired.inc(len(run))
        await self._dispatch(run)

    async def _read_up_to(
        self, last: int, handle: Callable[[list[Arrival]], Awaitable[None]]
    ) -> None:
        while self._position < last:
            question = {"seq": self._position + 1, "next_by_subj": _ALL}
            limits = {"batch": _BATCH, "max_bytes": BATCH_BYTES}
            messages, _ = await self._nats.whole_page(streams.EVENTS, question | limits, last)
            await handle([(m.sequence, m.data, m.time) for m in messages if m.sequence <= last])
            # What the stream does not have any more is passed over.
            if not messages or messages[-1].sequence > last:
                self._move_to(last)

    async def _watch_the_end(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_SECONDS):
                    await self._check_now.wait()
            self._check_now.clear()
            try:
                await self._check_the_end()
                self._health.well(_PART)
            except Unavailable as error:
                self._health.fault(_PART, error)
                await asyncio.sleep(_RETRY_SECONDS)
                self._check_now.set()  # a lost stream is another one as soon as it is there again

    async def _check_the_end(self) -> None:
        before, life = self._position, Life(self._nats, streams.EVENTS, self.created, *self._seen)
        same = await life.look()
        anew = same is False or (same is True and life.last < before)
        if anew:
            life = Life(self._nats, streams.EVENTS)
            same = await life.look()
        if same is None:  # or not any more
            raise Unavailable(f"there is no stream {streams.EVENTS}")
        if anew:
            async with self._lock:
                self._start_anew(life.created)
        last = life.last
        if last <= self._position:
            return
        # What is merely on its way needs no repair.
        with contextlib.suppress(Unavailable):
            await self._nats.flush()
        await asyncio.sleep(0)
        async with self._lock:
            if last > self._position:
                metrics.holes.inc()
                await self._repair(last)

    def _start_anew(self, created: str) -> None:
        logger.warning("the event stream was made anew", extra={"action": "events.reset"})
        self.created = created
        self.resets += 1
        self._position, self._seen = 0, (0, "")
        self.recent.reset(1)
        self.history.reset()
        for listener in tuple(self.on_reset):
            listener()


def _portions(events: Sequence[StoredEvent]) -> Iterator[Sequence[StoredEvent]]:
    """Events that go to sockets in one write each: as much as one of them may hold unread."""
    start = size = 0
    for number, stored in enumerate(events):
        if size and (number - start >= _TOGETHER or size + stored.size > _TOGETHER_BYTES):
            yield events[start:number]
            start, size = number, 0
        size += stored.size
    if start < len(events):
        yield events[start:]


def _newest(stored: StoredEvent) -> None:
    """Also of what was there before: who never gets an event is behind, too."""
    metrics.event_newest.set(object_facts.timestamp(stored.event.created_at) or 0)


def age(stored: StoredEvent) -> float:
    """Seconds since the row of an event was created."""
    created = object_facts.timestamp(stored.event.created_at)
    return metrics.since(created) if created is not None else 0.0
