# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whether role groups are shown is what Arvados exports, and no until that is known."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from arvados_nats import arvados_client
from publishers import postgres, role_visibility
from publishers.grants_query import GrantsQuery
from sandbox import api_server
from sandbox.api import tables
from sandbox.api.app import ApiApp
from sandbox.api.calls import Backend
from sandbox.cluster import open_cluster
from sandbox.container_logs import ContainerLogs
from sandbox.model.config import ClusterConfig
from sandbox.postgres import Database
from tests.integration.permission_world import eventually


@asynccontextmanager
async def asking(query: GrantsQuery, url: str) -> AsyncIterator[None]:
    """Ask the API server at intervals, as the permission publisher does."""
    async with arvados_client.connect(url) as arvados:
        task = asyncio.create_task(role_visibility.follow(arvados, query, every=0.05))
        try:
            yield
            assert not task.done()
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.mark.parametrize("switched_on", [True, False])
async def test_the_switch_is_read_from_arvados(database: Database, switched_on: bool) -> None:
    """On only where Arvados says so; the cluster's state that readers get changes with it."""
    config = ClusterConfig(role_groups_visible_to_all=switched_on)
    async with (
        open_cluster(database.dsn, config) as cluster,
        postgres.connect(database.reader_dsn) as pool,
    ):
        query = GrantsQuery(pool, role_groups_visible=not switched_on)
        before = await query.read([])
        backend = Backend(cluster.pool, cluster, ContainerLogs(), await tables.read(cluster.pool))
        async with api_server.run(ApiApp(backend)) as api, asking(query, api.url):
            await eventually(lambda: query.role_groups_visible is switched_on, "the switch is read")
        after = await query.read([])

    assert after.cluster.state.role_groups_visible is switched_on
    assert after.cluster.version != before.cluster.version


async def test_what_is_not_known_is_off(database: Database) -> None:
    """Nobody answers: role groups stay with their members, and asking goes on."""
    async with postgres.connect(database.reader_dsn) as pool:
        query = GrantsQuery(pool, role_groups_visible=False)
        async with asking(query, "http://127.0.0.1:9"):
            await asyncio.sleep(0)
            reading = await query.read([])

    assert reading.cluster.state.role_groups_visible is False


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"Users": {"RoleGroupsVisibleToAll": True}}, True),
        ({"Users": {"RoleGroupsVisibleToAll": False}}, False),
        ({"Users": {"RoleGroupsVisibleToAll": "true"}}, False),
        ({"Users": {}}, False),
        ({"Users": None}, False),
        ({}, False),
    ],
)
def test_a_configuration_that_does_not_say_is_off(config: dict[str, Any], expected: bool) -> None:
    """Never looser than Arvados."""
    assert role_visibility.is_on(config) is expected
