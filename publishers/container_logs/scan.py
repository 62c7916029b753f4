# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Look for containers in the database, and show them to the roster of tailers.

A scan every few seconds is the truth: all containers that are alive, and those that have ended
lately. Events of containers only make us look at once; anybody may have posted them.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from arvados_nats.contract import streams, subjects
from arvados_nats.errors import ArvadosNatsError
from arvados_nats.nats.client import Message, Nats
from publishers.container_logs import containers
from publishers.container_logs.containers import Database
from publishers.container_logs.tailers import Roster
from publishers.retry import Attempts

_NARROW = timedelta(minutes=2)
"""What every scan looks back: longer than a transaction of Arvados takes as a rule."""
_WIDE_SECONDS = 300.0
_LONGEST_PAUSE = timedelta(days=14)
"""After a longer one nobody waits for logs of that time; they are read from Arvados."""


@dataclass(frozen=True, slots=True)
class Scan:
    """Seconds between two looks at the database, and how long ago a container may have ended whose
    log is still published."""

    seconds: float = 2.0
    ended: timedelta = timedelta(hours=1)


class Scanner:
    """Looks for containers in the database, and shows them to the roster."""

    def __init__(
        self, nats: Nats, database: Database, roster: Roster, attempts: Attempts, scan: Scan
    ) -> None:
        self._nats = nats
        self._database = database
        self._roster = roster
        self._attempts = attempts
        self._scan = scan
        self._named: set[str] = set()
        self._heard = asyncio.Event()
        self._early = asyncio.Event()
        self._next_wide = 0.0
        self._last_scan: float | None = None

    def redistribute(self) -> None:
        """Replicas have come or gone: look at everything again, now."""
        self._roster.share()
        self._next_wide = 0.0
        self._early.set()

    async def follow_events(self) -> None:
        """Look at once at containers that an event names; anybody may have posted it."""

        async def heard(message: Message) -> None:
            uuid = message.subject.split(".")[-2]
            if subjects.is_uuid(uuid):
                self._named.add(uuid)
                self._heard.set()

        subscription = await self._nats.subscribe(f"{subjects.STORED_EVENTS}.container.>", heard)
        try:
            while True:
                await self._heard.wait()
                self._heard.clear()
                named, self._named = self._named, set()
                await self._see_named(named)
        finally:
            await subscription.unsubscribe()

    async def _see_named(self, uuids: set[str]) -> None:
        # The next scan finds what is worth finding, and reports what is wrong.
        with contextlib.suppress(ArvadosNatsError):
            found = await containers.named(self._database, sorted(uuids), self._scan.ended)
            self._roster.see(found)

    async def run(self) -> None:
        """Scan until cancelled."""
        while True:
            try:
                await self._scan_once()
            except ArvadosNatsError as error:
                await self._attempts.failed(error)
                continue
            self._attempts.succeeded()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._scan.seconds):
                    await self._early.wait()
            self._early.clear()

    async def _scan_once(self) -> None:
        now = asyncio.get_running_loop().time()
        is_wide = now >= self._next_wide
        found = await containers.alive(self._database)
        found += await containers.ended(self._database, await self._window(now, is_wide))
        seen = {container.uuid for container in found}
        missing = self._roster.uuids - seen
        others = await containers.by_uuid(self._database, sorted(missing)) if missing else []
        for uuid in missing - {container.uuid for container in others}:
            self._roster.drop(uuid)
        if is_wide:
            self._roster.forget_done(seen)
            self._next_wide = now + _WIDE_SECONDS
        self._roster.see([*found, *others])
        self._last_scan = now

    async def _window(self, now: float, is_wide: bool) -> timedelta:
        """How far to look back: to the last scan, or for the first one to when all were away."""
        if self._last_scan is None:
            return self._scan.ended + await self._pause_of_all()
        since = timedelta(seconds=now - self._last_scan)
        return since + (self._scan.ended if is_wide else _NARROW)

    async def _pause_of_all(self) -> timedelta:
        """The time for which nobody has written to the stream, as far as the stream goes back."""
        info = await self._nats.stream_info(streams.LOGS)
        if info is None or not info["state"]["messages"]:
            return timedelta(0)
        last, now = (datetime.fromisoformat(t[:19]) for t in (info["state"]["last_ts"], info["ts"]))
        return min(now - last, _LONGEST_PAUSE)
