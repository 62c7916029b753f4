# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A cluster with users, shared projects and objects in them, and rows of the logs table about them.

Objects are collections put in by SQL, as a restored database has them: no rows, no NOTIFY. Rows are
what Arvados writes for an update, with the update: two copies of the record, 1.8 kB.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import asyncpg

from bench.crowd.clients import Clients
from sandbox import bulk, raw_rows, sandbox
from sandbox.model.actors import Actor
from sandbox.raw_rows import SYSTEM_USER, RawRow, change, new_uuid, row
from sandbox.sandbox import Sandbox

_NAMES = ("uuid", "current_version_uuid", "owner_uuid", "name", "is_trashed", "portable_data_hash")
_UPDATE = """
    UPDATE collections SET modified_at = given.at, updated_at = given.at
    FROM unnest($1::varchar[], $2::timestamp[]) AS given(changed, at) WHERE uuid = given.changed
"""
READERS = (2, 5, 10, 20)
"""Users that projects are shared with, in turn: 10 to 100 sockets when each user has five."""


@dataclass(frozen=True, slots=True)
class Target:
    """One object, and the numbers of the users who may read it."""

    record: dict[str, Any]
    readers: tuple[int, ...]

    @property
    def uuid(self) -> str:
        return str(self.record["uuid"])

    def changed(self, now: datetime) -> RawRow:
        """The row of an update of it, which is to be written with it."""
        before = dict(self.record)
        self.record["modified_at"] = f"{now.isoformat(timespec='microseconds')}000Z"
        return row(
            self.uuid,
            properties=change(before, self.record),
            object_owner_uuid=self.record["owner_uuid"],
        )


@dataclass(slots=True)
class World:
    """Who there is, and what happens."""

    sandbox: Sandbox
    writer: asyncpg.Connection
    users: list[Actor]
    shared: list[Target] = field(default_factory=list)
    """Objects in shared projects."""
    private: list[Target] = field(default_factory=list)
    """One object in each user's home: its readers are that user's sockets."""

    async def commit(self, targets: Sequence[Target]) -> list[tuple[int, Target, float]]:
        """One transaction that updates each target: (row id, target, moment of COMMIT)."""
        began = raw_rows.utc_now()
        times = [began + timedelta(microseconds=place) for place in range(len(targets))]
        rows = [target.changed(at) for target, at in zip(targets, times, strict=True)]
        last = {target.uuid: at for target, at in zip(targets, times, strict=True)}
        async with self.writer.transaction():
            await self.writer.execute(_UPDATE, [*last], [*last.values()])
            ids = await raw_rows.insert(self.writer, rows)
        now = time.monotonic()
        return [(id_, target, now) for id_, target in zip(ids, targets, strict=True)]

    async def stream(
        self, targets: Sequence[Target], rate: float, count: int
    ) -> list[tuple[int, Target, float]]:
        """`count` rows, one a transaction, at so many a second, about these targets in turn."""
        written: list[tuple[int, Target, float]] = []
        began = time.monotonic()
        for number, target in zip(range(count), itertools.cycle(targets), strict=False):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            written += await self.commit([target])
        return written


@asynccontextmanager
async def world(users: int = 200, projects: int = 20, each: int = 1) -> AsyncIterator[World]:
    """A sandbox with users, projects shared with some of them, and `each` objects per project."""
    async with sandbox.run() as running:
        writer = await asyncpg.connect(running.database.dsn)
        made = World(running, writer, await bulk.users(running.cluster, users))
        try:
            await _populate(made, projects, each)
            yield made
        finally:
            await writer.close()


async def _populate(made: World, projects: int, each: int) -> None:
    cluster, count = made.sandbox.cluster, len(made.users)
    for number in range(projects):
        wanted = READERS[number % len(READERS)]
        readers = tuple(sorted((number * 7 + 11 * place) % count for place in range(wanted)))
        async with cluster.transaction() as transaction:
            project = await transaction.project(f"project {number}", owner=cluster.root)
            role = await transaction.role(f"role {number}", *(made.users[n] for n in readers))
            await transaction.share(project, role)
        made.shared += [Target(record(project.uuid), readers) for _ in range(each)]
    made.private += [Target(record(user.uuid), (n,)) for n, user in enumerate(made.users)]
    await insert(made.writer, [target.record for target in (*made.shared, *made.private)])
    await made.writer.execute("ANALYZE")


async def share(made: World, readers: tuple[int, ...]) -> Target:
    """A new object in a project that these users can read by links of their own."""
    cluster = made.sandbox.cluster
    project = await cluster.project(f"for {len(readers)} readers", owner=cluster.root)
    for number in readers:
        await cluster.share(project, made.users[number])
    target = Target(record(project.uuid), readers)
    await insert(made.writer, [target.record])
    return target


def v0_paths(tokens: Sequence[str]) -> list[str]:
    """What a v0 client asks for, by token."""
    return [f"/websocket?api_token={quote(token)}" for token in tokens]


async def open_v0(clients: Clients, address: tuple[str, int], tokens: Sequence[str]) -> None:
    """A v0 client for each token, subscribed to everything."""
    await clients.open(address, v0_paths(tokens))
    await clients.send([b'{"method":"subscribe"}'])
    heard = await clients.until(len(tokens))
    if len(heard.times) < len(tokens):
        raise ConnectionError(f"{len(heard.times)} answers of {len(tokens)}")


async def more(made: World, count: int) -> list[Target]:
    """New objects in the shared projects, in turn, which no row has been about."""
    places = [made.shared[number % len(made.shared)] for number in range(count)]
    targets = [Target(record(place.record["owner_uuid"]), place.readers) for place in places]
    await insert(made.writer, [target.record for target in targets])
    return targets


def record(owner_uuid: str) -> dict[str, Any]:
    """A collection; about 800 bytes as JSON, as a small object of Arvados has."""
    uuid = new_uuid("4zz18")
    return {
        "uuid": uuid,
        "current_version_uuid": uuid,
        "version": 1,
        "owner_uuid": owner_uuid,
        "modified_at": None,
        "name": uuid,
        "is_trashed": False,
        "portable_data_hash": "d41d8cd98f00b204e9800998ecf8427e+0",
        "file_count": 0,
        "file_size_total": 0,
        "properties": {"note": "x" * 300},
        "description": "y" * 300,
    }


async def insert(writer: asyncpg.Connection, records: Sequence[dict[str, Any]]) -> None:
    now = raw_rows.utc_now()
    await writer.copy_records_to_table(
        "collections",
        columns=[
            *_NAMES,
            *("created_at", "updated_at", "modified_at", "modified_by_user_uuid"),
        ],
        records=[(*(one[name] for name in _NAMES), now, now, now, SYSTEM_USER) for one in records],
    )
