# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The publishers as one process: each part runs until it is cancelled, and begins anew alone.

A new part is one line in `PARTS`: a name, which is also its command, and a function, which tells
health that it is well when what others ask of it is answered.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from arvados_nats.contract import streams, subjects
from arvados_nats.nats.client import Nats
from arvados_nats.nats.lives import Life
from arvados_nats.service import ops
from arvados_nats.service.arvados_health import ArvadosHealth
from arvados_nats.service.ops import Health
from publishers.container_logs import publisher as container_logs
from publishers.container_logs import served
from publishers.container_logs.source import LogSource
from publishers.events import newest
from publishers.events import publisher as events
from publishers.jetstream import kept
from publishers.jetstream.room import Room
from publishers.live import publisher as live
from publishers.permissions import publisher as permissions
from publishers.postgres import database as postgres
from publishers.postgres import leader
from publishers.postgres.database import Database
from publishers.queue import publisher as queue
from publishers.retry import Attempts
from publishers.settings import Settings
from publishers.supervision import Standing, keep_running

logger = logging.getLogger(__name__)

_KEEP_IDLE = 60.0
"""Seconds that an idle connection to the controller is kept; nginx' own default is 75."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What a part works with: its own connection to NATS, and what all have in common."""

    settings: Settings
    nats: Nats
    database: Database
    health: Health


async def _events(shared: Shared) -> None:
    """Changes of objects, from Arvados' logs table to the stream ARVADOS_EVENTS."""
    nats, database, health = shared.nats, shared.database, shared.health
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(newest.follow(nats, database, health))
        tasks.create_task(events.run(nats, database, health, shared.settings.event_options))


async def _permissions(shared: Shared) -> None:
    """Who may read what, from Arvados' permission tables to whoever asks in the account ARVADOS."""
    settings = shared.settings
    options = dataclasses.replace(settings.permission_options, replicas=settings.events_replicas)
    if options.role_groups_visible is None:
        logger.info(
            "whether role groups are shown to everybody is not known: Arvados is asked about each",
            extra={"action": "grants.role_visibility"},
        )
    await permissions.run(shared.nats, shared.database, shared.health, options)


async def _container_logs(shared: Shared) -> None:
    """Logs of running containers, from the controller to the stream ARVADOS_LOGS, which is there
    for what is pushed in any case."""
    settings = shared.settings
    options = settings.log_options
    keep_stream = functools.partial(container_logs.keep_stream, shared.nats, shared.health, options)
    if not settings.admin_token().secret:
        logger.warning("container logs are not read", extra={"action": "logs.no_token"})
        await keep_stream()
    watched = ArvadosHealth(shared.health)
    async with (
        settings.connect_arvados(
            connections=settings.log_calls, keep_idle=_KEEP_IDLE, ended=watched.ended
        ) as arvados,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(watched.probe(arvados))
        pushed = tasks.create_task(keep_stream())
        await served.until_served(arvados, shared.health)
        pushed.cancel()
        source = LogSource(arvados, settings.admin_token, shared.health, calls=settings.log_calls)
        await container_logs.run(shared.nats, shared.database, source, shared.health, options)


async def _live(shared: Shared) -> None:
    """What users may see of both streams, below arvados.live."""
    await live.run(shared.nats, shared.database, shared.health, shared.settings.live_options)


async def _queue(shared: Shared) -> None:
    """Containers that wait or run, from Arvados' database to the bucket ARVADOS_QUEUE."""
    await queue.run(shared.nats, shared.database, shared.health, shared.settings.queue_options)


async def _system_log_stream(shared: Shared) -> None:
    """The stream ARVADOS_SYSLOG, to which machines add with `publishers system-logs`."""
    limits = shared.settings.system_log_limits
    attempts = Attempts(shared.health, "system log stream")
    config = streams.system_log_stream(limits)

    async def be_there(_: Life) -> None:
        attempts.succeeded()
        await Room(shared.nats, streams.SYSTEM_LOGS, subjects.SYSTEM_LOGS).watch()

    if limits.max_bytes:
        await kept.keep(shared.nats, config, attempts, be_there)
    attempts.succeeded()


PARTS: Mapping[str, Callable[[Shared], Coroutine[Any, Any, None]]] = {
    "container-logs": _container_logs,
    "events": _events,
    "live": _live,
    "permissions": _permissions,
    "queue": _queue,
    "system-log-stream": _system_log_stream,
}


async def main(settings: Settings, parts: Iterable[str] = tuple(PARTS)) -> None:
    """Run parts by name until cancelled."""
    health, parts = Health(), tuple(parts)
    for name in parts:
        health.starting(_words(name))
    async with (
        asyncio.TaskGroup() as early,
        postgres.connect(settings.dsn, size=settings.postgres_pool) as database,
    ):
        serving = early.create_task(
            ops.serve(settings.ops_listen, health, settings.management_secret)
        )
        standing = Standing(health)
        try:
            async with asyncio.TaskGroup() as tasks:
                for name in parts:
                    run = functools.partial(_run, name, settings, database, health, standing)
                    tasks.create_task(keep_running(_words(name), health, run))
                await database.columns.follow(health)
        finally:
            serving.cancel()


async def _run(
    name: str, settings: Settings, database: Database, health: Health, standing: Standing
) -> None:
    """One part, with a connection of its own, until that is ended for good."""
    with standing.of(name) as follow:
        async with (
            settings.connect_nats(f"arvados-nats publishers {name}", "publisher") as nats,
            asyncio.TaskGroup() as tasks,
        ):
            follow(nats)
            closed = tasks.create_task(nats.until_closed())
            attempts = Attempts(health, _words(name))
            await leader.claimed(nats, database, attempts, settings.events_replicas)
            await PARTS[name](Shared(settings, nats, database, health))
            closed.cancel()


def _words(name: str) -> str:
    return name.replace("-", " ")
