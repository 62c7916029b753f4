# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Arvados is upgraded under running services: 3.0 becomes 3.1 becomes 3.2 while rows are written
and sockets read (the long form by ARVADOS_NATS_TEST_MIGRATION_SECONDS, of each release)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import AsyncIterator

import asyncpg
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from sandbox import raw_rows
from sandbox.model.actors import Actor
from sandbox.model.records import Record
from sandbox.sandbox import Sandbox
from sandbox.servers import backends
from sandbox.servers.postgres import PostgresServer
from sandbox.stack import Stack
from tests.support.waiting import until
from tests.support.worlds import aged

SOCKETS, PER_SECOND = 100, 50
SECONDS = float(os.environ.get("ARVADOS_NATS_TEST_MIGRATION_SECONDS", "4"))
_UUID = re.compile(r'"uuid":"([^"]+-57u5n-[^"]+)"')


@pytest.fixture
async def stack(
    backend: backends.Backend, postgres_server: PostgresServer, sandbox: Sandbox
) -> AsyncIterator[Stack]:
    """Everything beside Arvados 3.0, with a NATS server of its own."""
    async with (
        backends.run_nats(backend, sandbox.keys_folder, websocket=True) as nats,
        aged.beside("3.0", postgres_server, nats, sandbox) as running,
    ):
        yield running


class Crowd:
    """Sockets of one reader each, and how often each of them was shown each row."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.shown: list[Counter[str]] = []
        self.subscribed = 0
        self.closed = 0

    async def read(self, user: Actor) -> None:
        """One socket, until it is closed."""
        rows: Counter[str] = Counter()
        self.shown.append(rows)
        url = f"{self._stack.websocket_url}?api_token={user.token}"
        async with connect(url, compression=None) as socket:
            await socket.send(json.dumps({"method": "subscribe"}))
            with contextlib.suppress(ConnectionClosed):
                async for frame in socket:
                    if found := _UUID.search(str(frame)):
                        rows[found[1]] += 1
                    elif "200" in str(frame):
                        self.subscribed += 1
        self.closed += 1


async def _write(stack: Stack, object_uuid: str, written: list[str], stop: asyncio.Event) -> None:
    """Rows as the API server logs them, at a pace, whatever else the database does."""
    connection = await asyncpg.connect(stack.sandbox.database.dsn)
    started = time.monotonic()
    while not stop.is_set():
        row = raw_rows.row(object_uuid)
        await raw_rows.insert(connection, [row])
        written.append(str(row.uuid))
        due = started + len(written) / PER_SECOND
        await asyncio.sleep(max(due - time.monotonic(), 0))
    await connection.close()


@pytest.mark.timeout(240 + 8 * SECONDS)  # with the stack that it starts and ends
async def test_an_upgrade_under_load_loses_and_doubles_nothing(stack: Stack) -> None:
    """Each socket is shown each row once; a token's end is seen on each release."""
    cluster = stack.sandbox.cluster
    owner = await cluster.user("owner")
    project = await cluster.project("busy", owner=owner)
    users = [await cluster.user(f"reader{number}") for number in range(10)]
    for user in users:
        await cluster.share(project, user)
    busy = await cluster.collection("busy", owner=project, by=owner)
    crowd, written, stop = Crowd(stack), list[str](), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        readers = [
            tasks.create_task(crowd.read(users[number % len(users)])) for number in range(SOCKETS)
        ]
        await until(lambda: crowd.subscribed == SOCKETS, "all have subscribed", 30)
        writing = tasks.create_task(_write(stack, busy.uuid, written, stop))
        for release in ("3.1", "3.2"):
            await asyncio.sleep(SECONDS)
            await cluster.migrate(release)
            await _an_end_is_seen(stack, project)
        await asyncio.sleep(SECONDS)
        stop.set()
        await writing
        everything = set(written)
        await until(lambda: all(everything <= rows.keys() for rows in crowd.shown), "shown", 60)
        assert crowd.closed == 0
        for task in readers:
            task.cancel()
    lost = sum(len(everything - rows.keys()) for rows in crowd.shown)
    doubled = sum(rows[uuid] > 1 for rows in crowd.shown for uuid in everything)
    print(f"{len(written)} rows, {SOCKETS} sockets: {lost} lost, {doubled} doubled")  # noqa: T201
    assert (lost, doubled) == (0, 0)


async def _an_end_is_seen(stack: Stack, project: Record) -> None:
    """Another cluster no longer knows a token, by the column that this release has for it."""
    cluster = stack.sandbox.cluster
    foreign = await cluster.foreign_token(await cluster.user("abroad"), lives=3600)
    await cluster.share(project, foreign)
    crowd = Crowd(stack)
    reading = asyncio.create_task(crowd.read(foreign))
    await until(lambda: any(crowd.shown), "it is let in")  # an answer to its commands is no proof
    await cluster.pool.execute(
        "UPDATE api_client_authorizations SET refreshes_at = clock_timestamp() AT TIME ZONE 'UTC'"
        " WHERE uuid = $1",
        foreign.token_uuid,
    )
    await until(lambda: crowd.closed == 1, "its socket is closed", 20)
    await reading
