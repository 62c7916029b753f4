# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A workflow that is linked to a collection is read with it, on every way (V5)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from arvados_nats.contract import answers, subjects
from sandbox.model.actors import Actor
from sandbox.stack import Stack
from tests.support.clients.native import connected
from tests.support.waiting import until


async def _status(stack: Stack, user: Actor, uuid: str) -> int:
    """What the API itself says."""
    async with httpx.AsyncClient(base_url=stack.sandbox.api.url) as client:
        path = f"/arvados/v1/workflows/{uuid}"
        headers = {"Authorization": f"Bearer {user.token}"}
        return (await client.get(path, headers=headers)).status_code


async def _v0(stack: Stack, user: Actor, came: list[str], ready: asyncio.Event) -> None:
    async with connect(f"{stack.websocket_url}?api_token={user.token}") as socket:
        await socket.send(json.dumps({"method": "subscribe"}))
        async for frame in socket:
            ready.set()
            came.append(str(frame))


async def _record(stack: Stack, user: Actor, uuid: str) -> dict[str, Any]:
    """The first answer about the object in protocol v1."""
    protocols = [Subprotocol("arvados.events.v1.json")]
    async with connect(stack.stream_url, subprotocols=protocols) as socket:
        await socket.send(json.dumps({"auth": {"token": user.token}}))
        await socket.send(json.dumps({"subscribe": {"id": "o", "object": {"uuid": uuid}}}))
        async for frame in socket:
            message: dict[str, Any] = json.loads(frame)
            if "object" in message or "error" in message:
                return message
    raise AssertionError("closed without an answer")


async def test_a_linked_workflow_goes_where_its_collection_goes(stack: Stack) -> None:
    """To whoever may read the collection, and not to whoever may read its own project alone: by
    both sockets, on NATS and as a record, as the API answers."""
    cluster = stack.sandbox.cluster
    owner, of_project, of_collection = [
        await cluster.user(name) for name in ("linker", "projects", "collections")
    ]
    project = await cluster.project("workflows", owner=owner)
    apart = await cluster.project("apart", owner=owner)
    collection = await cluster.collection("definition", owner=apart, by=owner)
    await cluster.share(project, of_project)
    await cluster.share(collection, of_collection)
    given = {"name": "linked", "owner_uuid": project.uuid}
    workflow = await cluster.create("workflow", given, owner)
    await cluster.pool.execute(
        "UPDATE workflows SET collection_uuid = $1 WHERE uuid = $2", collection.uuid, workflow.uuid
    )
    heard: dict[str, list[str]] = {"project": [], "collection": []}
    ready = [asyncio.Event(), asyncio.Event()]
    async with (
        connected(stack, of_project) as one,
        connected(stack, of_collection) as other,
        asyncio.TaskGroup() as tasks,
    ):
        sockets = [
            tasks.create_task(_v0(stack, user, came, event))
            for user, came, event in zip(
                (of_project, of_collection), heard.values(), ready, strict=True
            )
        ]
        for event in ready:
            await event.wait()
        await one.listen(f"arvados.live.{project.uuid}.>")
        await other.listen(f"arvados.live.{collection.uuid}.*.{collection.uuid}.>")
        await cluster.update(workflow, {"description": "changed"}, owner)
        after = await cluster.collection("after", owner=project, by=owner)
        await until(lambda: one.heard_of(after.uuid), "what comes after is heard")
        await until(lambda: after.uuid in str(heard["project"]), "and seen")
        await until(lambda: workflow.uuid in str(heard["collection"]), "the workflow is seen")
        await until(lambda: other.heard_of(workflow.uuid), "and heard")
        assert workflow.uuid not in str(heard["project"])
        assert not one.heard_of(workflow.uuid)
        for task in sockets:
            task.cancel()
    async with (
        connected(stack, of_project, asks=True) as one,
        connected(stack, of_collection, asks=True) as other,
    ):
        answer = await one.nats.request(f"{subjects.API_OBJECT}.{workflow.uuid}")
        assert answer.headers[answers.ERROR] == "not_readable"
        answer = await other.nats.request(f"{subjects.API_OBJECT}.{workflow.uuid}")
        assert json.loads(answer.data)["collection_uuid"] == collection.uuid
    assert await _status(stack, of_project, workflow.uuid) == 404
    assert await _status(stack, of_collection, workflow.uuid) == 200
    assert "error" in await _record(stack, of_project, workflow.uuid)
    assert "object" in await _record(stack, of_collection, workflow.uuid)
