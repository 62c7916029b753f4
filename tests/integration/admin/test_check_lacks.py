# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`check connections` beside a site that lacks one thing: it is named, with what to do."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import asyncpg
import pytest
from click.testing import CliRunner, Result

from arvados_nats.arvados import client as arvados_client
from arvados_nats.cli import main
from arvados_nats.contract import streams
from arvados_nats.errors import Unavailable
from arvados_nats.nats import client as nats_client
from arvados_nats.service.ops import Health
from publishers.permissions import publisher as permissions
from publishers.postgres import database as postgres
from sandbox import sandbox as sandboxes
from sandbox.sandbox import Sandbox
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import PostgresServer
from tests.support.fronts import faulty_fronts


@asynccontextmanager
async def answering(sandbox: Sandbox) -> AsyncIterator[None]:
    """The permission publisher beside it, which everything rests on."""
    async with (
        nats_client.connect(
            [sandbox.nats.url], name="publisher", seed=sandbox.seed("publisher")
        ) as nats,
        postgres.connect(sandbox.database.reader_dsn) as database,
    ):
        for stream in (streams.event_stream(), streams.log_stream()):
            await streams.ensure(nats, stream)
        ready = asyncio.Event()
        running = asyncio.create_task(
            permissions.run(nats, database, Health(), permissions.Options(), ready=ready.set)
        )
        await asyncio.wait(
            [asyncio.create_task(ready.wait()), running], return_when="FIRST_COMPLETED"
        )
        try:
            yield
        finally:
            running.cancel()
            await asyncio.wait([running])


@pytest.fixture
async def site(
    postgres_server: PostgresServer,
    fresh_nats: NatsServer,
    sandbox: Sandbox,
) -> AsyncIterator[Sandbox]:
    """A cluster with NATS and a database of this test alone."""
    async with sandboxes.on(
        postgres_server,
        fresh_nats,
        sandbox.keys_folder,
        sandbox.certificates.authority.parent,
    ) as own:
        own.advertise("wss://ws.example.com/websocket")
        yield own


async def check(sandbox: Sandbox, **more: str) -> Result:
    """The command with the settings of the services, in a thread: it runs a loop of its own."""
    environment = {**sandbox.environment, "ARVADOS_NATS_LOG_TOKEN": "x", **more}
    arguments = ["check", "connections"]
    return await asyncio.to_thread(CliRunner().invoke, main, arguments, env=environment)


async def as_owner(sandbox: Sandbox, *statements: str) -> None:
    connection = await asyncpg.connect(sandbox.database.dsn)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


@dataclass(frozen=True)
class Lack:
    """What is taken away by SQL, what is named and the remedy."""

    statement: str
    part: str
    named: str
    remedy: str


PLANTED = {
    "column": Lack(
        "ALTER TABLE containers DROP COLUMN cost",
        "tables of Arvados",
        "containers.cost is not there",
        "Arvados 2.5 to 3.2 are supported",
    ),
    "two columns": Lack(
        "ALTER TABLE container_requests DROP COLUMN cumulative_cost, DROP COLUMN container_count",
        "tables of Arvados",
        "container_requests.cumulative_cost is not there",
        "Arvados 2.5 to 3.2 are supported",
    ),
    "table": Lack(
        "DROP TABLE workflows",
        "tables of Arvados",
        "table workflows is not there",
        "Arvados 2.5 to 3.2 are supported",
    ),
    "right to a column": Lack(
        "REVOKE SELECT (refreshes_at) ON api_client_authorizations FROM arvados_nats",
        "tables of Arvados",
        "api_client_authorizations.refreshes_at is not granted to arvados_nats",
        "run GRANT SELECT (refreshes_at) ON api_client_authorizations TO arvados_nats",
    ),
    "right to a table": Lack(
        "REVOKE SELECT (group_uuid, trash_at) ON trashed_groups FROM arvados_nats",
        "tables of Arvados",
        "trashed_groups is not granted to arvados_nats",
        "run GRANT SELECT ON trashed_groups TO arvados_nats",
    ),
    "right to the schema": Lack(
        "REVOKE USAGE ON SCHEMA public FROM PUBLIC",
        "tables of Arvados",
        "no table of Arvados is there",
        "run GRANT USAGE ON SCHEMA public TO arvados_nats",
    ),
    "function": Lack(
        "REVOKE EXECUTE ON FUNCTION hashtextextended(text, bigint) FROM PUBLIC",
        "tables of Arvados",
        "function hashtextextended(text,bigint) is not there or not granted",
        "run GRANT EXECUTE ON FUNCTION pg_catalog.hashtextextended(text,bigint) TO arvados_nats",
    ),
}


def said(result: Result, part: str) -> str:
    found = re.search(rf"^{part}: (.*)$", result.output, re.M)
    return found[1] if found else ""


async def test_a_whole_site_is_ok_in_every_part(site: Sandbox) -> None:
    """Every part is named, and the exit code is 0."""
    async with answering(site):
        result = await check(site)
    assert result.exit_code == 0, result.output
    assert re.findall(r"^(.*): ok$", result.output, re.M) == [
        *("NATS", "publishers", "ARVADOS_EVENTS", "ARVADOS_LOGS", "clock of NATS"),
        *("Arvados", "clock of Arvados", "API server of Arvados", "release of Arvados"),
        *("PostgreSQL", "tables of Arvados", "clock of PostgreSQL"),
    ]


@pytest.mark.parametrize("lack", PLANTED.values(), ids=PLANTED)
async def test_what_the_database_lacks_is_named_with_its_remedy(site: Sandbox, lack: Lack) -> None:
    """And the publishers are not called well either, where they need it for an answer."""
    async with answering(site):
        await as_owner(site, lack.statement)
        result = await check(site)
    assert result.exit_code == 1
    told = said(result, lack.part)
    assert lack.named in told, result.output
    assert lack.remedy in told


async def test_publishers_that_are_not_there_are_named(site: Sandbox) -> None:
    """The streams of yesterday are no sign of life (V1)."""
    async with answering(site):
        pass
    result = await check(site)
    assert result.exit_code == 1
    assert said(result, "ARVADOS_EVENTS") == "ok"
    assert "no publisher answers: do they run" in said(result, "publishers")


async def test_publishers_that_can_not_answer_say_why(site: Sandbox) -> None:
    """By the name of what they lack."""
    async with answering(site):
        await as_owner(
            site, "REVOKE SELECT (scopes) ON api_client_authorizations FROM arvados_nats"
        )
        await as_owner(site, "REVOKE SELECT (is_admin) ON users FROM arvados_nats")
        result = await check(site)
    assert result.exit_code == 1
    assert "users.is_admin is not granted to arvados_nats" in said(result, "publishers")


async def rewritten(sandbox: Sandbox, pattern: bytes, by: bytes) -> Result:
    """The check of an Arvados whose answers are changed on the way."""
    port = urlsplit(sandbox.api.url).port
    assert port
    async with answering(sandbox), faulty_fronts.rewriting(port, pattern, by) as own:
        return await check(sandbox, ARVADOS_API_HOST=f"http://127.0.0.1:{own}")


async def test_an_old_release_is_named(site: Sandbox) -> None:
    """With the ones that are supported."""
    result = await rewritten(site, rb'"packageVersion":"3.2.0-1"', b'"packageVersion":"2.4.4-1"')
    assert result.exit_code == 1
    assert said(result, "release of Arvados") == (
        "Arvados 2.4 is too old: Arvados 2.5 to 3.2 are supported"
    )


async def test_a_release_without_container_logs_is_named(site: Sandbox) -> None:
    """It is supported, and what it cannot do is said."""
    result = await rewritten(site, rb'"packageVersion":"3.2.0-1"', b'"packageVersion":"2.6.3-1"')
    assert result.exit_code == 0
    assert said(result, "release of Arvados") == (
        "ok (2.6: no container logs and no scoped tokens, which need 2.7)"
    )


async def test_an_address_that_is_not_the_controllers_is_named(site: Sandbox) -> None:
    """The API server's own port answers the same calls but one, and no library's text stands in
    ours (V10)."""
    async with answering(site):
        with site.backend.faults.failing("GET /arvados/v1/config", 404):
            result = await check(site)
            with pytest.raises(Unavailable, match="is this the controller") as raised:
                async with arvados_client.connect(site.api.url) as arvados:
                    await arvados.exported_config()
    assert result.exit_code == 1
    assert "is this the controller?" in said(result, "Arvados")
    assert "developer.mozilla.org" not in result.output + str(raised.value)


async def test_an_api_server_that_is_down_behind_its_controller_is_named(site: Sandbox) -> None:
    """The controller answers for its configuration by itself; nobody can log in (V15)."""
    async with answering(site):
        with site.backend.faults.failing("GET /arvados/v1/api_client_authorizations", 503):
            result = await check(site)
    assert result.exit_code == 1
    assert said(result, "Arvados") == "ok"
    assert "status 503, not 401: does the API server (Rails)" in said(
        result, "API server of Arvados"
    )


async def test_without_a_log_token_nobody_looks_for_container_logs(site: Sandbox) -> None:
    """Nobody was asked to read them (V12)."""
    async with answering(site):
        async with nats_client.connect(
            [site.nats.url], name="publisher", seed=site.seed("publisher")
        ) as nats:
            await nats.js_api(f"STREAM.DELETE.{streams.LOGS}")
        missing = await check(site)
        result = await check(site, ARVADOS_NATS_LOG_TOKEN="")
    assert missing.exit_code == 1
    assert said(missing, "ARVADOS_LOGS") == "does not exist yet: do the publishers run?"
    assert result.exit_code == 0, result.output
    assert said(result, "ARVADOS_LOGS") == "ok (not looked at, since no log token is set)"


async def test_an_older_release_is_ok_and_says_what_it_lacks(
    postgres_server: PostgresServer, site: Sandbox
) -> None:
    """The text that a person who wonders about a missing column looks for."""
    older = await postgres_server.clone(age="3.0")
    async with answering(replace(site, database=older)):
        result = await check(site, ARVADOS_NATS_POSTGRES_DSN=older.reader_dsn)
    await postgres_server.drop(older)
    assert result.exit_code == 0, result.output
    assert (
        "api_client_authorizations.refreshes_at is not there: Arvados older than 3.1, supported"
    ) in said(result, "tables of Arvados")
