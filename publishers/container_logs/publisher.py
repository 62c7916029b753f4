# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Publish the logs of all containers: one tailer for each that runs or has just ended.

The database says which those are (`scan`), replicas share them (`assignments`), whoever watches
makes them fast (`interest`), and each is followed by a tailer (`tailers`, `tailer`).
"""

from __future__ import annotations

import asyncio
import dataclasses
from dataclasses import dataclass, field
from typing import NoReturn

from arvados_nats.contract import streams
from arvados_nats.nats.client import Nats
from arvados_nats.nats.lives import Life
from arvados_nats.service.ops import Health
from publishers.container_logs import assignments, containers
from publishers.container_logs import interest as log_interest
from publishers.container_logs.assignments import Replicas
from publishers.container_logs.containers import Container, Database
from publishers.container_logs.interest import Interest
from publishers.container_logs.pace import Pace
from publishers.container_logs.scan import Scan, Scanner
from publishers.container_logs.source import LogSource
from publishers.container_logs.tailer import Surroundings
from publishers.container_logs.tailers import Roster
from publishers.jetstream import kept
from publishers.retry import Attempts

_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Options:
    """How often to look at logs and at the database, and how much to keep."""

    pace: Pace = field(default_factory=Pace)
    scan: Scan = field(default_factory=Scan)
    limits: streams.StreamLimits = streams.DEFAULT_LOG_LIMITS


async def run(
    nats: Nats, database: Database, source: LogSource, health: Health, options: Options
) -> None:
    """Publish container logs until cancelled, from their beginnings when the stream was lost."""
    attempts = Attempts(health, "container logs")

    async def publish(life: Life) -> None:
        await _publish(nats, database, source, attempts, options, life)

    await kept.keep(nats, streams.log_stream(options.limits), attempts, publish)


async def keep_stream(nats: Nats, health: Health, options: Options) -> NoReturn:
    """Have the stream for what containers push, where no log is read."""
    attempts = Attempts(health, "container logs")

    async def be_there(_: Life) -> None:
        attempts.succeeded()

    await kept.keep(nats, streams.log_stream(options.limits), attempts, be_there)


async def _publish(
    nats: Nats,
    database: Database,
    source: LogSource,
    attempts: Attempts,
    options: Options,
    life: Life,
) -> None:
    replicas, interest, ready = Replicas(), Interest(), asyncio.Event()

    async with asyncio.TaskGroup() as tasks:
        look = _Look(database)
        around = Surroundings(
            source, look, interest.watched, lambda: len(roster.uuids), options.pace
        )
        roster = Roster(tasks, nats, replicas, around, life, attempts.health)
        source.prefer(interest.watched)
        scanner = Scanner(nats, database, roster, attempts, options.scan)

        def began(container_uuid: str) -> None:
            source.hurry(container_uuid)
            roster.hurry(container_uuid)

        interest.on_begin(began)
        replicas.on_change(scanner.redistribute)
        tasks.create_task(log_interest.listen(nats, interest))
        tasks.create_task(assignments.take_part(nats, replicas, ready))
        await ready.wait()
        tasks.create_task(scanner.follow_events())
        tasks.create_task(scanner.run())


class _Look:
    """A container's row as it is now, also with the request that was its own before a retry.

    That one is looked for once for each container: it is found in a few minutes of log rows, which
    can be many.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._former: dict[str, str | None] = {}

    async def __call__(self, uuid: str) -> Container | None:
        found = await containers.by_uuid(self._database, [uuid])
        if not found:
            return None
        container = found[0]
        if container.final and container.request_uuid is None:
            return dataclasses.replace(container, request_uuid=await self._former_of(container))
        return container

    async def _former_of(self, container: Container) -> str | None:
        if container.uuid not in self._former:
            if len(self._former) >= _REMEMBERED:
                self._former.clear()
            found = await containers.former_request(self._database, container)
            self._former[container.uuid] = found
        return self._former[container.uuid]
