# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who loses an object is told that it went, with nothing of what it is now."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest

from arvados_nats.nats.client import Message
from arvados_nats.protocol_v1.messages import NOT_READABLE
from sandbox.model import records
from sandbox.model.actors import Actor
from sandbox.model.records import Record
from sandbox.stack import Stack
from tests.support.clients import v0, v1
from tests.support.clients.native import Native, connected
from tests.support.waiting import until

SECRET, WHOAMI = "SECRET NAME", "arvados.api.whoami"


@dataclass(slots=True)
class Scene:
    """A project of the owner that a friend may read, and one that the friend may not."""

    stack: Stack
    owner: Actor
    friend: Actor
    shared: Record
    private: Record
    request: str = ""
    """That which is lost, once it is there."""


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
    scene.request = made.uuid
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


async def user_deactivated(scene: Scene, before: Callable[[], Awaitable[None]]) -> str:
    """Everybody sees active users, and nobody the others."""
    cluster = scene.stack.sandbox.cluster
    leaving = await cluster.user("departing user")
    await before()
    await cluster.unsetup_user(leaving, cluster.root)
    return leaving.uuid


async def user_merged(scene: Scene, before: Callable[[], Awaitable[None]]) -> str:
    """The links by which the user was seen lead to another one by then."""
    cluster = scene.stack.sandbox.cluster
    old, new = await cluster.user("merging user"), await cluster.user("merged user")
    await before()
    await cluster.merge_users(old, new, cluster.root, owner=new, redirect=True)
    return old.uuid


async def link_of_a_trashed_role(scene: Scene, before: Callable[[], Awaitable[None]]) -> str:
    """Members of a role that manages a project could read the role's link to it."""
    cluster = scene.stack.sandbox.cluster
    role = await cluster.role("departing role", scene.friend, level="can_manage")
    link = await cluster.share(scene.private, role, "can_manage", by=cluster.root)
    await before()
    await cluster.trash(role, cluster.root)
    return link.uuid


async def swept_with_its_project(scene: Scene, before: Callable[[], Awaitable[None]]) -> str:
    """A project inside another says who could read what was in it, and both are gone."""
    cluster = scene.stack.sandbox.cluster
    inner = await cluster.project(owner=scene.shared, by=scene.owner)
    made = await cluster.collection("open", owner=inner, by=scene.owner)
    await before()
    await _sweep(scene)
    return made.uuid


async def shared_by_itself_and_swept(scene: Scene, before: Callable[[], Awaitable[None]]) -> str:
    """The link that showed it goes just before."""
    cluster = scene.stack.sandbox.cluster
    made = await cluster.collection("open", owner=scene.private, by=scene.owner)
    await cluster.share(made, scene.friend)
    scene.shared = scene.private
    await before()
    await _sweep(scene)
    return made.uuid


async def link_of_a_swept_project(scene: Scene, before: Callable[[], Awaitable[None]]) -> str:
    """Whoever managed the project could read the links to what was in it."""
    cluster = scene.stack.sandbox.cluster
    another = await cluster.user("departing other")
    inner = await cluster.project(owner=scene.shared, by=scene.owner)
    await cluster.share(scene.shared, scene.friend, "can_manage")
    link = await cluster.share(inner, another)
    await before()
    await _sweep(scene)
    return link.uuid


async def request_trashed_unseen(scene: Scene, before: Callable[[], Awaitable[None]]) -> str:
    """A request that was shared by itself, in a project that its reader cannot see."""
    cluster = scene.stack.sandbox.cluster
    made = await cluster.container_request("open", owner=scene.private, by=scene.owner)
    await cluster.share(made, scene.friend)
    scene.request = made.uuid
    await before()
    await cluster.trash(scene.private, scene.owner)
    return made.uuid


async def _sweep(scene: Scene) -> None:
    cluster = scene.stack.sandbox.cluster
    await cluster.trash(scene.shared, scene.owner)
    await cluster.pool.execute(
        "UPDATE groups SET delete_at = now() AT TIME ZONE 'UTC' - interval '1 minute'"
        " WHERE uuid = $1",
        scene.shared.uuid,
    )
    await cluster.trash_sweep(cluster.root)


GONE = [
    user_deactivated,
    user_merged,
    link_of_a_trashed_role,
    swept_with_its_project,
    shared_by_itself_and_swept,
    link_of_a_swept_project,
    request_trashed_unseen,
]


@pytest.mark.parametrize("loss", GONE)
async def test_what_says_who_could_read_it_may_be_gone_too(scene: Scene, loss: Any) -> None:
    """A row without new attributes by v0; by v1 that it is gone, or that it was deleted."""
    cluster, url = scene.stack.sandbox.cluster, scene.stack.websocket_url
    base = f"ws://127.0.0.1:{scene.stack.proxy_port}"
    async with v0.client(url, scene.friend.token) as old, v1.connected(base, scene.friend) as new:
        await v0.settled(url, scene.stack.sandbox.api.url, scene.friend)
        await old.subscribe()
        await new.subscribe("a", events={})

        async def before() -> None:
            marker = await cluster.collection(owner=scene.friend)
            await old.event_about(marker.uuid)
            await new.until("event", object_uuid=marker.uuid)

        uuid = await loss(scene, before)
        event = await old.event_about(uuid)
        assert not event["properties"].get("new_attributes")
        await new.until_true(
            lambda: any(
                body.get("uuid" if key == "gone" else "object_uuid") == uuid
                and (key == "gone" or body.get("event_type") == "delete")
                for key, body in new.seen
            )
        )


async def role_lost(scene: Scene, before: Callable[[], Awaitable[None]]) -> None:
    """A role is taken out of another: no row tells it to the members."""
    cluster = scene.stack.sandbox.cluster
    inner = await cluster.role("departing inner", scene.friend)
    outer = await cluster.role("departing outer", inner)
    await cluster.share(scene.private, outer)
    await before()
    await cluster.unshare(outer, inner)


async def request_whose_trash_time_comes(
    scene: Scene, before: Callable[[], Awaitable[None]]
) -> None:
    """It was shared by itself, and of its project its reader hears nothing."""
    cluster = scene.stack.sandbox.cluster
    made = await cluster.container_request("open", owner=scene.private, by=scene.owner)
    await cluster.share(made, scene.friend)
    scene.request = made.uuid
    await before()
    soon = records.now() + timedelta(seconds=1)
    await cluster.expire(scene.private, soon, by=scene.owner)


async def project_whose_trash_time_comes(
    scene: Scene, before: Callable[[], Awaitable[None]]
) -> None:
    """The requests in it are hidden, and its readers see nothing of what is above."""
    cluster = scene.stack.sandbox.cluster
    inner = await cluster.project(owner=scene.private, by=scene.owner)
    await cluster.container_request("open", owner=inner, by=scene.owner)
    await cluster.share(inner, scene.friend)
    await before()
    soon = records.now() + timedelta(seconds=1)
    await cluster.expire(scene.private, soon, by=scene.owner)


@pytest.mark.parametrize(
    "loss", [role_lost, request_whose_trash_time_comes, project_whose_trash_time_comes]
)
async def test_what_no_row_names_is_told_as_less(scene: Scene, loss: Any) -> None:
    """`narrowed`: by v1 to each subscription of events, by v0 to who asks for it."""
    cluster, url = scene.stack.sandbox.cluster, scene.stack.websocket_url
    base = f"ws://127.0.0.1:{scene.stack.proxy_port}"
    async with v0.client(url, scene.friend.token) as old, v1.connected(base, scene.friend) as new:

        async def before() -> None:
            await v0.settled(url, scene.stack.sandbox.api.url, scene.friend)
            await old.send({"method": "subscribe", "narrowed": True})
            await new.subscribe("a", events={"kinds": ["collection"]})
            marker = await cluster.collection(owner=scene.friend)
            while (await old.receive()).get("object_uuid") != marker.uuid:
                pass
            await new.until("event", object_uuid=marker.uuid)

        await loss(scene, before)
        while await old.receive() != {"narrowed": True}:
            pass
        await new.until("narrowed", id="a")


@pytest.mark.parametrize(
    "loss", [request_moved, request_trashed_unseen, request_whose_trash_time_comes]
)
async def test_server_sent_events_end_with_their_request(scene: Scene, loss: Any) -> None:
    """They are of its log alone; the last one says why."""
    async with contextlib.AsyncExitStack() as exits:
        lines: AsyncIterator[str]

        async def before() -> None:
            nonlocal lines
            http = await exits.enter_async_context(httpx.AsyncClient(timeout=v1.WITHIN))
            url = f"{scene.stack.page_url}/arvados/v1/container_requests/{scene.request}/log_events"
            headers = {"Authorization": f"Bearer {scene.friend.token}"}
            answer = await exits.enter_async_context(http.stream("GET", url, headers=headers))
            assert answer.status_code == 200
            lines = answer.aiter_lines()

        await loss(scene, before)
        said = [line async for line in lines if line.startswith("data: ")]
        assert json.loads(said[-1].removeprefix("data: ")) == {"revoked": {"reason": NOT_READABLE}}


NATIVE = [collection_moved, request_moved, project_moved]


@pytest.mark.parametrize("loss", NATIVE)
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


NATIVE_CUT = {
    request_trashed_unseen: False,
    project_unshared: True,
    swept_with_its_project: True,
    shared_by_itself_and_swept: True,
    link_of_a_trashed_role: True,
    link_of_a_swept_project: True,
}
"""Where the right to hear goes as well the connection ends, and comes back with less. Users and
links are told nobody natively: who has lost no more than those hears nothing (docs/clients.md)."""


@pytest.mark.parametrize("loss", NATIVE_CUT)
async def test_a_native_client_learns_of_the_rest(scene: Scene, loss: Any) -> None:
    """That it is gone, or that less may be heard."""
    friend: Native
    asking: Native
    had: set[str] = set()
    async with contextlib.AsyncExitStack() as exits:

        async def patterns() -> set[str]:
            return {*json.loads((await asking.nats.request(WHOAMI)).data)["subscribe"]}

        async def before() -> None:
            nonlocal friend, asking
            url, api = scene.stack.websocket_url, scene.stack.sandbox.api.url
            await v0.settled(url, api, scene.friend)
            asking = await exits.enter_async_context(
                connected(scene.stack, scene.friend, asks=True)
            )
            friend = await exits.enter_async_context(connected(scene.stack, scene.friend))
            had.update(await patterns())
            for pattern in had:
                await friend.listen(pattern)

        uuid = await loss(scene, before)
        if NATIVE_CUT[loss]:
            await until(lambda: friend.cuts, "the connection ends")

            async def less() -> bool:
                return await patterns() < had

            await until(less, "less is permitted")
            return
        await until(
            lambda: any("Arvados-Gone" in m.headers for m in friend.heard if uuid in m.subject),
            "the friend hears that it is gone",
        )


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
