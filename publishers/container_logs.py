# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Publish the logs of all containers: one tailer for each that runs or has just ended.

The database says which those are; a scan every few seconds is the truth, events of containers only
wake it. Replicas share the containers (`log_assignments`). A tailer ends with the end marker of
its container, or when the container becomes another replica's.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from arvados_nats import streams, subjects
from arvados_nats.errors import Unavailable
from arvados_nats.nats_client import Message, Nats
from arvados_nats.ops import Health
from publishers import log_assignments, log_containers, log_interest, log_metrics
from publishers.log_assignments import Replicas
from publishers.log_containers import Container, Database
from publishers.log_interest import Interest
from publishers.log_source import LogSource
from publishers.log_tailer import LogTailer, Pace, Surroundings
from publishers.log_writer import LogWriter

logger = logging.getLogger(__name__)

_PART = "container logs"
_NARROW = timedelta(minutes=2)
"""What every scan looks back: longer than a transaction of Arvados takes as a rule."""
_WIDE_SECONDS = 300.0
_ENDINGS = 256


@dataclass(frozen=True, slots=True)
class Options:
    """How often to look, and how much to keep.

    `scan`: seconds between two looks at the database. `ended`: how long ago a container may have
    ended whose log is still published.
    """

    pace: Pace = field(default_factory=Pace)
    limits: streams.Limits = streams.DEFAULT_LOG_LIMITS
    scan: float = 2.0
    ended: timedelta = timedelta(hours=1)


class Tailers:
    """The tailers of this replica, each in a task of `tasks`."""

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        nats: Nats,
        replicas: Replicas,
        surroundings: Surroundings,
    ) -> None:
        self._tasks = tasks
        self._nats = nats
        self._replicas = replicas
        self._around = surroundings
        self._running: dict[str, tuple[LogTailer, asyncio.Task[None]]] = {}
        self._done: set[str] = set()
        self._endings = asyncio.Semaphore(_ENDINGS)

    @property
    def uuids(self) -> frozenset[str]:
        return frozenset(self._running)

    def see(self, containers: Iterable[Container]) -> None:
        """What these containers are now: start, tell or stop their tailers."""
        for container in containers:
            if not self._replicas.is_mine(container.uuid):
                self.drop(container.uuid)
            elif container.uuid in self._running:
                self._running[container.uuid][0].update(container)
            elif container.uuid not in self._done:
                self._start(container)

    def share(self) -> None:
        """The replicas have changed: leave to the others what is theirs now."""
        for uuid in self.uuids:
            if not self._replicas.is_mine(uuid):
                self.drop(uuid)

    def drop(self, container_uuid: str) -> None:
        """Stop following a container."""
        if entry := self._running.pop(container_uuid, None):
            entry[1].cancel()
        log_metrics.TAILED.set(len(self._running))

    def forget_done(self, but: Collection[str]) -> None:
        """Forget that these ended, except for those that a scan may still find."""
        self._done.intersection_update(but)

    def hurry(self, container_uuid: str) -> None:
        """Somebody has begun to watch."""
        if entry := self._running.get(container_uuid):
            entry[0].hurry()

    def _start(self, container: Container) -> None:
        tailer = LogTailer(container, LogWriter(self._nats, container.uuid), self._around)
        task = self._tasks.create_task(self._follow(tailer))
        self._running[container.uuid] = tailer, task
        log_metrics.TAILED.set(len(self._running))

    async def _follow(self, tailer: LogTailer) -> None:
        if tailer.container.final:
            async with self._endings:
                end = await tailer.run()
        else:
            end = await tailer.run()
        self._done.add(end.container_uuid)
        self._running.pop(end.container_uuid, None)
        log_metrics.TAILED.set(len(self._running))
        logger.info(
            "container log ended",
            extra={
                "action": "logs.end",
                "container_uuid": end.container_uuid,
                "state": end.state,
                "files": len(end.files),
                "confirmed": all(file.confirmed for file in end.files.values()),
            },
        )


async def run(
    nats: Nats, database: Database, source: LogSource, health: Health, options: Options
) -> None:
    """Publish container logs until cancelled."""
    await streams.ensure(nats, streams.log_stream(options.limits))
    replicas, interest, ready = Replicas(), Interest(), asyncio.Event()

    async def look(uuid: str) -> Container | None:
        return await _look(database, uuid)

    async with asyncio.TaskGroup() as tasks:
        around = Surroundings(source, look, interest.watched, options.pace)
        tailers = Tailers(tasks, nats, replicas, around)
        scanner = _Scanner(nats, database, tailers, health, options)
        interest.on_begin(tailers.hurry)
        replicas.on_change(scanner.redistribute)
        tasks.create_task(log_interest.listen(nats, interest))
        tasks.create_task(log_assignments.take_part(nats, replicas, ready))
        await ready.wait()
        tasks.create_task(scanner.follow_events())
        tasks.create_task(scanner.run())


async def _look(database: Database, uuid: str) -> Container | None:
    """A container's row as it is now, also with the request that was its own before a retry."""
    found = await log_containers.by_uuid(database, [uuid])
    if not found:
        return None
    container = found[0]
    if container.final and container.request_uuid is None:
        former = await log_containers.former_request(database, container)
        return dataclasses.replace(container, request_uuid=former)
    return container


class _Scanner:
    """Looks for containers in the database, and shows them to the tailers."""

    def __init__(
        self, nats: Nats, database: Database, tailers: Tailers, health: Health, options: Options
    ) -> None:
        self._nats = nats
        self._database = database
        self._tailers = tailers
        self._health = health
        self._options = options
        self._named: set[str] = set()
        self._heard = asyncio.Event()
        self._early = asyncio.Event()
        self._next_wide = 0.0
        self._last_scan: float | None = None

    def redistribute(self) -> None:
        """Replicas have come or gone: look at everything again, now."""
        self._tailers.share()
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
        try:
            found = await log_containers.by_uuid(self._database, sorted(uuids))
        except Unavailable:
            return  # the next scan finds what is worth finding
        since = datetime.now(UTC).replace(tzinfo=None) - self._options.ended
        self._tailers.see(
            container
            for container in found
            if container.state in ("Locked", "Running")
            or (container.ended_at is not None and container.ended_at > since)
        )

    async def run(self) -> None:
        """Scan until cancelled."""
        while True:
            try:
                await self._scan_once()
                self._health.well(_PART)
            except Unavailable as error:
                self._health.fault(_PART, error)
            try:
                async with asyncio.timeout(self._options.scan):
                    await self._early.wait()
            except TimeoutError:
                pass
            self._early.clear()

    async def _scan_once(self) -> None:
        now = asyncio.get_running_loop().time()
        is_wide = now >= self._next_wide
        found = await log_containers.alive(self._database)
        found += await log_containers.ended(self._database, await self._window(now, is_wide))
        seen = {container.uuid for container in found}
        missing = self._tailers.uuids - seen
        others = await log_containers.by_uuid(self._database, sorted(missing)) if missing else []
        for uuid in missing - {container.uuid for container in others}:
            self._tailers.drop(uuid)
        if is_wide:
            self._tailers.forget_done(seen)
            self._next_wide = now + _WIDE_SECONDS
        self._tailers.see([*found, *others])
        self._last_scan = now

    async def _window(self, now: float, is_wide: bool) -> timedelta:
        """How far to look back: to the last scan, or for the first one to when all were away."""
        if self._last_scan is None:
            return self._options.ended + await self._pause_of_all()
        since = timedelta(seconds=now - self._last_scan)
        return since + (self._options.ended if is_wide else _NARROW)

    async def _pause_of_all(self) -> timedelta:
        """The time for which nobody has written to the stream, as far as the stream goes back."""
        info = await self._nats.stream_info(streams.LOGS)
        if info is None or not info["state"]["messages"]:
            return timedelta(0)
        last = datetime.fromisoformat(info["state"]["last_ts"][:19] + "+00:00")
        return min(datetime.now(UTC) - last, self._options.limits.max_age)
