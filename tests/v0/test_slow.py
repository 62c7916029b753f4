# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Slow readers: they lose nothing, cost little memory, and hold up nobody else."""

from __future__ import annotations

import asyncio
import json
import random
import socket as sockets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from websockets.exceptions import ConnectionClosed

from sandbox import raw_rows
from sandbox.model.actors import Actor
from sandbox.raw_rows import RawRow
from tests.support.clients.v0 import Client, client, settled
from tests.support.worlds import site as sites
from tests.support.worlds.site import Site
from wsproxy.services import Services
from wsproxy.transport.send_buffer import HIGH_WATER

SHOTS = [["event_type", "in", ["shot"]]]
_SMALL = 4096


@pytest.fixture
async def writer(site: Site) -> AsyncIterator[asyncpg.Connection]:
    """A connection that writes rows."""
    connection = await asyncpg.connect(site.database.dsn)
    yield connection
    await connection.close()


@asynccontextmanager
async def deaf_client(url: str, token: str) -> AsyncIterator[Client]:
    """A client with small buffers that reads only when it is told to."""
    host, _, port = url.removeprefix("ws://").partition("/")[0].partition(":")
    sock = sockets.socket()
    sock.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, _SMALL)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
    async with client(url, token, sock=sock, max_queue=1) as opened:
        yield opened


def shots(collection: str, count: int, size: int = 2000) -> list[RawRow]:
    """Rows that come to about `size` bytes each on the wire."""
    text = json.dumps({"text": "x" * size})
    return [raw_rows.row(collection, event_type="shot", properties=text) for _ in range(count)]


@pytest.mark.ours("looks inside wsproxy")
async def test_a_slow_reader_gets_everything_in_order_and_costs_little(
    site: Site, active: Actor, writer: asyncpg.Connection
) -> None:
    """It goes back to the stream; the process keeps its high-water mark for it, not the backlog."""
    collection = await site.cluster.collection("busy", owner=active)
    await settled(site.websocket_url, site.api.url, active)
    seen_services: list[Services] = []
    chosen = sites.settings(site)
    wanted: list[str] = []
    async with (
        sites.serving(chosen, seen_services.append) as base,
        deaf_client(f"{base}/websocket", active.token) as slow,
        client(f"{base}/websocket", active.token) as quick,
    ):
        await slow.subscribe(SHOTS)
        await quick.subscribe(SHOTS)
        slowest = 0.0
        for _ in range(40):
            rows = shots(collection.uuid, 100)
            await raw_rows.insert(writer, rows)
            wanted += [str(row.uuid) for row in rows]
            begun = time.monotonic()
            for row in rows:
                assert (await quick.event())["uuid"] == row.uuid
            slowest = max(slowest, time.monotonic() - begun)
        (shared,) = seen_services
        most = max(send_buffer.pending for send_buffer in shared.transport.send_buffers)
        assert most < 2 * HIGH_WATER + 3 * 2500, "what waits for a slow reader is bounded"
        assert slowest < 10, "a slow reader does not delay others"
        assert [(await slow.event())["uuid"] for _ in wanted] == wanted
        late = shots(collection.uuid, 1)
        await raw_rows.insert(writer, late)
        assert (await slow.event())["uuid"] == late[0].uuid
        await slow.silent(0.2)


@pytest.mark.ours("looks inside wsproxy")
async def test_replay_of_more_than_memory_holds_comes_whole(
    site: Site, active: Actor, writer: asyncpg.Connection
) -> None:
    """Old events are read from the stream in blocks, at the reader's pace."""
    collection = await site.cluster.collection("long", owner=active)
    await settled(site.websocket_url, site.api.url, active)
    (start,) = await raw_rows.insert(writer, [raw_rows.row(collection.uuid)])
    wanted: list[str] = []
    for _ in range(6):
        rows = shots(collection.uuid, 500, size=10)
        await raw_rows.insert(writer, rows)
        wanted += [str(row.uuid) for row in rows]
    await settled(site.websocket_url, site.api.url, active)
    chosen = sites.settings(site)
    async with (
        sites.serving(chosen) as base,
        client(f"{base}/websocket", active.token) as reader,
    ):
        await reader.subscribe(SHOTS, last_log_id=start)
        assert [(await reader.event())["uuid"] for _ in wanted] == wanted
        late = shots(collection.uuid, 1)
        await raw_rows.insert(writer, late)
        assert (await reader.event())["uuid"] == late[0].uuid


@pytest.mark.ours("looks inside wsproxy")
async def test_a_peer_that_vanishes_leaves_nothing_behind(
    site: Site, active: Actor, writer: asyncpg.Connection
) -> None:
    """Whatever its session was doing: no task, no send buffer, no place in the index."""
    collection = await site.cluster.collection("busy", owner=active)
    await settled(site.websocket_url, site.api.url, active)
    (start,) = await raw_rows.insert(writer, [raw_rows.row(collection.uuid)])
    await raw_rows.insert(writer, shots(collection.uuid, 300))
    seen_services: list[Services] = []
    chosen = sites.settings(site)
    async with sites.serving(chosen, seen_services.append) as base:
        (shared,) = seen_services
        before = len(asyncio.all_tasks())
        for number in range(40):
            async with deaf_client(f"{base}/websocket", active.token) as gone:
                if number % 4:
                    await gone.send({"method": "subscribe", "last_log_id": start})
                if number % 2:
                    await gone.status()
                gone.socket.transport.abort()
        async with asyncio.timeout(60):
            tally = shared.transport.tally
            while tally.known or tally.unknown or len(asyncio.all_tasks()) > before:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (len(shared.transport.send_buffers), len(shared.transport.connections)) == (0, 0)
        assert shared.logins.sessions_of(active.uuid) == 0


@pytest.mark.ours("arvados-ws cuts quick readers as well")
async def test_many_events_and_subscribers(
    site: Site, active: Actor, writer: asyncpg.Connection
) -> None:
    """100 clients, a tenth of them slow, the others coming and going: there is always delivery."""
    collection = await site.cluster.collection("busy", owner=active)
    await settled(site.websocket_url, site.api.url, active)
    url, seconds = site.websocket_url, 5
    delivered = [0] * (seconds + 2)
    begun = time.monotonic()

    async def reads(slow: bool) -> None:
        while True:
            async with client(url, active.token, close_timeout=0.1) as reader:
                await reader.subscribe()
                while slow or random.random() > 0.01:
                    await reader.event(30)
                    delivered[min(int(time.monotonic() - begun), seconds + 1)] += 1
                    if slow:
                        await asyncio.sleep(0.05)

    async def read_on(slow: bool) -> None:
        try:
            await reads(slow)
        except ConnectionClosed:
            assert slow, "only a slow reader may be cut"

    readers = [asyncio.create_task(read_on(number % 10 == 0)) for number in range(100)]
    try:
        while time.monotonic() < begun + seconds:
            await raw_rows.insert(writer, shots(collection.uuid, 5, size=10))
            await asyncio.sleep(0.05)
    finally:
        for reader in readers:
            reader.cancel()
        ended: list[Any] = await asyncio.gather(*readers, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError | None) for end in ended), ended
    assert all(delivered[1:seconds]), delivered
