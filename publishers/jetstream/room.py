# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Keep one sender from pushing out of a stream what others have stored.

A stream that is full drops its oldest message, whosever it is. Before it comes to that, those who
store most give up the oldest of what is their own, down to one level, however many they are.
Sizes are estimates of what came since we listen: who floods a stream is known by that.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from arvados_nats.nats.client import Nats
from arvados_nats.nats.history import StoredMessage
from publishers import metrics
from publishers.jetstream.follower import follow

logger = logging.getLogger(__name__)

_FULL, _AIM = 7 / 8, 3 / 4
"""Parts of the stream's max_bytes: where somebody has to make room, and how much of it."""
_SHARE, _TIMES_THE_MEAN = 1 / 16, 2
"""Nobody makes room who has less of the stream than this part, and than twice the mean."""
_AT_ONCE = 100
"""Senders that make room at one look."""
_LOOKS = 64
"""Looks at the stream while it takes max_bytes."""
_SENDER = 2


@dataclass(slots=True)
class _Volume:
    messages: int = 0
    bytes: int = 0


class Room:
    """The room in a stream whose subjects are `<subject>.<sender>.…`."""

    def __init__(self, nats: Nats, stream: str, subject: str) -> None:
        self._nats = nats
        self._stream = stream
        self._subject = subject
        self._volumes: defaultdict[str, _Volume] = defaultdict(_Volume)
        self._since_look = 0
        self._limit = 0

    async def watch(self) -> None:
        """Follow the stream, for this alone; until cancelled."""
        async with follow(self._nats, self._stream, self._subject) as follower:
            while True:
                info = await self._nats.stream_info(self._stream)
                async for batch in follower.batches(info["state"]["last_seq"] if info else 0):
                    await self.taken(batch)

    async def taken(self, batch: Sequence[StoredMessage]) -> None:
        """Count what was stored, and make room if it is time to."""
        for message in batch:
            volume = self._volumes[message.subject.split(".")[_SENDER]]
            volume.messages += 1
            volume.bytes += message.size
            self._since_look += message.size
        if self._since_look * _LOOKS >= self._limit:
            self._since_look = 0
            await self._look()

    async def _look(self) -> None:
        info = await self._nats.stream_info(self._stream)
        if info is None:
            return
        self._limit = max(0, info["config"]["max_bytes"])
        used = info["state"]["bytes"]
        if self._limit and used > _FULL * self._limit:
            await self._make(used - int(_AIM * self._limit))
        self._forget_old()

    async def _make(self, room: int) -> None:
        """Have the largest senders give up so many bytes, as far as they are large."""
        sizes = {sender: volume.bytes for sender, volume in self._volumes.items()}
        least = int(self._limit * min(_SHARE, _TIMES_THE_MEAN / len(sizes)))
        async with asyncio.TaskGroup() as tasks:
            for sender, surplus in surpluses(sizes, room, least).items():
                tasks.create_task(self._shorten(sender, surplus))

    async def _shorten(self, sender: str, surplus: int) -> None:
        volume = self._volumes[sender]
        pattern = f"{self._subject}.{sender}.>"
        asked = {"subjects_filter": pattern}
        counted = await self._nats.js_api(f"STREAM.INFO.{self._stream}", asked)
        there = sum((counted["state"].get("subjects") or {}).values())
        keep = max(1, there - surplus * volume.messages // volume.bytes)
        await self._nats.js_api(f"STREAM.PURGE.{self._stream}", {"filter": pattern, "keep": keep})
        self._volumes[sender] = _Volume(keep, keep * volume.bytes // volume.messages)
        metrics.ROOM_MADE.labels(self._stream).inc(max(0, there - keep))
        logger.warning(
            "the stream is nearly full, a large sender has given up its oldest messages",
            extra={
                "action": "room.made",
                "stream": self._stream,
                "sender": sender,
                "messages": there - keep,
            },
        )

    def _forget_old(self) -> None:
        """What was counted long ago has left the stream since."""
        if sum(volume.bytes for volume in self._volumes.values()) <= self._limit:
            return
        for sender, volume in list(self._volumes.items()):
            volume.messages, volume.bytes = volume.messages // 2, volume.bytes // 2
            if not volume.messages:
                del self._volumes[sender]


def surpluses(sizes: Mapping[str, int], room: int, least: int) -> dict[str, int]:
    """What each of the largest gives up so that `room` bytes come free: all above one level.

    Nobody with less than `least` gives anything, and no more than `_AT_ONCE` at a time.
    """
    level, taken = 0, 0
    largest = heapq.nlargest(_AT_ONCE, sizes.items(), key=itemgetter(1))
    for count, (_, size) in enumerate(largest, 1):
        taken += size
        level = (taken - room) // count
        if count == len(largest) or level >= largest[count][1]:
            break
    level = max(level, least)
    return {sender: size - level for sender, size in largest if size > level}
