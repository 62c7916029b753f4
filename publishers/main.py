# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The publishers as one process: each part runs until it is cancelled, over shared connections.

A new part is one line in `PARTS`: a name, which is also its command, and a function.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from arvados_nats import nats_client, ops
from arvados_nats.nats_client import Nats
from arvados_nats.ops import Health
from publishers import events, permissions, postgres
from publishers.postgres import Database
from publishers.settings import Settings


@dataclass(frozen=True, slots=True)
class Shared:
    """What the parts have in common; opened and closed by `main`."""

    settings: Settings
    nats: Nats
    database: Database
    health: Health


async def _events(shared: Shared) -> None:
    """Changes of objects, from Arvados' logs table to the stream ARVADOS_EVENTS."""
    await events.run(shared.nats, shared.database, shared.health, shared.settings.event_options)


async def _permissions(shared: Shared) -> None:
    """Who may read what, from Arvados' permission tables to whoever asks in the account ARVADOS."""
    options = shared.settings.permission_options
    await permissions.run(shared.nats, shared.database, shared.health, options)


PARTS: Mapping[str, Callable[[Shared], Coroutine[Any, Any, None]]] = {
    "events": _events,
    "permissions": _permissions,
}


async def main(settings: Settings, parts: Iterable[str] = tuple(PARTS)) -> None:
    """Run parts by name until cancelled."""
    health = Health()
    token = settings.management_token
    seed = settings.seed("publisher")
    async with (
        asyncio.TaskGroup() as early,
        postgres.connect(
            settings.postgres_dsn.get_secret_value(), size=settings.postgres_pool
        ) as database,
    ):
        serving = early.create_task(
            ops.serve(settings.ops_listen, health, token.get_secret_value() if token else None)
        )
        try:
            health.fault("nats", "not connected yet")
            async with nats_client.connect(
                settings.nats_servers, name="arvados-nats publishers", seed=seed
            ) as nats:
                health.well("nats")
                _follow(nats, health)
                shared = Shared(settings, nats, database, health)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(nats.until_closed())
                    for name in parts:
                        tasks.create_task(PARTS[name](shared))
        finally:
            serving.cancel()


def _follow(nats: Nats, health: Health) -> None:
    def changed(connected: bool) -> None:
        if connected:
            health.well("nats")
        else:
            health.fault("nats", "no connection")

    nats.on_change(changed)
