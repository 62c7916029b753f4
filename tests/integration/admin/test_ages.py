# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Releases of Arvados: what each one's tables are, and what we say of what they lack."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import asyncpg
import pytest

from arvados_nats.arvados import client as arvados_client
from arvados_nats.arvados.identities import Identities
from arvados_nats.arvados.tokens import Token
from arvados_nats.errors import Refused, Unavailable
from arvados_nats.nats.client import Nats
from arvados_nats.permission_client.own_tokens import OwnTokens
from arvados_nats.postgres import arvados_tables
from arvados_nats.postgres.arvados_tables import REFRESHES_AT
from arvados_nats.service.ops import Health
from authcallout.settings import Settings as CalloutSettings
from publishers.container_logs import served
from publishers.permissions import token_query
from publishers.permissions.token_query import TokenQuery
from publishers.postgres import database as postgres
from publishers.retry import Attempts
from publishers.settings import Settings as PublisherSettings
from sandbox import ages
from sandbox.api import calls
from sandbox.api.app import ApiApp
from sandbox.cluster import open_cluster
from sandbox.model.config import ClusterConfig
from sandbox.raw_rows import utc_now
from sandbox.servers import api_server
from sandbox.servers.postgres import Database, PostgresServer
from tests.support.waiting import until
from wsproxy.settings import Settings as ProxySettings

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "golden" / "schemas.json").read_text(encoding="utf-8")
)
AGES = {
    "2.5": "2.5.0",
    "2.6": "2.6.3",
    "2.7": "2.7.4",
    "3.0": "3.0.0",
    "3.1": "3.1.2",
    "3.2": "3.2.1",
}
_COLUMNS = """
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type FROM pg_attribute AS a
WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped
"""


def recorded(release: str) -> dict[str, dict[str, str]]:
    """Table -> column -> type, of a release as it was recorded."""
    found: dict[str, dict[str, str]] = {}
    differences = RECORDED["older"].get(release, {})
    for table, columns in RECORDED["3.2.1"].items():
        differs = differences.get(table, {})
        lacks = differs.get("lacks", ())
        kept = {name: kind for name, kind in columns.items() if name not in lacks}
        found[table] = kept | differs.get("types", {})
    return found


@pytest.fixture(params=AGES)
async def aged(
    request: pytest.FixtureRequest, postgres_server: PostgresServer
) -> AsyncIterator[tuple[str, Database]]:
    """An age, and a database of it."""
    database = await postgres_server.clone(age=request.param)
    yield request.param, database
    await postgres_server.drop(database)


async def look(dsn: str) -> arvados_tables.Found:
    """What `arvados_tables.LOOK` shows there."""
    connection = await asyncpg.connect(dsn)
    try:
        row = await connection.fetchrow(arvados_tables.LOOK, *arvados_tables.LOOK_ARGUMENTS)
        assert row
        return arvados_tables.found(dict(row))
    finally:
        await connection.close()


async def execute(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def test_every_age_is_a_recorded_release() -> None:
    """No age is played that nobody has seen."""
    assert tuple(AGES) == ages.AGES


async def test_an_age_has_the_columns_of_its_release(aged: tuple[str, Database]) -> None:
    """Of every table that we read: names and types, no more and no fewer."""
    age, database = aged
    connection = await asyncpg.connect(database.dsn)
    for table, columns in recorded(AGES[age]).items():
        found = {row["name"]: row["type"] for row in await connection.fetch(_COLUMNS, table)}
        assert found == columns, table
    await connection.close()


async def test_a_migration_ends_where_a_new_database_begins(
    postgres_server: PostgresServer,
) -> None:
    """2.6 made 3.2 step by step has the columns of 3.2, and our role may read them."""
    database = await postgres_server.clone(age=ages.AGES[0])
    async with open_cluster(database.dsn, ClusterConfig(release=ages.AGES[0])) as cluster:
        for age in ages.AGES[1:]:
            await cluster.migrate(age)
    connection = await asyncpg.connect(database.dsn)
    for table, columns in recorded("3.2.1").items():
        found = {row["name"]: row["type"] for row in await connection.fetch(_COLUMNS, table)}
        assert found == columns, table
    await connection.close()
    assert not arvados_tables.lacks(await look(database.reader_dsn))
    await postgres_server.drop(database)


async def test_no_supported_release_lacks_anything(aged: tuple[str, Database]) -> None:
    """What an older one does not have is told as supported, with what is different there."""
    age, database = aged
    found = await look(database.reader_dsn)
    assert arvados_tables.lacks(found) == []
    older = arvados_tables.older(found)
    assert len(older) == {"3.1": 1, "3.2": 0}.get(age, 2)
    assert age >= "3.1" or older[1].startswith(
        "api_client_authorizations.refreshes_at is not there: Arvados older than 3.1, supported; "
    )


async def test_the_documented_grants_work_on_every_release(aged: tuple[str, Database]) -> None:
    """Line by line, as psql runs them: those for newer releases fail by themselves alone."""
    _, database = aged
    connection = await asyncpg.connect(database.dsn)
    await connection.execute(f"DROP OWNED BY {arvados_tables.ROLE}")
    before = arvados_tables.lacks(await look(database.reader_dsn))
    assert len(before) == len(arvados_tables.TABLES)
    assert all(" is not granted to arvados_nats (" in text for text in before)
    for line in arvados_tables.grants():
        with contextlib.suppress(asyncpg.UndefinedColumnError):
            await connection.execute(line.partition(" -- ")[0])
    await connection.close()
    assert arvados_tables.lacks(await look(database.reader_dsn)) == []


REVOKED = [
    # what is done to the database, what is said
    (
        "REVOKE SELECT (gateway_address) ON containers FROM arvados_nats",
        "containers.gateway_address is not granted to arvados_nats (events, container logs, the"
        " queue need it): run GRANT SELECT (gateway_address) ON containers TO arvados_nats",
    ),
    (
        "REVOKE SELECT (refreshes_at) ON api_client_authorizations FROM arvados_nats",
        "api_client_authorizations.refreshes_at is not granted to arvados_nats (events, tokens need"
        " it): run GRANT SELECT (refreshes_at) ON api_client_authorizations TO arvados_nats",
    ),
    (
        "ALTER TABLE containers DROP COLUMN cost",
        "containers.cost is not there (events, container logs, the queue need it):"
        " Arvados 2.5 to 3.2 are supported",
    ),
    (
        "DROP TABLE frozen_groups",
        "table frozen_groups is not there (permissions need it): Arvados 2.5 to 3.2 are supported",
    ),
    (
        "REVOKE USAGE ON SCHEMA public FROM PUBLIC",
        "no table of Arvados is there: give the name of Arvados' database in postgres_dsn, or run"
        " GRANT USAGE ON SCHEMA public TO arvados_nats",
    ),
    (
        "REVOKE EXECUTE ON FUNCTION hashtextextended(text, bigint) FROM PUBLIC",
        "function hashtextextended(text,bigint) is not there or not granted to arvados_nats: run"
        " GRANT EXECUTE ON FUNCTION pg_catalog.hashtextextended(text,bigint) TO arvados_nats",
    ),
]


@pytest.mark.parametrize(("statement", "text"), REVOKED)
async def test_what_is_missing_is_named_with_what_mends_it(
    database: Database, statement: str, text: str
) -> None:
    """One lack, one text."""
    await execute(database.dsn, statement)
    assert arvados_tables.lacks(await look(database.reader_dsn)) == [text]


def test_an_old_server_is_named() -> None:
    """PostgreSQL 10 lacks the function, and more: only its age is told."""
    found = arvados_tables.Found(server="10.23", server_number=100023)
    assert arvados_tables.lacks(found) == ["PostgreSQL 10.23 is too old: 11 to 17 are supported"]


async def test_a_statement_that_is_refused_says_what_it_lacks(database: Database) -> None:
    """Not the name of a setting, nor PostgreSQL's words, which name no column; and it is a fault
    that passes, no end."""
    async with postgres.connect(database.reader_dsn) as pool:
        query = TokenQuery(pool)
        await query.digest([])
        await execute(
            database.dsn, "REVOKE SELECT (scopes) ON api_client_authorizations FROM arvados_nats"
        )
        with pytest.raises(Unavailable, match=r"api_client_authorizations.scopes .*run GRANT"):
            await query.digest([])
        await execute(
            database.dsn, "GRANT SELECT (scopes) ON api_client_authorizations TO arvados_nats"
        )
        await query.digest([])


async def test_queries_follow_an_upgrade_and_a_downgrade(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of another cluster's token is seen before, between and after, by one process."""
    monkeypatch.setattr("publishers.postgres.columns.FRESH", 0.0)
    database = await postgres_server.clone(age="3.0")
    config = ClusterConfig(release="3.0")
    async with (
        open_cluster(database.dsn, config) as cluster,
        postgres.connect(database.reader_dsn) as pool,
    ):
        query = TokenQuery(pool)
        user = await cluster.foreign_token(await cluster.user("abroad"), lives=3600)
        uuid = str(user.token_uuid)

        async def times() -> tuple[bool, bool]:
            (state,) = (await query.states([uuid])).tokens
            return state.expires_at is not None, state.refreshes_at is not None

        assert await times() == (False, True)
        await cluster.migrate("3.1")
        assert await times() == (True, False)
        column = "api_client_authorizations"
        await execute(
            database.dsn, f"UPDATE {column} SET refreshes_at = expires_at WHERE uuid = '{uuid}'"
        )
        assert await times() == (True, True)
        await execute(database.dsn, f"ALTER TABLE {column} DROP COLUMN refreshes_at")
        assert await times() == (False, True)
    await postgres_server.drop(database)


async def test_the_group_that_a_database_began_with_says_whose_it_is(
    postgres_server: PostgresServer,
) -> None:
    """Before 3.1: tokens of this cluster end, whatever was named like its first group later."""
    database = await postgres_server.clone(age="3.0")
    config = ClusterConfig(cluster_id="aaaaa", release="3.0")
    async with (
        open_cluster(database.dsn, config) as cluster,
        postgres.connect(database.reader_dsn) as pool,
    ):
        end = utc_now() + timedelta(hours=1)
        here = await cluster.token(await cluster.user("here"), expires_at=end)
        own = str(here.token_uuid)
        abroad = await cluster.foreign_token(await cluster.user("abroad"), lives=3600)
        await execute(
            database.dsn,
            "INSERT INTO groups SELECT (jsonb_populate_record(g, jsonb_build_object('id', 9999999,"
            " 'uuid', 'zzzzz' || right(uuid, 22), 'owner_uuid', 'zzzzz' || right(owner_uuid, 22),"
            " 'created_at', now()))).* FROM groups AS g WHERE uuid = 'aaaaa-j7d0g-000000000000000'",
        )
        found = {
            state.token_uuid: (state.expires_at is not None, state.refreshes_at is not None)
            for state in (await TokenQuery(pool).states([own, str(abroad.token_uuid)])).tokens
        }
        assert found == {own: (True, False), str(abroad.token_uuid): (False, True)}
    await postgres_server.drop(database)


async def test_what_an_upgrade_brings_is_not_overlooked_for_want_of_a_grant(
    postgres_server: PostgresServer,
) -> None:
    """A column that is there and not readable is complained of: it is not taken for missing."""
    database = await postgres_server.clone(age="3.0")
    async with postgres.connect(database.reader_dsn) as pool:
        await TokenQuery(pool).digest([])
        add = "ALTER TABLE api_client_authorizations ADD COLUMN refreshes_at timestamp"
        await execute(database.dsn, add)
        assert (await pool.columns.found(fresh=0)).has(REFRESHES_AT)
        with pytest.raises(Unavailable, match=r"refreshes_at is not granted .*run GRANT"):
            await TokenQuery(pool).digest([])
    await postgres_server.drop(database)


async def test_health_tells_what_is_missing_until_it_is_there(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name, without anybody having asked for it."""
    monkeypatch.setattr("publishers.postgres.columns._EVERY", 0.05)
    monkeypatch.setattr("publishers.postgres.columns.FRESH", 0.0)
    await execute(database.dsn, "REVOKE SELECT (name) ON links FROM arvados_nats")
    health = Health()
    async with postgres.connect(database.reader_dsn) as pool:
        following = asyncio.create_task(pool.columns.follow(health))
        await until(lambda: "links.name is not granted" in (health.error or ""), "told")
        await execute(database.dsn, "GRANT SELECT (name) ON links TO arvados_nats")
        await until(lambda: health.error is None, "well")
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following


def test_a_stale_token_counts_as_long_as_an_answer_of_arvados() -> None:
    """Both bound for how long nobody has to have asked."""
    from arvados_nats.arvados.identities import Lifetimes

    assert token_query.GRACE == Lifetimes().stale


async def test_the_pretend_controller_exports_what_a_real_one_does(
    postgres_server: PostgresServer,
) -> None:
    """Of the settings that decide who reads what it exports none (V3)."""
    database = await postgres_server.clone()
    async with open_cluster(database.dsn) as cluster:
        backend = await calls.backend(cluster)
        async with (
            api_server.run(ApiApp(backend)) as api,
            arvados_client.connect(api.url) as arvados,
        ):
            exported = await arvados.exported_config()
    kept = {"RoleGroupsVisibleToAll", "ActivatedUsersAreVisibleToOthers"}
    assert not kept & exported["Users"].keys()
    assert "AuditLogs" not in exported
    assert "AsyncPermissionsUpdateInterval" not in exported["API"]
    await postgres_server.drop(database)


async def test_container_logs_wait_for_a_release_that_serves_them(
    postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Told once, by name, and well; the upgrade is noticed."""
    database = await postgres_server.clone(age="2.6")
    async with open_cluster(database.dsn, ClusterConfig(release="2.6")) as cluster:
        backend = await calls.backend(cluster)
        async with (
            api_server.run(ApiApp(backend)) as api,
            arvados_client.connect(api.url) as arvados,
        ):
            health = Health()
            waiting = asyncio.create_task(served.until_served(arvados, health, every=0.05))
            discovery = "GET /discovery"
            await until(lambda: backend.faults.count(discovery) > 3, "it goes on looking")
            assert not waiting.done()
            assert health.error is None
            assert caplog.text.count("container logs are not read") == 1
            await cluster.migrate("2.7")
            await until(waiting.done, "container logs begin")
    await postgres_server.drop(database)


async def test_a_scoped_token_before_2_7_is_told_why_it_is_refused(
    postgres_server: PostgresServer,
) -> None:
    """Such a release says nothing about it, not even to its holder."""
    database = await postgres_server.clone(age="2.6")
    async with open_cluster(database.dsn, ClusterConfig(release="2.6")) as cluster:
        backend = await calls.backend(cluster)
        scoped = await cluster.token(await cluster.user("narrow"), scopes=["GET /arvados/v1/users"])

        async def a_peer() -> str:
            return "bbbbb"  # of whose tokens no publisher is asked

        async with (
            api_server.run(ApiApp(backend)) as api,
            arvados_client.connect(api.url) as arvados,
        ):
            own = OwnTokens(a_peer, cast(Nats, None))
            with pytest.raises(Refused, match=r"2\.7 tells nothing about a scoped"):
                await Identities(arvados, own).of(Token(scoped.token))
    await postgres_server.drop(database)


async def test_a_part_that_fails_right_after_it_began_tries_ever_more_slowly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As with Arvados 2.4, whose first event of a container stopped all: 161 lines in 15 s."""
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("publishers.retry.asyncio", SimpleNamespace(sleep=pause))
    attempts = Attempts(Health(), "events")
    for _ in range(10):
        attempts.succeeded()
        await attempts.failed(Unavailable("containers.cost is not there"))
    assert max(pauses) >= 1.0
    assert min(pauses[6:]) >= 1.0


def test_one_replica_of_each_service_leaves_the_api_server_to_users() -> None:
    """A controller hands it 8 requests at a time (V2)."""
    publishers = PublisherSettings.model_fields["log_calls"].default
    proxy = 2 * ProxySettings.model_fields["max_calls"].default
    callout = CalloutSettings.model_fields["arvados_calls"].default
    assert publishers + proxy + callout <= 8
