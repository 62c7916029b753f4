# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A pretend cluster with queue publishers beside it, and the bucket as its readers see it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arvados_nats.contract import queue_entries, streams, subjects
from arvados_nats.contract.queue_entries import QueueEntry
from arvados_nats.errors import Unavailable
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Nats
from arvados_nats.service import keys
from arvados_nats.service.ops import Health
from publishers.events import publisher as events
from publishers.postgres import database as postgres
from publishers.queue import publisher as queue
from publishers.queue import table as queue_table
from publishers.queue.publisher import Options
from sandbox.cluster import Cluster, open_cluster
from sandbox.model.actors import Actor
from sandbox.model.records import Record
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import Database
from tests.support.background import background


@dataclass(slots=True)
class QueueWorld:
    """What a test acts on."""

    server: NatsServer
    database: Database
    cluster: Cluster
    nats: Nats
    """A reader's connection."""
    reading: postgres.Database
    keys_folder: Path
    alice: Actor
    health: Health = field(default_factory=Health)

    async def request(self, **given: Any) -> tuple[Record, str]:
        """A container request of alice, and the uuid of its container."""
        request = await self.cluster.container_request(owner=self.alice, **given)
        return request, str(request["container_uuid"])

    async def bucket(self) -> dict[str, bytes]:
        """The values of all keys."""
        found = {}
        async for message in self.nats.history(streams.QUEUE, f"{subjects.QUEUE}.>"):
            if "KV-Operation" not in message.headers:
                found[queue_entries.key(message.subject)] = message.data
        return found

    async def wanted(self) -> dict[str, bytes]:
        """What the database says that they should be."""
        read = await queue_table.read(self.reading, await queue_table.digests(self.reading))
        return {uuid: value for uuid, (_, value) in read.items()}

    async def equal(self) -> bool:
        """Whether the bucket is what the database says."""
        return await self.bucket() == await self.wanted()

    async def entry(self, uuid: str) -> QueueEntry | None:
        """The value of one key."""
        found = await self.nats.last(streams.QUEUE, queue_entries.subject(uuid))
        return queue_entries.decode(found.headers, found.data) if found else None

    @asynccontextmanager
    async def publishing(self, scan: float = 0.2, *, hints: bool = True) -> AsyncIterator[None]:
        """A queue publisher of its own; with `hints`, an event publisher that wakes it."""
        seed = keys.load(self.keys_folder, "publisher").text
        async with (
            nats_client.connect([self.server.url], name="publisher", seed=str(seed)) as nats,
            postgres.connect(self.database.reader_dsn) as database,
        ):
            work = [queue.run(nats, database, self.health, Options(scan=scan))]
            if hints:
                work.append(events.run(nats, database, self.health, events.Options()))
            async with background(*work):
                yield


@asynccontextmanager
async def world(
    database: Database, server: NatsServer, keys_folder: Path
) -> AsyncIterator[QueueWorld]:
    """A world of one test alone."""
    seed = str(keys.load(keys_folder, "publisher").text)
    async with (
        open_cluster(database.dsn) as cluster,
        nats_client.connect([server.url], name="test", seed=seed) as nats,
        postgres.connect(database.reader_dsn) as reading,
    ):
        alice = await cluster.user("alice")
        yield QueueWorld(server, database, cluster, nats, reading, keys_folder, alice)


async def eventually(look: Callable[[], Awaitable[object]], what: str, within: float = 60) -> None:
    """Return as soon as `look` is true."""
    try:
        async with asyncio.timeout(within):
            while True:
                with contextlib.suppress(Unavailable):  # not there yet, or away
                    if await look():
                        return
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {within} s: {what}") from None
