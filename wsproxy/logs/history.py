# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The bytes of any log file from any place on, from wherever they still are, read once for all.

First the stream; what is not there is asked of Arvados at the same offset; what neither has is a
hole with exact borders. Readers at the same place share one read and one encoded frame. While the
pieces of one read are sent, the next is under way: one, so that who stops reading costs no more.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass

from arvados_nats.errors import Refused, Unavailable
from arvados_nats.service import tracing
from arvados_nats.single_flight import SingleFlight
from wsproxy.logs.pieces import After, Found, Hole, NewEpoch, Piece, join, pieces
from wsproxy.logs.place import LogPlace
from wsproxy.logs.saved import Access, SavedLogs
from wsproxy.logs.stored import StoredLogs

logger = logging.getLogger(__name__)

_CACHE_BYTES = 32 * 1024 * 1024
_COPIES = 3
"""A piece is held as bytes, as text and as a frame."""
_OBJECTS = 1_200
"""Bytes of what stands around them, which is most of a short piece."""
_SAVED_BYTES = 512 * 1024
_HOLE_SECONDS = 30.0
_HOLES = 1_000
"""Holes that are remembered: the latest, since readers choose how many there are."""
LATE_PAUSES = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Seconds to wait for a replica of the stream that has not yet what was already sent live."""

Step = Piece | Hole | NewEpoch


@dataclass(frozen=True, slots=True)
class Stretch:
    """From `place` of a file on; there is reason to believe that it goes up to `goal`.

    `live`: that far it was just heard live, so a replica of the stream may only be late.
    """

    container: str
    file: str
    place: LogPlace
    goal: LogPlace
    live: bool = False

    @property
    def stop(self) -> int | None:
        """Where to stop in the epoch of `place`; None for its end, in an epoch that is over."""
        return self.goal.offset if self.goal.epoch == self.place.epoch else None


class Hidden(Refused):
    """Arvados does not show this reader what it alone has."""

    def __init__(self, hole: Hole) -> None:
        super().__init__(hole.reason)
        self.hole = hole


_Key = tuple[str, str, LogPlace]


class LogHistory:
    """All files of all containers, for all readers of the process."""

    def __init__(self, stored: StoredLogs, saved: SavedLogs) -> None:
        self._stored = stored
        self._saved = saved
        self._pieces: OrderedDict[_Key, Piece] = OrderedDict()
        self._bytes = 0
        self._holes: OrderedDict[_Key, tuple[Hole, float]] = OrderedDict()
        self._flights = SingleFlight[_Key, Step]("log history")
        self.lives = 0
        """Of the stream; what was read of a former one is nothing now."""

    def forget(self) -> None:
        """The stream is another one: epochs are counted anew, and what is missing may come."""
        self._pieces.clear()
        self._holes.clear()
        self._bytes = 0
        self.lives += 1
        self._flights.forget(lambda _: True)

    async def read(self, wanted: Stretch, access: Access) -> Step:
        """What comes at the place: never nothing.

        Raises Unavailable when it cannot be told now, Hidden with what is a hole for this reader.
        """
        step = await self._step(wanted, access)
        if isinstance(step, Piece) and step.ahead is not None:
            self._read_ahead(dataclasses.replace(wanted, place=step.ahead), access)
            step.ahead = None
        return step

    def _read_ahead(self, wanted: Stretch, access: Access) -> None:
        """Begin a read that will be asked for."""
        key = (wanted.container, wanted.file, wanted.place)
        if wanted.place < wanted.goal and self._known(key) is None and key not in self._flights:
            self._flights.begin(key, self._find(wanted, access))

    async def _step(self, wanted: Stretch, access: Access) -> Step:
        key = (wanted.container, wanted.file, wanted.place)
        while True:
            known = self._known(key)
            if known is not None:
                return known
            others = key in self._flights
            try:
                return await self._flights.ask(key, lambda: self._find(wanted, access))
            except Refused:
                if not others:
                    raise  # otherwise another reader was refused; this one asks for itself

    def keep(self, piece: Piece) -> None:
        """Hold a piece for others that come to its place."""
        key = (piece.container, piece.file, LogPlace(piece.epoch, piece.offset))
        old = self._pieces.pop(key, None)
        self._pieces[key] = piece
        self._bytes += _cost(piece) - (_cost(old) if old else 0)
        while self._bytes > _CACHE_BYTES:
            _, gone = self._pieces.popitem(last=False)
            self._bytes -= _cost(gone)

    def _known(self, key: _Key) -> Step | None:
        piece = self._pieces.get(key)
        if piece is not None:
            self._pieces.move_to_end(key)
            return piece
        hole, until = self._holes.get(key, (None, 0.0))
        if hole is not None and until > time.monotonic():
            return hole
        self._holes.pop(key, None)
        return None

    async def _find(self, wanted: Stretch, access: Access) -> Step:
        container, offset = wanted.container, wanted.place.offset
        with tracing.span("log read", container_uuid=container, offset=offset):
            step = await self._look(wanted, access)
            tracing.note(found=type(step).__name__)
            return step

    async def _look(self, wanted: Stretch, access: Access) -> Step:
        found = await self._from_stream(wanted)
        for pause in LATE_PAUSES if wanted.live else ():
            if isinstance(found, Piece) or found.after is not After.DRY:
                break
            await asyncio.sleep(pause)
            found = await self._from_stream(wanted)
        if isinstance(found, Piece):
            return found
        if found.after is After.EPOCH and found.met is not None and found.touched:
            return NewEpoch(found.met.epoch)
        if found.after is After.EPOCH or wanted.stop is None:
            # Straight there: a container may name any epoch, and there is nothing between.
            epoch = found.met.epoch if found.met is not None else wanted.goal.epoch
            return Hole(wanted.place, None, "the file began anew", epoch)
        return await self._from_arvados(wanted, found, access)

    async def _from_stream(self, wanted: Stretch) -> Piece | Found:
        place, life = wanted.place, self.lives
        while True:
            page = await self._stored.page(wanted.container, wanted.file, place)
            if life != self.lives:
                raise Unavailable("the stream was made anew")
            found = join(page, place, wanted.stop)
            whole = found.after not in (After.MORE, After.DRY)
            made = pieces(wanted.container, wanted.file, place, found.data, whole=whole)
            if found.data and not made and found.after is After.MORE:
                made = pieces(wanted.container, wanted.file, place, found.data, whole=True)
            if made:
                made[0].ahead = made[-1].next if found.after is After.MORE else None
                for piece in made:
                    self.keep(piece)
                self._stored.remember(wanted.container, wanted.file, made[-1].next, page)
                return made[0]
            if found.after is not After.MORE:
                return found
            self._stored.skip(wanted.container, wanted.file, place, page)

    async def _from_arvados(self, wanted: Stretch, found: Found, access: Access) -> Step:
        place, goal = wanted.place, wanted.goal.offset
        end = goal
        if found.after is After.HOLE and found.met is not None:
            end = min(found.met.offset, goal)
        stop = min(end, place.offset + _SAVED_BYTES)
        with tracing.span("log asked of Arvados"):
            try:
                data = await self._saved.read(
                    wanted.container, wanted.file, place.offset, stop, access
                )
            except Refused as error:
                reason = "Arvados does not show these bytes to this token"
                raise Hidden(Hole(place, end, reason)) from error
        whole = place.offset + len(data) >= end
        made = pieces(wanted.container, wanted.file, place, data, whole=whole)
        if not made:
            made = pieces(wanted.container, wanted.file, place, data or found.data, whole=True)
        if not made:
            hole = Hole(place, end, "neither the stream nor Arvados has these bytes")
            key = (wanted.container, wanted.file, place)
            self._holes[key] = (hole, time.monotonic() + _HOLE_SECONDS)
            if len(self._holes) > _HOLES:
                self._holes.popitem(last=False)
            return hole
        made[0].ahead = made[-1].next if made[-1].next.offset < end else None
        for piece in made:
            self.keep(piece)
        return made[0]


def _cost(piece: Piece) -> int:
    return len(piece.data) * _COPIES + _OBJECTS
