# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The log folder of one container below one request, while somebody reads it.

Arvados' own listing, asked for by one reader and good for all for a moment, says what there is; the
bytes come from the stream, and what the stream does not have yet from Arvados at the same offset,
once (`logs.history`). Whatever does not fit together is left to the controller.
"""

from __future__ import annotations

import asyncio

from arvados_nats.arvados.log_folder import Entry, Form, Listing
from arvados_nats.errors import Refused, Unavailable
from arvados_nats.single_flight import SingleFlight
from wsproxy.log_folder.ahead import MOST_OF_A_FILE, Ahead, Key
from wsproxy.logs.history import Stretch
from wsproxy.logs.hub import LogHub
from wsproxy.logs.pieces import Piece
from wsproxy.logs.place import LogPlace
from wsproxy.logs.saved import Access
from wsproxy.services import Services

FRESH_SECONDS = 1.5
"""How old a listing may be; Workbench asks every 2 s."""
AT_ONCE_SECONDS = 0.5
"""How old where somebody asks for bytes beyond what is listed."""
MOST_LISTED = 256 * 1024
"""Bytes of a listing, which is kept while somebody reads."""
_READY_SECONDS = 2.0
_STEP = 32 * 1024
"""Reads begin at multiples of it, so that others who ask for a little more or less share them."""
_USUAL = Form()


class Folder:
    """One folder; `close` must follow."""

    def __init__(self, services: Services, ahead: Ahead, request: str, container: str) -> None:
        self.container = container
        self._ahead = ahead
        self._services = services
        self._request = request
        self._hub: LogHub = services.logs.open(container, watching=False)
        self._flights = SingleFlight[Form, Listing]("log folder")
        self._reads = SingleFlight[tuple[str, LogPlace], None]("log folder bytes")
        self._listings: dict[Form, tuple[Listing, float]] = {}
        self._usual = _USUAL
        self._sizes: dict[str, int] = {}
        self._epochs: dict[str, int] = {}
        """Which life of each file it was when the newest listing was asked for."""
        self._shrunk: set[str] = set()

    def close(self) -> None:
        self._services.logs.close(self.container, watching=False)

    async def listing(self, access: Access, form: Form) -> Listing:
        """What Arvados lists, not older than `FRESH_SECONDS`, nor than the container's end, after
        which Workbench asks once more and never again.

        Raises Unavailable where the log has ended, so that it is Keep's, or was not heard yet;
        Refused and Unavailable as Arvados does.
        """
        await self._live()
        if form.depth != "0":
            self._usual = form
        return await self._listed(access, form, FRESH_SECONDS)

    async def file(self, access: Access, name: str, beyond: int | None) -> Entry | None:
        """A file that is listed; `beyond`: if it has no more bytes than that, look again."""
        await self._live()
        found = (await self._listed(access, self._usual, FRESH_SECONDS)).files.get(name)
        if found is not None and beyond is not None and beyond >= found.size:
            found = (await self._listed(access, self._usual, AT_ONCE_SECONDS)).files.get(name)
        return found

    async def read(self, access: Access, name: str, start: int, stop: int) -> bytes:
        """These bytes, all of them; Unavailable if they do not fit together."""
        place, file = self._frontier(name), self._hub.files.get(name)
        if (
            name in self._shrunk
            or place.epoch != self._epochs.get(name, 0)
            or stop - max(start, place.offset) > MOST_OF_A_FILE
        ):
            raise Unavailable("the stream does not have all of this")
        if file is not None and (recent := file.last(LogPlace(place.epoch, start), stop)):
            return recent
        await self._compare(access, name, place)
        goal = LogPlace(place.epoch, min(place.offset, stop))
        found = await self._stored(access, name, start, goal)
        while start + len(found) < stop:
            found += await self._newer(access, name, LogPlace(place.epoch, start + len(found)))
        if name in self._shrunk or self._frontier(name).epoch != place.epoch:
            raise Unavailable("the file began anew")
        return bytes(found[: stop - start])

    def _key(self, name: str, epoch: int) -> Key:
        """In a stream that was made anew epochs are counted anew."""
        return (self.container, name, (self._hub.history.lives, epoch))

    def _frontier(self, name: str) -> LogPlace:
        """How far the stream has a file."""
        file = self._hub.files.get(name)
        return LogPlace(file.frontier.epoch, file.frontier.edge) if file else LogPlace(0, 0)

    async def _stored(self, access: Access, name: str, start: int, goal: LogPlace) -> bytearray:
        """What the stream has, and what has left it; the readers of v1 share these reads."""
        found, first = bytearray(), start - start % _STEP
        while start < goal.offset and first + len(found) < goal.offset:
            place = LogPlace(goal.epoch, first + len(found))
            wanted = Stretch(self.container, name, place, goal)
            step = await self._hub.history.read(wanted, access)
            if not isinstance(step, Piece) or step.epoch != goal.epoch:
                raise Unavailable("there is a hole, or the file began anew")
            found += step.data
        return found[start - first : max(start, goal.offset) - first]

    async def _compare(self, access: Access, name: str, place: LogPlace) -> None:
        """What was read ahead, with what the stream got since: the file may have begun anew before
        the stream had anything of it."""
        key = self._key(name, place.epoch)
        start, stop = self._ahead.held(key)
        goal = LogPlace(place.epoch, min(place.offset, stop))
        if start >= goal.offset:
            return
        stored = await self._stored(access, name, start, goal)
        if self._ahead.held(key)[0] == start and not self._ahead.joins(key, start, bytes(stored)):
            self._shrunk.add(name)
            raise Unavailable("the file began anew")

    async def _newer(self, access: Access, name: str, at: LogPlace) -> bytes:
        """Bytes that were not stored yet when this began."""
        key = self._key(name, at.epoch)
        if not (held := self._ahead.read(key, at.offset)):
            await self._reads.ask((name, at), lambda: self._fetch(access, name, at))
            held = self._ahead.read(key, at.offset)
        if not held:
            raise Unavailable("the file has less than was listed")
        return held

    async def _fetch(self, access: Access, name: str, at: LogPlace) -> None:
        listed = self._sizes.get(name, 0)
        stop = min(listed, at.offset + MOST_OF_A_FILE)
        found = await self._services.arvados.log_range(
            access.token, self._request, self.container, name, at.offset, stop - 1
        )
        if found.size is None or found.size < listed:
            self._shrunk.add(name)
        else:
            key = self._key(name, at.epoch)
            self._ahead.put(key, at.offset, found.data[: stop - at.offset])

    async def _live(self) -> None:
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await self._hub.ready.wait()
        except TimeoutError as error:
            raise Unavailable("the stream has not told yet how far the log is") from error
        if self._hub.end is not None:
            raise Unavailable("the log has ended")

    async def _listed(self, access: Access, form: Form, age: float) -> Listing:
        loop = asyncio.get_running_loop()
        while True:
            known, asked_at = self._listings.get(form, (None, 0.0))
            begin = max(loop.time() - age, self._hub.record.changed_at)
            if known is not None and asked_at >= begin:
                return known
            others = form in self._flights
            try:
                return await self._flights.ask(form, lambda: self._ask(access, form))
            except Refused:
                if not others:
                    raise  # otherwise another reader was refused; this one asks for itself

    async def _ask(self, access: Access, form: Form) -> Listing:
        asked_at = asyncio.get_running_loop().time()
        epochs = {name: file.frontier.epoch for name, file in self._hub.files.items()}
        had = dict(self._sizes)
        for name, file in self._hub.files.items():
            had[name] = max(file.frontier.edge, had.get(name, 0))
        found = await self._services.arvados.log_listing(
            access.token, self._request, self.container, form
        )
        if len(found.body) > MOST_LISTED:
            raise Unavailable("there are too many files")
        self._listings[form] = (found, asked_at)
        self._epochs |= epochs
        for name, entry in found.files.items():
            if entry.size < had.get(name, 0):
                # What was read of it before is not what it holds now.
                self._shrunk.add(name)
            self._sizes[name] = entry.size
        return found
