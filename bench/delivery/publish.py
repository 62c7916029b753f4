# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""From PostgreSQL into the stream: rows a second, and the time from commit to stored.

Measured with one real publisher process on an embedded PostgreSQL and NATS server:
`backlog`, rows that were there when the publisher started; `sustained`, rows inserted with NOTIFY
as fast as one connection can, in transactions of 50; `latency`, single rows at a steady rate, from
the return of COMMIT to the arrival here of the message that the stream republishes, and of the one
that users get below arvados.live. Rows carry two copies of an
object as Arvados writes them (1.6 kB of properties); objects exist, so all are looked up.
What it does not show: other load on the database, a network between the servers, and fsync.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from arvados_nats.contract import streams, subjects
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Message, Nats
from arvados_nats.service import keys
from bench import processes
from sandbox import raw_rows
from sandbox.raw_rows import SYSTEM_USER, RawRow, change, new_uuid, row
from sandbox.servers import child, nats_server, postgres

_OBJECTS = 2_000
_TRANSACTION = 50
_SPREAD = timedelta(minutes=5)
_TABLES = ("containers", "container_requests", "collections")
_UPDATE = """
    UPDATE {table} SET modified_at = given.at
    FROM (SELECT changed, max(at) AS at
          FROM unnest($1::varchar[], $2::timestamp[]) AS one(changed, at) GROUP BY 1) AS given
    WHERE uuid = given.changed
"""


@dataclass(frozen=True, slots=True)
class World:
    server: nats_server.NatsServer
    database: postgres.Database
    keys: Path
    nats: Nats
    writer: asyncpg.Connection
    turns: Iterator[dict[str, Any]]
    """The objects, one after the other, for ever."""

    def start_publisher(self, folder: Path, *parts: str) -> child.Child:
        program = Path(sysconfig.get_path("scripts")) / "arvados-nats"
        only = [word for part in ("events", *parts) for word in ("--only", part)]
        return child.start(
            [program, "publishers", "run", *only],
            log=folder / "publisher.log",
            environment={
                "PATH": os.defpath,
                "ARVADOS_NATS_NATS_URL": self.server.url,
                "ARVADOS_NATS_KEYS_DIR": str(self.keys),
                "ARVADOS_NATS_POSTGRES_DSN": self.database.reader_dsn,
            },
        )

    async def stored(self) -> int:
        info = await self.nats.stream_info(streams.EVENTS)
        return info["state"]["messages"] if info else 0

    def changes(self, times: Sequence[datetime]) -> list[RawRow]:
        """An update of one object after the other at each of these times."""
        return [self._change(at) for at in times]

    def _change(self, at: datetime) -> RawRow:
        record = next(self.turns)
        before = dict(record)
        record["modified_at"] = f"{at.isoformat(timespec='microseconds')}000Z"
        properties = change(before, record)
        return row(record["uuid"], properties=properties, created_at=at)

    async def write(self, rows: Sequence[RawRow], *, notify: bool = True) -> None:
        """The updates and their rows in one transaction."""
        async with self.writer.transaction():
            for table in _TABLES:
                changed = [one.object_uuid for one in rows], [one.created_at for one in rows]
                await self.writer.execute(_UPDATE.format(table=table), *changed)
            await raw_rows.insert(self.writer, rows, notify=notify)

    async def write_now(self, count: int) -> list[RawRow]:
        """So many updates in one transaction, and the rows of them."""
        now = raw_rows.utc_now()
        rows = self.changes([now + timedelta(microseconds=place) for place in range(count)])
        await self.write(rows)
        return rows


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory(prefix="arvados-nats-bench-") as name:
        folder = Path(name)
        keys.ensure(folder)
        seed = keys.load(folder, "publisher").text
        async with (
            postgres.run() as database_server,
            nats_server.run(folder) as server,
            nats_client.connect([server.url], name="bench", seed=seed) as nats,
        ):
            database = await database_server.clone()
            writer = await asyncpg.connect(database.dsn)
            objects = await _create_objects(writer)
            yield World(server, database, folder, nats, writer, itertools.cycle(objects))
            await writer.close()


async def _create_objects(writer: asyncpg.Connection) -> list[dict[str, Any]]:
    """Half container requests with a container each, half collections."""
    now = raw_rows.utc_now()
    objects: list[dict[str, Any]] = []
    requests, containers, collections = [], [], []
    for _ in range(_OBJECTS // 4):
        container, request = new_uuid("dz642"), new_uuid("xvhdp")
        containers.append((container, SYSTEM_USER, now, now, now, "Running"))
        requests.append((request, SYSTEM_USER, now, now, now, "Committed", container))
        objects.append(_record(container, state="Running", lock_count=0, runtime_status={}, cost=0))
        counts = {"container_count": 0, "cumulative_cost": 0}
        objects.append(_record(request, state="Committed", container_uuid=container, **counts))
    for _ in range(_OBJECTS // 2):
        collection = new_uuid("4zz18")
        collections.append((collection, SYSTEM_USER, now, now, now, "benchmark", False))
        counts = {"version": 1, "file_count": 0, "file_size_total": 0}
        objects.append(_record(collection, name="benchmark", is_trashed=False, **counts))
    times = ["uuid", "owner_uuid", "created_at", "updated_at", "modified_at"]
    for table, columns, records in (
        ("containers", [*times, "state"], containers),
        ("container_requests", [*times, "state", "container_uuid"], requests),
        ("collections", [*times, "name", "is_trashed"], collections),
    ):
        await writer.copy_records_to_table(table, records=records, columns=columns)
    return objects


def _record(uuid: str, **attributes: Any) -> dict[str, Any]:
    """About 800 bytes, as a small object of Arvados has."""
    return {
        "uuid": uuid,
        "owner_uuid": SYSTEM_USER,
        "modified_at": None,
        **attributes,
        "properties": {"note": "x" * 200},
        "command": ["echo", "y" * 300],
        "mounts": {"/out": {"kind": "tmp", "capacity": 1_000_000}},
    }


async def _until_stored(world: World, count: int) -> float:
    """Wait until the stream has so many messages; the moment it was seen."""
    while True:
        if await world.stored() >= count:
            return time.perf_counter()
        await asyncio.sleep(0.01)


async def backlog(world: World, folder: Path, count: int) -> dict[str, float]:
    """Rows of the last five minutes wait; the time from the first one stored to the last."""
    start = raw_rows.utc_now() - _SPREAD
    step = _SPREAD / count
    for first in range(0, count, 1000):
        times = [start + number * step for number in range(first, min(first + 1000, count))]
        await world.write(world.changes(times), notify=False)
    publisher = world.start_publisher(folder)
    began = await _until_stored(world, 1)
    already, start_cpu = await world.stored(), processes.cpu_seconds(publisher.pid)
    ended = await _until_stored(world, count)
    cpu, left = processes.cpu_seconds(publisher.pid) - start_cpu, max(count - already, 1)
    await publisher.kill()
    return {
        "backlog_rows": count,
        "backlog_rows_per_second": round(left / (ended - began)),
        "backlog_cpu_microseconds_per_row": round(cpu / left * 1e6),
    }


async def _sustained(world: World, folder: Path, count: int) -> dict[str, float]:
    """Rows are inserted in small transactions, each notified, while the publisher runs."""
    publisher = world.start_publisher(folder)
    already = await world.stored()
    await world.write_now(1)
    await _until_stored(world, already + 1)
    transactions = count // _TRANSACTION
    began = time.perf_counter()
    for _ in range(transactions):
        await world.write_now(_TRANSACTION)
    inserted = time.perf_counter()
    ended = await _until_stored(world, already + 1 + transactions * _TRANSACTION)
    await publisher.kill()
    return {
        "sustained_rows_per_second": round(count / (ended - began)),
        "sustained_inserted_per_second": round(count / (inserted - began)),
        "sustained_behind_ms": round((ended - inserted) * 1000, 1),
    }


class _Arrivals:
    """When the message of each row came by, on one branch of subjects."""

    def __init__(self) -> None:
        self.moments: dict[str, float] = {}
        self._news = asyncio.Event()

    async def note(self, message: Message) -> None:
        self.moments.setdefault(message.headers["Nats-Msg-Id"], time.perf_counter())
        self._news.set()

    async def until(self, uuids: Iterable[str | None]) -> None:
        missing = set(uuids)
        while missing - self.moments.keys():
            self._news.clear()
            await self._news.wait()

    def delays(self, committed: dict[str, float]) -> list[float]:
        """In milliseconds, shortest first."""
        return sorted((self.moments[uuid] - then) * 1000 for uuid, then in committed.items())


async def _latency(world: World, folder: Path, count: int, rate: float) -> dict[str, float]:
    """Single rows at `rate` a second: from the return of COMMIT to the message in our hands."""
    publisher = world.start_publisher(folder, "live")
    branches = {"stored": subjects.STORED_EVENTS, "live": subjects.LIVE}
    arrivals = {name: _Arrivals() for name in branches}
    for name, branch in branches.items():
        await world.nats.subscribe(f"{branch}.>", arrivals[name].note)
    await _until_live(world, arrivals["live"])
    committed: dict[str, float] = {}
    began = time.perf_counter()
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        (one,) = await world.write_now(1)
        committed[str(one.uuid)] = time.perf_counter()
    figures: dict[str, float] = {"latency_rate": rate}
    for name, found in arrivals.items():
        await found.until(committed)
        delays = found.delays(committed)
        figures |= {
            f"latency_{name}_p50_ms": round(statistics.median(delays), 2),
            f"latency_{name}_p99_ms": round(delays[int(len(delays) * 0.99)], 2),
            f"latency_{name}_max_ms": round(delays[-1], 2),
        }
    await publisher.kill()
    return figures


async def _until_live(world: World, live: _Arrivals) -> None:
    """Insert rows until one is shown: both parts are at work."""
    while not live.moments:
        await world.write_now(1)
        await asyncio.sleep(0.1)


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    async with world() as made:
        found = await backlog(made, made.keys, options.rows)
        found |= await _sustained(made, made.keys, options.rows)
        found |= await _latency(made, made.keys, options.latency_rows, options.rate)
    return found


SHORT = {"rows": 2000, "latency_rows": 200}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options: rows, latency rows and their rate."""
    parser.add_argument("--rows", type=int, default=20_000, help="of a backlog, and sustained")
    parser.add_argument("--latency-rows", type=int, default=1_000, help="whose delay is measured")
    parser.add_argument("--rate", type=float, default=100.0, help="of those, a second")
