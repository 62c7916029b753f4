# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL's connections fall silent: sockets stay open on both sides, and nothing comes (P1)."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from arvados_nats.service.ops import Health
from publishers.events import publisher
from publishers.permissions import publisher as permissions
from publishers.postgres import database as postgres
from sandbox.raw_rows import row
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import Database, PostgresServer
from tests.support.fronts import cuttable
from tests.support.fronts.cuttable import Cuttable, Way
from tests.support.waiting import until
from tests.support.worlds.events import QUICK, EventWorld, world

LEADS_AGAIN = 30.0


@pytest.fixture
async def proxy(postgres_server: PostgresServer) -> AsyncIterator[Cuttable]:
    """Stands between the publishers and PostgreSQL."""
    async with cuttable.before("127.0.0.1", postgres_server.port) as proxy:
        yield proxy


@pytest.fixture
async def scene(
    database: Database, fresh_nats: NatsServer, keys_folder: Path
) -> AsyncIterator[EventWorld]:
    """Its writer and admin reach PostgreSQL themselves."""
    async with world(database, fresh_nats, keys_folder) as made:
        yield made


def _through(proxy: Cuttable, server: PostgresServer, dsn: str) -> str:
    return dsn.replace(f":{server.port}/", f":{proxy.port}/")


@pytest.mark.parametrize("way", [Way.BOTH, Way.UP, Way.DOWN])
async def test_publishing_goes_on_when_all_connections_fall_silent(
    scene: EventWorld,
    proxy: Cuttable,
    postgres_server: PostgresServer,
    way: Way,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Within half a minute every row comes, also those written meanwhile; health said so."""
    direct = scene.database
    scene.database = dataclasses.replace(
        direct, reader_dsn=_through(proxy, postgres_server, direct.reader_dsn)
    )
    async with scene.publishing(publisher.Options(scans=QUICK)):
        await scene.insert(warm := row())
        await scene.until_stored([warm])
        caplog.clear()
        proxy.silence(way)
        fell_silent = time.monotonic()
        rows = [row() for _ in range(20)]
        await scene.insert(*rows)

        async def all_there() -> bool:
            return len(set(await scene.stored_uuids())) == 21

        await until(all_there, "all rows", LEADS_AGAIN)
        told = [getattr(record, "action", "") for record in caplog.records]
        assert "ops.degraded" in told, "health said nothing"
        assert time.monotonic() - fell_silent < LEADS_AGAIN
    assert len(await scene.stored_uuids()) == 21


async def test_another_replica_leads_when_the_leader_is_gone_without_a_word(
    scene: EventWorld, proxy: Cuttable, postgres_server: PostgresServer
) -> None:
    """The machine of the leader loses its power: the one that stands by says that nobody leads,
    and takes over within half a minute."""
    dsn = _through(proxy, postgres_server, scene.database.reader_dsn)
    options = publisher.Options(scans=QUICK)
    async with postgres.connect(dsn) as far, postgres.connect(scene.database.reader_dsn) as near:
        first = asyncio.create_task(publisher.run(scene.nats, far, Health(), options))
        await until(scene._leads, "the first leads")
        health = Health()
        second = asyncio.create_task(publisher.run(scene.nats, near, health, options))

        async def well() -> bool:
            return not health.faults

        await until(well, "the second stands by")
        proxy.silence()
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first

        async def says_so() -> bool:
            return "nobody leads" in (health.error or "")

        await until(says_so, "the second says that nobody leads")
        await scene.insert(one := row())
        await scene.until_stored([one], within=LEADS_AGAIN)
        await until(well, "the second is well")
        second.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await second


async def test_two_installations_beside_one_database_both_publish(
    scene: EventWorld,
    nats_server: NatsServer,
    database: Database,
    keys_folder: Path,
) -> None:
    """Each leads its own NATS, though the keys and the database are the same (O7)."""
    async with scene.publishing(), world(database, nats_server, keys_folder) as other:
        async with other.publishing():
            await scene.insert(one := row())
            await scene.until_stored([one])
            await other.until_stored([one])


async def test_the_permission_publisher_looks_for_dead_tokens_again_soon(
    scene: EventWorld, proxy: Cuttable, postgres_server: PostgresServer
) -> None:
    """A statement that waits on a silent connection is given up with the session."""
    dsn = _through(proxy, postgres_server, scene.database.reader_dsn)
    health, options = Health(), permissions.Options(role_groups_visible=True, sweep=0.5)
    async with postgres.connect(dsn) as database:
        task = asyncio.create_task(permissions.run(scene.nats, database, health, options))

        async def well() -> bool:
            return not health.faults

        async def ill() -> bool:
            return bool(health.faults)

        await until(well, "it leads")
        proxy.silence()
        await until(ill, "it says that PostgreSQL is silent", LEADS_AGAIN)
        await until(well, "it looks again", LEADS_AGAIN)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_several_hosts_each_have_a_time_of_their_own(
    database: Database, postgres_server: PostgresServer
) -> None:
    """The first one drops what is sent to it; the second one answers, and is asked first from
    then on (P2)."""
    async with cuttable.before("127.0.0.1", postgres_server.port) as dead:
        dead.closed = True
        hosts = f"127.0.0.1:{dead.port},127.0.0.1:{postgres_server.port}"
        dsn = database.reader_dsn.replace(f"127.0.0.1:{postgres_server.port}", hosts)
        async with postgres.connect(dsn) as edge:
            assert await edge.fetch_value("SELECT 1") == 1
            asked = dead.connections
            async with edge.session() as session:
                assert await session.try_lock(1)
            assert dead.connections == asked


async def test_a_session_that_nobody_asks_anything_is_ended(database: Database) -> None:
    """PostgreSQL knows by itself when to give up; the pool's connections are asked as well."""
    admin = await asyncpg.connect(database.dsn)
    async with postgres.connect(database.reader_dsn) as edge, edge.session():
        shown = await edge.fetch_value("SELECT current_setting('tcp_user_timeout')")
        assert shown == "20000"
        if admin.get_server_version().major >= 14:
            assert await edge.fetch_value("SELECT current_setting('idle_session_timeout')") == "0"
    await admin.close()
