# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who loses an object is told that it went, with nothing of what it is now."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from arvados_nats.nats.client import Message
from sandbox.model.actors import Actor
from sandbox.model.records import Record
from sandbox.stack import Stack
from tests.support.clients import v0, v1
from tests.support.clients.native import Native, connected, until

SECRET = "SECRET NAME"


@dataclass(slots=True)
class Scene:
    """A project of the owner that a friend may read, and one that the friend may not."""

    stack: Stack
    owner: Actor
    friend: Actor
    shared: Record
    private: Record


@pytest.fixture
async def scene(stack: Stack) -> AsyncIterator[Scene]:
    cluster = stack.sandbox.cluster
    owner, friend = await cluster.user("departing owner"), await cluster.user("departing friend")
    shared = await cluster.project(owner=owner)
    private = await cluster.project(owner=owner)
    await cluster.share(shared, friend)
    yield Scene(stack, owner, friend, shared, private)


async def collection_moved(scene: Scene, before: Callable[[], Awaitable[None]]) -> str:
    cluster = scene.stack.sandbox.cluster
    made = await cluster.collection("open", owner=scene.shared, by=scene.owner)
    await before()
    change = {"owner_uuid": scene.private.uuid, "name": SECRET}
    await cluster.update(made, change, scene.owner)
    return made.uuid


async def request_moved(scene: Scene, before: Callable[[], Awaitable[None]]) -> str:
    cluster = scene.stack.sandbox.cluster
    made = await cluster.container_request("open", owner=scene.shared, by=scene.owner)
    await before()
    change = {"owner_uuid": scene.private.uuid, "name": SECRET}
    await cluster.update(made, change, scene.owner)
    return made.uuid


async def project_moved(scene: Scene, before: Callable[[], Awaitable[None]]) -> str:
    cluster = scene.stack.sandbox.cluster
    made = await cluster.project("open", owner=scene.shared, by=scene.owner)
    await before()
    change = {"owner_uuid": scene.private.uuid, "name": SECRET}
    await cluster.update(made, change, scene.owner)
    return made.uuid


async def project_unshared(scene: Scene, before: Callable[[], Awaitable[None]]) -> str:
    cluster = scene.stack.sandbox.cluster
    await before()
    link = await cluster.pool.fetchval(
        "SELECT uuid FROM links WHERE head_uuid = $1 AND tail_uuid = $2",
        scene.shared.uuid,
        scene.friend.uuid,
    )
    await cluster.unshare(scene.shared, scene.friend)
    return str(link)


async def unshared_with_another(scene: Scene, before: Callable[[], Awaitable[None]]) -> str:
    """Whoever manages a project could read the links to what is in it."""
    cluster = scene.stack.sandbox.cluster
    another = await cluster.user("departing other")
    inner = await cluster.project(owner=scene.shared, by=scene.owner)
    await cluster.share(scene.shared, scene.friend, "can_manage")
    link = await cluster.share(inner, another)
    await before()
    await cluster.unshare(inner, another)
    return link.uuid


LOSSES = [collection_moved, request_moved, project_moved, project_unshared, unshared_with_another]


@pytest.mark.parametrize("loss", LOSSES)
async def test_v0_tells_it_by_the_row_as_it_could_be_read(scene: Scene, loss: Any) -> None:
    """The old attributes, and new ones without content."""
    async with v0.client(scene.stack.websocket_url, scene.friend.token) as client:
        await v0.settled(scene.stack.websocket_url, scene.stack.sandbox.api.url, scene.friend)
        await client.subscribe()

        async def before() -> None:
            marker = await scene.stack.sandbox.cluster.collection(owner=scene.friend)
            await client.event_about(marker.uuid)

        uuid = await loss(scene, before)
        event = await client.event_about(uuid)
        said = event["properties"]
        assert SECRET not in json.dumps(event)
        assert scene.private.uuid not in json.dumps(event)
        if event["event_type"] == "update":
            assert said["new_attributes"] == {}
            assert said["old_attributes"]["owner_uuid"] == scene.shared.uuid
            assert event["object_owner_uuid"] == scene.shared.uuid
        await scene.stack.sandbox.cluster.collection(owner=scene.private, by=scene.owner)
        marker = await scene.stack.sandbox.cluster.collection(owner=scene.friend)
        assert (await client.event())["object_uuid"] == marker.uuid, "and nothing else"


@pytest.mark.parametrize("loss", LOSSES)
async def test_v1_says_gone(scene: Scene, loss: Any) -> None:
    """The uuid alone; also where a filter wants what the project owns."""
    base = f"ws://127.0.0.1:{scene.stack.proxy_port}"
    async with v1.connected(base, scene.friend) as client:
        await client.subscribe("a", events={})

        async def before() -> None:
            marker = await scene.stack.sandbox.cluster.collection(owner=scene.friend)
            await client.until("event", object_uuid=marker.uuid)

        uuid = await loss(scene, before)
        await client.until("gone", uuid=uuid)
        assert SECRET not in json.dumps(client.seen)
        assert scene.private.uuid not in json.dumps(client.seen)


@pytest.mark.parametrize("loss", [collection_moved, request_moved, project_moved])
async def test_a_native_client_hears_it_where_it_was(scene: Scene, loss: Any) -> None:
    """Below the share point that the object has left, and not who sees the new place."""
    async with (
        connected(scene.stack, scene.friend) as friend,
        connected(scene.stack, scene.owner) as owner,
    ):
        for client, share in ((friend, scene.shared.uuid), (owner, scene.owner.uuid)):
            await client.listen(f"arvados.live.{share}.>")

        async def before() -> None:
            return None

        uuid = await loss(scene, before)

        def told(client: Native) -> list[Message]:
            return [m for m in client.heard if f".{uuid}." in m.subject]

        def gone(client: Native) -> list[Message]:
            return [m for m in told(client) if "Arvados-Gone" in m.headers]

        await until(lambda: gone(friend), "the friend hears that it is gone")
        await until(lambda: len(told(owner)) > 1, "the owner hears of the change")
        assert not gone(owner)
        assert not any(SECRET.encode() in message.data for message in friend.heard)
        assert not any(scene.private.uuid.encode() in message.data for message in friend.heard)


async def test_a_forged_row_tells_nobody(scene: Scene) -> None:
    """Whoever posts that an object was moved is not believed."""
    cluster = scene.stack.sandbox.cluster
    hidden = await cluster.collection("hidden", owner=scene.private, by=scene.owner)
    async with v0.client(scene.stack.websocket_url, scene.friend.token) as client:
        await client.subscribe()
        said = {"owner_uuid": scene.friend.uuid}
        await cluster.log(
            scene.friend,
            object_uuid=hidden.uuid,
            event_type="update",
            properties={
                "old_attributes": said,
                "new_attributes": {"owner_uuid": scene.private.uuid},
            },
        )
        marker = await cluster.collection(owner=scene.friend)
        while (event := await client.event())["object_uuid"] != marker.uuid:
            assert event["object_uuid"] != hidden.uuid


async def test_the_end_of_an_attempt_that_is_tried_again_is_told(scene: Scene) -> None:
    """Though Arvados does not show the container any more, once its row is there."""
    cluster = scene.stack.sandbox.cluster
    request = await cluster.container_request("r", owner=scene.shared, by=scene.owner)
    container = await cluster.run(request)
    await v0.settled(scene.stack.websocket_url, scene.stack.sandbox.api.url, scene.friend)
    async with v0.client(scene.stack.websocket_url, scene.friend.token) as client:
        await client.subscribe()
        await cluster.cancel(request, "node died")
        event = await client.event_about(container.uuid)
        assert event["properties"]["new_attributes"]["state"] == "Cancelled"
