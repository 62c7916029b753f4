# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A database, a NATS server and event publishers, in this process or in others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sysconfig
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from arvados_nats.contract import events, streams
from arvados_nats.contract.events import Event
from arvados_nats.errors import Unavailable
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Nats
from arvados_nats.service import keys
from arvados_nats.service.ops import Health
from publishers.events import publisher
from publishers.events.event_source import Scans
from publishers.metrics import EVENTS_SKIPPED
from publishers.postgres import database as postgres
from sandbox import raw_rows
from sandbox.raw_rows import RawRow
from sandbox.servers import child
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import Database
from tests.support.background import background
from tests.support.waiting import until

PROCESS_SECONDS = 60.0
"""How long a publisher process may take to start on a busy machine."""

QUICK = Scans(near_every=0.2, middle_every=0.5, wide_every=1.0)


def skipped(reason: str) -> float:
    """The counter of skipped rows for a reason, in this process."""
    value: float = EVENTS_SKIPPED.labels(reason)._value.get()
    return value


class EventWorld:
    """What the tests of the event publisher stand on; get it from `world`."""

    def __init__(
        self,
        database: Database,
        server: NatsServer,
        nats: Nats,
        writer: asyncpg.Connection,
        admin: asyncpg.Connection,
        keys_folder: Path,
    ) -> None:
        self.database = database
        self.server = server
        self.nats = nats
        self.writer = writer
        self.admin = admin
        self.processes: list[child.Child] = []
        self.health = Health()
        self._keys = keys_folder

    async def insert(self, *rows: RawRow, notify: bool = True) -> list[int]:
        return await raw_rows.insert(self.writer, rows, notify=notify)

    async def stored(self) -> list[Event]:
        """All events of the stream, in order."""
        if await self.nats.stream_info(streams.EVENTS) is None:
            return []
        return [
            events.decode(message.data)
            async for message in self.nats.history(streams.EVENTS, "arvados.events.>")
        ]

    async def stored_uuids(self) -> list[str]:
        return [event.uuid for event in await self.stored()]

    async def count(self) -> int:
        """How many events the stream has."""
        # A question that was on its way when the server was killed is lost: ask again.
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(Unavailable):
                    info = await self.nats.stream_info(streams.EVENTS)
                    break
                await asyncio.sleep(0.1)
        return info["state"]["messages"] if info else 0

    async def until_stored(self, rows: Sequence[RawRow], within: float = 60) -> None:
        """Wait until the stream has all of these rows."""
        wanted = {row.uuid for row in rows}

        async def all_there() -> bool:
            return wanted <= set(await self.stored_uuids())

        await until(all_there, f"{len(wanted)} rows in the stream", within)

    @asynccontextmanager
    async def publishing(self, options: publisher.Options | None = None) -> AsyncIterator[None]:
        """A publisher in this process, which leads when the body begins."""
        chosen = options or publisher.Options(scans=QUICK)
        async with postgres.connect(self.database.reader_dsn) as database:
            async with background(publisher.run(self.nats, database, self.health, chosen)):
                await until(self._leads, "a publisher leads")
                yield

    async def _leads(self) -> bool:
        held = await self.admin.fetchval(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        return bool(held) and await self.nats.stream_info(streams.EVENTS) is not None

    def start_process(
        self, folder: Path, name: str = "publisher", dsn: str | None = None
    ) -> child.Child:
        """A publisher as an operator starts it; its log goes to the folder."""
        started = child.start(
            [Path(sysconfig.get_path("scripts")) / "arvados-nats", "publishers", "events"],
            log=folder / f"{name}.log",
            environment={
                "PATH": os.defpath,
                "ARVADOS_NATS_NATS_URL": self.server.url,
                "ARVADOS_NATS_KEYS_DIR": str(self._keys),
                "ARVADOS_NATS_POSTGRES_DSN": self.database.reader_dsn if dsn is None else dsn,
            },
        )
        self.processes.append(started)
        return started


@asynccontextmanager
async def world(
    database: Database, server: NatsServer, keys_folder: Path
) -> AsyncIterator[EventWorld]:
    """A world over running servers; its publisher processes end with it."""
    seed = keys.load(keys_folder, "publisher").text
    writer, admin = [await asyncpg.connect(database.dsn) for _ in range(2)]
    try:
        async with nats_client.connect([server.url], name="test", seed=seed) as nats:
            made = EventWorld(database, server, nats, writer, admin, keys_folder)
            try:
                yield made
            finally:
                for process in made.processes:
                    await process.kill()
    finally:
        for connection in (writer, admin):
            connection.terminate()
