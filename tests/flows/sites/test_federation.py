# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Users of other clusters: their tokens end when those clusters say so (V4)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from sandbox.model.actors import Actor
from sandbox.sandbox import Sandbox
from sandbox.servers.postgres import PostgresServer
from sandbox.stack import Stack
from tests.support.clients.native import connected
from tests.support.waiting import until
from tests.support.worlds import aged

TOKEN_INVALID = 4501


@pytest.fixture(scope="module", params=["3.0", "3.2"])
async def stack(
    request: pytest.FixtureRequest, postgres_server: PostgresServer, sandbox: Sandbox
) -> AsyncIterator[Stack]:
    """Everything beside an Arvados of this release."""
    async with aged.beside(request.param, postgres_server, sandbox.nats, sandbox) as running:
        yield running


def _asked(stack: Stack) -> int:
    return stack.sandbox.backend.faults.count("GET /arvados/v1/api_client_authorizations/current")


async def _due(stack: Stack, user: Actor) -> None:
    """Arvados has to ask the other cluster again with the next request."""
    config = stack.sandbox.cluster.config
    time = "refreshes_at" if config.has_refreshes_at else "expires_at"
    await stack.sandbox.cluster.pool.execute(
        f"UPDATE api_client_authorizations SET {time} = clock_timestamp() AT TIME ZONE 'UTC'"
        " WHERE uuid = $1",
        user.token_uuid,
    )


async def _renewed(stack: Stack, user: Actor) -> bool:
    """Arvados has asked the other cluster, and was told that the token lives."""
    config = stack.sandbox.cluster.config
    time = "refreshes_at" if config.has_refreshes_at else "expires_at"
    found: bool = await stack.sandbox.cluster.pool.fetchval(
        f"SELECT {time} > clock_timestamp() AT TIME ZONE 'UTC' FROM api_client_authorizations"
        " WHERE uuid = $1",
        user.token_uuid,
    )
    return found


async def _subscribed(socket: ClientConnection, user: Actor) -> None:
    await socket.send(json.dumps({"auth": {"token": user.token}}))
    await socket.send(json.dumps({"subscribe": {"id": "e", "events": {"owners": [user.uuid]}}}))
    await _came(socket, "subscribed")


async def _came(socket: ClientConnection, what: str) -> None:
    async for frame in socket:
        if what in str(frame):
            return


# nats-py leaves the sockets of its failed attempts to reconnect to the garbage collector.
@pytest.mark.filterwarnings("ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning")
async def test_a_foreign_token_lives_until_its_cluster_says_no(stack: Stack) -> None:
    """Its sockets and its NATS connection go on over the time at which Arvados asks again, without
    a gap; they are cut when the answer is no, and not before."""
    cluster = stack.sandbox.cluster
    user = await cluster.foreign_token(await cluster.user("abroad"), lives=3600)
    cluster.known_elsewhere.add(str(user.token_uuid))
    v0_url = f"{stack.websocket_url}?api_token={user.token}"
    async with (
        connect(stack.stream_url, subprotocols=[Subprotocol("arvados.events.v1.json")]) as v1,
        connect(v0_url) as v0,
        connected(stack, user) as native,
    ):
        await _subscribed(v1, user)
        await v0.send(json.dumps({"method": "subscribe"}))
        await _came(v0, "200")
        await native.listen(f"arvados.live.{user.uuid}.>")
        before, cuts = _asked(stack), native.cuts
        await _due(stack, user)
        async with asyncio.timeout(60):
            while not await _renewed(stack, user):  # noqa: ASYNC110  (each look is a question)
                await asyncio.sleep(0.02)
        assert _asked(stack) - before <= 4
        made = await cluster.collection("goes on", owner=user)
        await _came(v1, made.uuid)
        await _came(v0, made.uuid)
        await until(lambda: native.heard_of(made.uuid), "the NATS connection goes on")
        assert native.cuts == cuts

        cluster.known_elsewhere.clear()
        await _due(stack, user)
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await v1.recv()
        assert closed.value.rcvd
        assert closed.value.rcvd.code == TOKEN_INVALID
        await until(lambda: native.cuts > cuts, "the NATS connection is cut", 10)
