# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Older events, read from the stream in blocks that all readers which are behind share.

A block covers a fixed run of sequences, so readers at different places ask for the same blocks;
each is read once at a time, and the last few stay. No consumer is left on the server
(docs/facts/nats.md).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

from arvados_nats.contract import streams, subjects
from arvados_nats.errors import BadInput
from arvados_nats.nats.client import Nats
from arvados_nats.nats.history import BATCH_BYTES
from arvados_nats.service import tracing
from arvados_nats.single_flight import SingleFlight
from wsproxy import metrics
from wsproxy.events import stored_event
from wsproxy.events.block import Block
from wsproxy.events.recent import Recent
from wsproxy.events.replays import Replays
from wsproxy.events.stored_event import StoredEvent

_BLOCK = 500
_PAGE = 100
"""Messages that NATS sends at once: live ones come behind them; and events of a smaller block."""
_TURN = 25
"""Events that are decoded at once; then live ones have their turn."""
_ALL = f"{subjects.EVENTS}.>"


class History:
    """Reads the stream of events; `keep` blocks of 500 events stay in memory."""

    def __init__(self, nats: Nats, recent: Recent, keep: int = 8) -> None:
        self._nats = nats
        self._recent = recent
        self._keep = keep
        self._blocks: OrderedDict[int, Block] = OrderedDict()
        self._newest: OrderedDict[int, Block] = OrderedDict()
        self._replays = Replays()
        self._reading = SingleFlight[tuple[int, int], Block]("event history")
        self._wanted: Counter[int] = Counter()

    def reset(self) -> None:
        """Forget what was read: the stream is another one now."""
        self._blocks, self._newest = OrderedDict(), OrderedDict()
        self._reading.forget(lambda _: True)

    async def after(
        self, sequence: int, known: int, queued: Callable[[int], None] = lambda _: None
    ) -> Block:
        """The block in which the event that follows `sequence` stands.

        `known` is the last sequence the process has dispatched: what comes after it may be missing.
        `queued` is told how many parts are read before, if any wait. Raises Unavailable.
        """
        if self._recent.is_at_hand(sequence):
            return self._at_once(sequence, known)
        number = sequence // _BLOCK
        if block := self._blocks.get(number):
            self._blocks.move_to_end(number)
            return block
        if (ahead := self._replays.ahead) is not None:
            queued(ahead)
        part = (number, min((number + 1) * _BLOCK, known))
        self._wanted[number] += 1
        with metrics.replays_waiting.track_inprogress():
            try:
                return await self._reading.ask(part, lambda: self._read(*part))
            finally:
                self._wanted[number] -= 1
                self._wanted += Counter()

    def _at_once(self, sequence: int, known: int) -> Block:
        """Of the newest events, in smaller blocks: all who come to the end together share them."""
        number = sequence // _PAGE
        last = min((number + 1) * _PAGE, known)
        block = self._newest.get(number)
        if block is None or block.next_sequence <= last:
            begin = max(number * _PAGE, self._recent.begins - 1)
            some = self._recent.after(begin, _PAGE) or ()
            block = Block([stored for stored in some if stored.sequence <= last], last + 1)
            self._newest[number] = block
            self._newest.move_to_end(number)
            while len(self._newest) > self._keep:
                self._newest.popitem(last=False)
        return block

    async def _read(self, number: int, until: int) -> Block:
        blocks = self._blocks
        async with self._replays.turn(number):
            if not self._wanted[number]:
                return Block((), number * _BLOCK + 1)
            block = await self._at_hand(number, until) or await self._from_stream(number, until)
        if until == (number + 1) * _BLOCK:
            blocks[number] = block
            while len(blocks) > self._keep:
                blocks.popitem(last=False)
        return block

    async def _at_hand(self, number: int, until: int) -> Block | None:
        """What is still in memory; None if not all of it is."""
        last, found, following = (number + 1) * _BLOCK, list[StoredEvent](), number * _BLOCK + 1
        while following <= min(last, until):
            some = self._recent.after(following - 1, _TURN)
            if some is None:
                return None
            found += [stored for stored in some if stored.sequence <= last]
            if len(some) < _TURN:
                break
            following = some[-1].sequence + 1
            await asyncio.sleep(0)
        return Block(found, min(last, until) + 1)

    async def _from_stream(self, number: int, until: int) -> Block:
        metrics.blocks.inc()
        last = (number + 1) * _BLOCK
        following = number * _BLOCK + 1
        found: list[StoredEvent] = []
        while following <= last:
            with tracing.span("stream read", stream=streams.EVENTS, first=following):
                messages, left = await self._nats.whole_page(
                    streams.EVENTS, _page(following), until
                )
            for message in messages:
                if message.sequence % _TURN == 0:
                    await asyncio.sleep(0)
                following = message.sequence + 1
                if message.sequence > last:
                    return Block(found, message.sequence)
                with contextlib.suppress(BadInput):
                    found.append(stored_event.decode(message.sequence, message.data))
            if not messages or not left:
                break
        return Block(found, min(last, until) + 1)


def _page(first: int) -> dict[str, Any]:
    return {"seq": first, "next_by_subj": _ALL, "batch": _PAGE, "max_bytes": BATCH_BYTES}
