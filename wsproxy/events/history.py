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
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from arvados_nats.contract import streams, subjects
from arvados_nats.errors import BadInput
from arvados_nats.nats.client import Nats
from arvados_nats.nats.history import BATCH_BYTES
from arvados_nats.service import tracing
from wsproxy import metrics
from wsproxy.events import stored_event
from wsproxy.events.stored_event import StoredEvent

_BLOCK = 500
_TURN = 50
"""Events that are decoded at once; then live ones have their turn."""
_ALL = f"{subjects.EVENTS}.>"


@dataclass(frozen=True, slots=True)
class Block:
    """The events of one run of sequences; `next_sequence` is where to read on."""

    events: tuple[StoredEvent, ...]
    next_sequence: int


class History:
    """Reads the stream of events; `keep` blocks of 500 events stay in memory."""

    def __init__(self, nats: Nats, keep: int = 8) -> None:
        self._nats = nats
        self._keep = keep
        self._blocks: OrderedDict[int, asyncio.Future[Block]] = OrderedDict()

    def reset(self) -> None:
        """Forget what was read: the stream is another one now."""
        self._blocks.clear()

    async def after(self, sequence: int, known: int) -> Block:
        """Events that follow `sequence`, at most one block of them, none above `known`.

        `known` is the last sequence the process has dispatched. Raises Unavailable.
        """
        block = await self._block(sequence // _BLOCK, known)
        events = tuple(e for e in block.events if sequence < e.sequence <= known)
        return Block(events, min(block.next_sequence, known + 1))

    async def _block(self, number: int, known: int) -> Block:
        last = (number + 1) * _BLOCK
        if known < last:  # not complete
            return await self._read(number, known)
        reading = self._blocks.get(number)
        if reading is None or (reading.done() and (reading.cancelled() or reading.exception())):
            reading = asyncio.ensure_future(self._read(number, last))
            self._blocks[number] = reading
            while len(self._blocks) > self._keep:
                self._blocks.popitem(last=False)
        else:
            self._blocks.move_to_end(number)
        return await asyncio.shield(reading)

    async def _read(self, number: int, until: int) -> Block:
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
                    return Block(tuple(found), message.sequence)
                with contextlib.suppress(BadInput):
                    found.append(stored_event.decode(message.sequence, message.data))
            if not messages or not left:
                break
        return Block(tuple(found), last + 1)


def _page(first: int) -> dict[str, Any]:
    return {"seq": first, "next_by_subj": _ALL, "batch": _BLOCK, "max_bytes": BATCH_BYTES}
