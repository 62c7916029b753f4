# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The sandbox's API server answers as the recorded Arvados API server did."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from sandbox.api.app import ApiApp
from sandbox.api.calls import Backend
from sandbox.api.queries import tables
from sandbox.cluster import open_cluster
from sandbox.logs.container_logs import ContainerLogs
from sandbox.model.config import ClusterConfig
from sandbox.servers import api_server
from sandbox.servers.postgres import PostgresServer
from tests.support.recording import Recording

GOLDEN = Path(__file__).parents[2] / "golden" / "api.json"
EXCHANGES = {
    exchange["name"]: bool(exchange.get("core"))
    for exchange in json.loads(GOLDEN.read_text(encoding="utf-8"))["exchanges"]
}


@pytest.fixture(scope="module")
async def differences(postgres_server: PostgresServer) -> dict[str, list[str]]:
    """Exchange name -> what differs, after a replay of the whole recording."""
    recording = Recording.load(GOLDEN)
    config = ClusterConfig(
        cluster_id=recording.data["cluster_id"],
        system_root_token=recording.data["tokens"]["root"],
        anonymous_user_token=recording.data["tokens"]["anonymous"],
    )
    database = await postgres_server.clone()
    async with open_cluster(database.dsn, config) as cluster:
        backend = Backend(
            pool=cluster.pool,
            cluster=cluster,
            logs=ContainerLogs(),
            tables=await tables.read(cluster.pool),
            management_token="sandboxmanagementtoken",
        )
        async with (
            api_server.run(ApiApp(backend)) as server,
            httpx.AsyncClient(base_url=server.url, timeout=20) as client,
        ):
            found = await recording.replay(client)
    await postgres_server.drop(database)
    return found


OF_THE_CONTROLLER = {"config"}
"""Recorded as 404: the API server does not have it, arvados-controller does, and the SDK asks."""


@pytest.mark.parametrize("name", [name for name, core in EXCHANGES.items() if core])
def test_a_core_exchange_agrees(name: str, differences: dict[str, list[str]]) -> None:
    """Status, keys, types, order and the named values are the recorded ones."""
    assert differences[name] == []


def test_all_other_exchanges_agree_too(differences: dict[str, list[str]]) -> None:
    """The sandbox answers all that was recorded, but for what the controller adds."""
    assert {name for name, found in differences.items() if found} == OF_THE_CONTROLLER
    assert len(differences) == 287


def test_a_difference_would_be_seen() -> None:
    """The comparison finds a wrong status, a missing key, another type and another value."""
    recording = Recording.load(GOLDEN)
    exchange = next(e for e in recording.data["exchanges"] if e["name"] == "groups.list")
    body = exchange["response"]["body"]
    headers = {"Content-Type": "application/json; charset=utf-8"}

    def found(status: int, answered: object) -> list[str]:
        return recording.differences(
            exchange, httpx.Response(status, json=answered, headers=headers)
        )

    assert found(200, body) == []
    assert found(404, body)
    assert found(200, {**body, "items": body["items"][:1]})
    assert found(200, {**body, "items": body["items"][::-1]})
    assert found(200, {**body, "offset": "1"})
    assert found(200, {**body, "items_available": 99})
    assert found(200, {key: value for key, value in body.items() if key != "limit"})
