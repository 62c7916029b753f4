# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a socket's reader loses stops at once, and is told: `revoked` in v1, silence in v0."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from sandbox.model.actors import Actor
from sandbox.stack import Stack
from tests.support.clients.native import connected
from tests.support.revocations import SCENES
from tests.support.waiting import until


@dataclass
class Reader:
    """A socket, what came, and with which code it was closed."""

    socket: ClientConnection
    came: list[dict[str, Any]] = field(default_factory=list)
    code: int | None = None

    async def read(self) -> None:
        try:
            async for frame in self.socket:
                self.came.append(json.loads(frame))
        except ConnectionClosed as closed:
            self.code = closed.rcvd.code if closed.rcvd else 1006
        else:
            self.code = self.socket.close_code

    def about(self, uuid: str) -> int:
        """How many messages name the object."""
        return sum(uuid in json.dumps(message) for message in self.came)

    def has(self, key: str) -> bool:
        return any(key in message for message in self.came)


@asynccontextmanager
async def reading(url: str, *messages: dict[str, Any], v1: bool) -> AsyncIterator[Reader]:
    subprotocols = [Subprotocol("arvados.events.v1.json")] if v1 else None
    async with connect(url, subprotocols=subprotocols) as socket:
        reader = Reader(socket)
        task = asyncio.create_task(reader.read())
        for message in messages:
            await socket.send(json.dumps(message))
        yield reader
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _ready(reader: Reader, key: str) -> None:
    await until(lambda: reader.has(key), f"{key} comes")


@pytest.mark.parametrize("name", SCENES)
async def test_what_is_taken_is_told_and_not_shown(stack: Stack, name: str) -> None:
    """v1 says `revoked` or closes for good, v0 goes silent; nothing about the object afterwards."""
    scene, within = SCENES[name]
    cluster = stack.sandbox.cluster
    reader: Actor = await cluster.user("socket")
    given = await scene(cluster, reader)
    request = await cluster.container_request("before", owner=given.project, by=given.owner)
    subscribe = [
        {"subscribe": {"id": "o", "object": {"uuid": request.uuid}}},
        {"subscribe": {"id": "e", "events": {"objects": [request.uuid]}}},
        {"subscribe": {"id": "l", "log": {"uuid": request.uuid}}},
    ]
    v0_url = f"{stack.websocket_url}?api_token={reader.token}"
    async with (
        reading(stack.stream_url, {"auth": {"token": reader.token}}, *subscribe, v1=True) as v1,
        reading(v0_url, {"method": "subscribe"}, v1=False) as v0,
    ):
        await _ready(v1, "object")
        await _ready(v0, "status")
        await cluster.update(request, {"name": "seen"}, cluster.root)
        await until(lambda: v0.about(request.uuid) and v1.has("event"), "a change is shown")
        await given.take()
        await until(lambda: v1.has("revoked") or v1.code, f"{name} is told", within)
        shown = v0.about(request.uuid), v1.about(request.uuid)
        async with connected(stack, cluster.root) as other:
            await other.listen("arvados.stored.events.>")
            await cluster.log(cluster.root, object_uuid=request.uuid, event_type="after")
            await until(lambda: other.heard_of(f"{request.uuid}.after"), "others still hear")
        assert (v0.about(request.uuid), v1.about(request.uuid)) == shown
        if given.ends_token:
            await until(lambda: v1.code and v0.code, "both sockets are closed", within)
            assert v1.code == 4501
        else:
            assert {m["revoked"].get("id") for m in v1.came if "revoked" in m} >= {"o", "l"}
            assert v1.code is None
            assert v0.code is None
