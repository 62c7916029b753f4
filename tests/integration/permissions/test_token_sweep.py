# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Of a million tokens that live only those in use are looked at."""

from __future__ import annotations

import asyncio

import pytest

from publishers.permissions import token_query, token_sweep
from publishers.permissions.token_query import TokenQuery
from publishers.permissions.token_sweep import TokenSweep
from publishers.postgres import database as postgres
from publishers.retry import Attempts
from sandbox.cluster import open_cluster
from sandbox.servers.postgres import Database
from tests.support.waiting import until
from tests.support.worlds.permissions import FAST, PermissionWorld


@pytest.mark.parametrize("template", ["_DIGEST", "_LIVE", "_STATES", "_ROWS_LEFT"])
@pytest.mark.parametrize("rows", ["_ROWS", "_ROWS_BEFORE_3_1"])
async def test_no_query_reads_a_token_that_nobody_named(
    database: Database, template: str, rows: str
) -> None:
    """Whatever the release; the index finds those in use among all that live."""
    async with open_cluster(database.dsn) as cluster:
        alice = await cluster.user("alice")
        await cluster.pool.execute(
            "INSERT INTO api_client_authorizations SELECT (jsonb_populate_record(a,"
            " jsonb_build_object('id', 1000000 + n, 'api_token', 'many' || n,"
            " 'uuid', 'zzzzz-gj3su-' || lpad(n::text, 15, '0')))).*"
            " FROM api_client_authorizations AS a, generate_series(1, 20000) AS n"
            " WHERE a.uuid = $1",
            alice.token_uuid,
        )
        await cluster.pool.execute("ANALYZE api_client_authorizations")
        sql = getattr(token_query, template).format(rows=getattr(token_query, rows), grace=300)
        plan = await cluster.pool.fetch(f"EXPLAIN {sql}", [str(alice.token_uuid)])
    text = "\n".join(line for (line,) in plan)
    assert "index_api_client_authorizations_on_uuid" in text
    assert "Seq Scan on api_client_authorizations" not in text


async def test_a_token_that_nobody_asks_about_is_not_in_use(
    here: PermissionWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever serves its holder asks again and again; else it is forgotten."""
    monkeypatch.setattr(token_sweep, "UNASKED", 0.5)
    alice = await here.cluster.user("alice")
    used, left = await here.cluster.token(alice), await here.cluster.token(alice)
    async with (
        here.publishing(FAST, with_events=False),
        postgres.connect(here.database.reader_dsn) as database,
    ):
        sweep = TokenSweep(here.nats, TokenQuery(database), every=0.1)
        running = asyncio.create_task(sweep.run(Attempts(here.health, "tokens")))
        await here.nats.flush()

        async def asking() -> None:
            while True:
                await here.ask(used)

        await here.ask(left)
        asks = asyncio.create_task(asking())
        await until(lambda: left.token_uuid in sweep.watched, "both are in use")
        await until(lambda: sweep.watched == {used.token_uuid}, "one is, and still")
        for task in (asks, running):
            task.cancel()
        await asyncio.gather(asks, running, return_exceptions=True)
