# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Each flow once, whatever the release."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import nats as nats_py
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from arvados_nats.contract import answers as answer_headers
from arvados_nats.contract import subjects
from arvados_nats.contract.subjects import kind_of
from sandbox import demo_check
from sandbox.model.actors import Actor
from sandbox.model.records import Record
from sandbox.stack import Stack
from tests.support.clients import v1 as clients_v1
from tests.support.clients.native import connected
from tests.support.clients.pushed import close, push_log, write
from tests.support.waiting import until

TOKEN_INVALID = 4501
# nats-py leaves the sockets of its failed attempts to reconnect to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning"
)


@dataclass
class Socket:
    """What a v0 client was told, in order."""

    came: list[dict[str, Any]] = field(default_factory=list)
    closed: bool = False

    def about(self, uuid: str) -> list[str]:
        """Event types of the frames about an object."""
        return [one["event_type"] for one in self.came if one.get("object_uuid") == uuid]


@asynccontextmanager
async def watching(stack: Stack, user: Actor) -> AsyncIterator[Socket]:
    """A v0 client that is subscribed to all."""
    found = Socket()

    async def read() -> None:
        async with connect(f"{stack.websocket_url}?api_token={user.token}") as socket:
            await socket.send(json.dumps({"method": "subscribe"}))
            with contextlib.suppress(ConnectionClosed):
                async for frame in socket:
                    found.came.append(json.loads(frame))
        found.closed = True

    task = asyncio.create_task(read())
    try:
        await until(lambda: {"status": 200} in found.came, "the subscription is accepted")
        yield found
    finally:
        task.cancel()
        await asyncio.wait([task])


async def readable(stack: Stack, user: Actor, uuids: Iterable[str]) -> set[str]:
    """What the API shows to a user."""
    found = set()
    headers = {"Authorization": f"Bearer {user.token}"}
    async with httpx.AsyncClient(base_url=stack.sandbox.api.url, headers=headers) as client:
        for uuid in uuids:
            kind = kind_of(uuid)
            assert kind
            path = f"/arvados/v1/{kind.path}/{uuid}"
            status = (await client.get(path, params={"include_trash": "true"})).status_code
            if status == httpx.codes.OK:
                found.add(uuid)
    return found


@dataclass
class Scene:
    """Projects of one owner, shared in all ways, with an object of each kind."""

    owner: Actor
    readers: list[Actor]
    project: Record
    apart: Record
    objects: dict[str, Record]

    @property
    def uuids(self) -> list[str]:
        return [record.uuid for record in self.objects.values()]


async def scene(stack: Stack, name: str) -> Scene:
    cluster = stack.sandbox.cluster
    owner, direct, member, single, stranger = [
        await cluster.user(f"{name}{number}") for number in range(5)
    ]
    project = await cluster.project(f"{name} shared", owner=owner)
    inner = await cluster.project(f"{name} inner", owner=project, by=owner)
    apart = await cluster.project(f"{name} apart", owner=owner)
    role = await cluster.role(f"{name} role", member)
    objects = {
        "shared collection": await cluster.collection(owner=inner, by=owner),
        "private collection": await cluster.collection(owner=apart, by=owner),
        "single collection": await cluster.collection(owner=apart, by=owner),
        "request": await cluster.container_request(f"{name} run", owner=project, by=owner),
        "workflow": await cluster.create(
            "workflow", {"name": name, "owner_uuid": project.uuid}, owner
        ),
        "inner": inner,
        "apart": apart,
        "role": role,
    }
    await cluster.share(project, direct)
    await cluster.share(project, role)
    await cluster.share(objects["single collection"], single)
    return Scene(owner, [owner, direct, member, single, stranger], project, apart, objects)


async def change_all(stack: Stack, here: Scene) -> None:
    """One row about each object; the role is shown to everybody, which no controller says (V3)."""
    cluster = stack.sandbox.cluster
    for name, record in here.objects.items():
        fresh = {"name": f"changed {record.uuid[-5:]}"}
        await cluster.update(record.uuid, fresh, cluster.root if name == "role" else here.owner)


def _base(stack: Stack) -> str:
    return stack.stream_url.removesuffix("/v1/stream")


async def test_events(stack: Stack) -> None:
    """A life of a workflow as v0 frames, each row once and in order."""
    cluster = stack.sandbox.cluster
    user = await cluster.user("events")
    async with watching(stack, user) as socket:
        made = await cluster.create("workflow", {"name": "one"}, user)
        await cluster.update(made, {"name": "two"}, user)
        await cluster.update(made, {"name": "three"}, user)
        await until(lambda: len(socket.about(made.uuid)) == 3, "all is shown while it is there")
        await cluster.delete(made, user)
        await until(lambda: "delete" in socket.about(made.uuid), "the last row is shown")
        assert socket.about(made.uuid) == ["create", "update", "update", "delete"]


async def test_permissions_live(stack: Stack) -> None:
    """Of every change each reader is shown exactly what the API shows."""
    here = await scene(stack, "live")
    async with AsyncExitStack() as exits:
        sockets = [await exits.enter_async_context(watching(stack, user)) for user in here.readers]
        await change_all(stack, here)
        for user, socket in zip(here.readers, sockets, strict=True):
            mark = (await stack.sandbox.cluster.collection("mark", owner=user)).uuid
            await until(lambda: socket.about(mark), "all before is shown")  # noqa: B023
            shown = {uuid for uuid in here.uuids if "update" in socket.about(uuid)}
            assert shown == await readable(stack, user, here.uuids), user.uuid


async def test_permissions_late(stack: Stack) -> None:
    """Whoever reads history afterwards is shown what may be read now, not then."""
    here = await scene(stack, "late")
    cluster = stack.sandbox.cluster
    await change_all(stack, here)
    await cluster.unshare(here.project, here.readers[1])
    await cluster.share(here.apart, here.readers[4])
    for user in here.readers:
        mark = (await cluster.collection("mark", owner=user)).uuid
        async with clients_v1.connected(_base(stack)) as client:
            await client.authenticate(user)
            await client.subscribe("e", events={"begin": "oldest"})

            def shown() -> set[str]:
                return {body["object_uuid"] for body in client.of("event")}

            await client.until_true(lambda: mark in shown())  # noqa: B023
            assert shown() & {*here.uuids} == await readable(stack, user, here.uuids), user.uuid


async def test_revocation(stack: Stack) -> None:
    """What is taken is not shown any more; a token that ends closes its connections, though no row
    tells of a logout."""
    cluster = stack.sandbox.cluster
    owner, reader = await cluster.user("giver"), await cluster.user("taker")
    project = await cluster.project("for a while", owner=owner)
    await cluster.share(project, reader)
    async with (
        watching(stack, reader) as socket,
        clients_v1.connected(_base(stack)) as client,
        connected(stack, reader) as native,
    ):
        await client.authenticate(reader)
        before = await cluster.collection("before", owner=project, by=owner)
        await until(lambda: socket.about(before.uuid), "it is shown")
        cuts = native.cuts
        await cluster.unshare(project, reader)
        await until(lambda: native.cuts > cuts, "the NATS connection is cut")
        hidden = await cluster.collection("hidden", owner=project, by=owner)
        mark = await cluster.collection("mark", owner=reader)
        await until(lambda: socket.about(mark.uuid), "all before is shown")
        assert not socket.about(hidden.uuid)
        await cluster.logout(reader)
        assert await client.closed() == TOKEN_INVALID
        await until(lambda: socket.closed, "v0 is closed, too")


async def test_logs(stack: Stack) -> None:
    """A container from commit to Complete through v0, v1 and SSE: every byte and every row; where
    Arvados does not serve them yet that is said, once."""
    release = stack.sandbox.cluster.config.release
    if release < "2.7":
        assert stack.services["publishers"].output.count("container logs are not read") == 1
        return
    report = await demo_check.check(stack)
    assert report["ok"], report


async def test_pushed_logs(stack: Stack, tmp_path: Path) -> None:
    """What a container sends itself is shown, on a release that serves no logs, too."""
    cluster = stack.sandbox.cluster
    user = await cluster.user("pushes")
    request = await cluster.container_request("pushed", owner=user)
    container = await cluster.run(request)
    actor = await cluster.container_token(container)
    async with clients_v1.connected(_base(stack)) as client:
        await client.authenticate(user)
        await client.subscribe("l", log={"uuid": request.uuid})
        async with push_log(stack, actor, container.uuid, tmp_path / "spool") as process:
            await write(process, b"one line\n")
            await client.until_content(container.uuid, "stdout.txt", b"one line\n")
            assert await close(process) == 0


async def test_queue(stack: Stack) -> None:
    """A container comes into the bucket, is locked, runs, and leaves it."""
    cluster = stack.sandbox.cluster
    admin, user = await cluster.user("boss", admin=True), await cluster.user("worker")
    connection = await nats_py.connect(
        stack.sandbox.nats.url,
        token=admin.token,
        inbox_prefix=subjects.inbox_prefix(admin.token_uuid or "").encode(),
    )
    states: list[str] = []

    async def follow(watcher: Any) -> None:
        async for entry in watcher:
            if entry is None:
                continue
            states.append(json.loads(entry.value)["state"] if entry.value else "gone")

    try:
        request = await cluster.container_request("queued", owner=user)
        bucket = await connection.jetstream().key_value("ARVADOS_QUEUE")
        watcher = await bucket.watch(str(request["container_uuid"]))
        following = asyncio.create_task(follow(watcher))
        await until(lambda: "Queued" in states, "it waits")
        container = await cluster.run(request)
        await until(lambda: "Running" in states, "it runs")
        await cluster.finish(container)
        await until(lambda: "gone" in states, "it has left")
        following.cancel()
    finally:
        await connection.close()


async def test_native(stack: Stack) -> None:
    """Live messages, the state of an object, and history with one's own token on NATS."""
    cluster = stack.sandbox.cluster
    user, stranger = await cluster.user("native"), await cluster.user("stranger")
    async with connected(stack, user) as client:
        await client.listen(f"arvados.live.{user.uuid}.>")
        made = await cluster.collection("heard", owner=user)
        await until(lambda: client.heard_of(made.uuid), "it is heard")
    async with (
        connected(stack, user, asks=True) as client,
        connected(stack, stranger, asks=True) as other,
    ):
        subject = f"{subjects.API_OBJECT}.{made.uuid}"
        assert json.loads((await client.nats.request(subject)).data)["name"] == "heard"
        refused = await other.nats.request(subject)
        assert refused.headers[answer_headers.ERROR] == "not_readable"
        asked = json.dumps({"begin": "oldest", "objects": [made.uuid]}).encode()
        answers = [a async for a in client.nats.request_all(subjects.API_EVENTS, asked)]
        assert json.loads(answers[0].data)["object_uuid"] == made.uuid


async def test_page(stack: Stack) -> None:
    """The page is served, with what it is made of, and what it reads answers."""
    user = await stack.sandbox.cluster.user("page")
    request = await stack.sandbox.cluster.container_request("seen", owner=user)
    async with httpx.AsyncClient(base_url=stack.page_url) as client:
        page = await client.get("/")
        if page.status_code == httpx.codes.NOT_FOUND:
            pytest.skip("the page is not built: make web")
        assert "<html" in page.text
        path = f"/arvados/v1/container_requests/{request.uuid}/log_events"
        headers = {"Authorization": f"Bearer {user.token}"}
        async with client.stream("GET", path, headers=headers) as answer:
            assert answer.status_code == httpx.codes.OK
            assert answer.headers["content-type"].startswith("text/event-stream")
