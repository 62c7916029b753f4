# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Calls to the sandbox's API are counted, and it fails when a test wants it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest

from sandbox.sandbox import Sandbox

CURRENT = "/arvados/v1/users/current"
ROUTE = f"GET {CURRENT}"


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a user's token; counters start from zero."""
    user = await sandbox.cluster.user("ann")
    sandbox.backend.faults.reset()
    headers = {"Authorization": f"Bearer {user.token}"}
    async with httpx.AsyncClient(base_url=sandbox.api.url, headers=headers) as found:
        yield found


async def test_calls_are_counted_by_route(sandbox: Sandbox, client: httpx.AsyncClient) -> None:
    """Uuids are left out of the name, so that a route is counted as one."""
    await client.get(CURRENT)
    for tail in ("a" * 15, "b" * 15):
        await client.get(f"/arvados/v1/groups/zzzzz-j7d0g-{tail}")
    log = f"/arvados/v1/container_requests/zzzzz-xvhdp-{'a' * 15}/log/zzzzz-dz642-{'a' * 15}/x.txt"
    await client.get(log)
    assert sandbox.backend.faults.calls == {
        ROUTE: 1,
        "GET /arvados/v1/groups/{uuid}": 2,
        "GET /arvados/v1/container_requests/{uuid}/log": 1,
    }
    assert sandbox.backend.faults.count("GET ") == 4


async def test_a_route_can_fail(sandbox: Sandbox, client: httpx.AsyncClient) -> None:
    """With the status that was asked for, and only that route, and only as long as asked."""
    with sandbox.backend.faults.failing(ROUTE, 503):
        assert (await client.get(CURRENT)).status_code == 503
        assert (await client.get("/arvados/v1/groups")).status_code == 200
    assert (await client.get(CURRENT)).status_code == 200


async def test_a_route_can_hang(sandbox: Sandbox, client: httpx.AsyncClient) -> None:
    """The request waits, and is answered when the hang is over."""
    with sandbox.backend.faults.hanging(ROUTE):
        waiting = asyncio.create_task(client.get(CURRENT))
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done
        assert (await client.get("/arvados/v1/groups")).status_code == 200
    assert (await waiting).status_code == 200


async def test_the_server_can_be_taken_away(sandbox: Sandbox, client: httpx.AsyncClient) -> None:
    """Connections are refused, and accepted again on the same port."""
    assert (await client.get(CURRENT)).status_code == 200
    await sandbox.api.stop()
    with pytest.raises(httpx.ConnectError):
        await client.get(CURRENT)
    await sandbox.api.start()
    assert (await client.get(CURRENT)).status_code == 200


async def test_health_needs_the_management_token(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    """As every Arvados service answers it."""
    path = "/_health/ping"
    token = sandbox.environment["ARVADOS_NATS_MANAGEMENT_TOKEN"]
    assert (await client.get(path)).status_code == 403
    answer = await client.get(path, headers={"Authorization": f"Bearer {token}"})
    assert answer.json() == {"health": "OK"}


async def test_a_logout_ends_the_token_without_a_row(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    """As the controller does it: no log row tells of it."""
    query = "SELECT count(*) FROM logs"
    before = await sandbox.cluster.pool.fetchval(query)
    assert (await client.get("/logout")).status_code == 204
    assert (await client.get(CURRENT)).status_code == 401
    assert await sandbox.cluster.pool.fetchval(query) == before


@pytest.mark.parametrize(
    "query",
    [
        {"filters": '[["id", "<", 99999999999999999999999999]]'},
        {"filters": '[["uuid", "=", "a\\u0000b"]]'},
        {"limit": "99999999999999999999", "offset": "99999999999999999999"},
    ],
)
async def test_a_value_beyond_the_database_is_refused(
    client: httpx.AsyncClient, query: dict[str, str]
) -> None:
    """422 and no traceback, whatever a client sends."""
    answer = await client.get("/arvados/v1/logs", params=query)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0].startswith("#<ActiveRecord::StatementInvalid")


async def test_a_database_that_is_away_is_500(sandbox: Sandbox, client: httpx.AsyncClient) -> None:
    """As the API server answers it, and never 401 or 404: those would be a no."""
    role = sandbox.database.dsn.partition("//")[2].partition(":")[0]
    pool = sandbox.cluster.pool
    admin = await asyncpg.connect(sandbox.postgres.dsn())
    try:
        await admin.execute(f"ALTER DATABASE {sandbox.database.name} ALLOW_CONNECTIONS false")
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = $1 AND usename = $2",
            sandbox.database.name,
            role,
        )
        assert (await client.get(CURRENT)).status_code == 500
    finally:
        await admin.execute(f"ALTER DATABASE {sandbox.database.name} ALLOW_CONNECTIONS true")
        await admin.close()
    await pool.expire_connections()
    assert (await client.get(CURRENT)).status_code == 200
