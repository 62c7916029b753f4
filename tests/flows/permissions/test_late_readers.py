# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whoever joins later gets of the past what Arvados would show them of it now, by every door."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from sandbox.model.actors import Actor
from sandbox.stack import Stack
from tests.support.clients import late, v1
from tests.support.clients.late import Events
from tests.support.clients.native_answers import eventually

SECRET = "SECRET NAME"

Door = Callable[[Stack, Actor], Awaitable[Events]]


@pytest.fixture
async def first_row(stack: Stack) -> AsyncIterator[int]:
    """The id of a row from before the test."""
    yield await stack.sandbox.cluster.pool.fetchval("SELECT max(id) FROM logs")


@pytest.fixture(params=["v0", "v1", "native"])
def door(request: pytest.FixtureRequest, first_row: int) -> Door:
    """One of the ways into the past."""

    async def v0(stack: Stack, actor: Actor) -> Events:
        return await late.by_v0(stack, actor, first_row)

    doors: dict[str, Door] = {"v0": v0, "v1": late.by_v1, "native": late.by_native}
    return doors[request.param]


async def published(stack: Stack) -> None:
    """All that was done up to now is in the stream, and seen by the proxy."""
    cluster = stack.sandbox.cluster
    marker = await cluster.collection(owner=cluster.root)

    async def seen() -> bool:
        async with v1.connected(f"ws://127.0.0.1:{stack.proxy_port}", cluster.root) as client:
            await client.subscribe("a", events={"begin": "oldest", "objects": [marker.uuid]})
            await client.until("caught_up", id="a")
            return bool(client.of("event"))

    await eventually(seen)


async def test_the_past_of_what_was_moved_away_is_not_shown(stack: Stack, door: Door) -> None:
    """A request and a collection were in a project that is shared only when they have left it."""
    cluster = stack.sandbox.cluster
    owner, friend = await cluster.user("late owner"), await cluster.user("late friend")
    project = await cluster.project(owner=owner)
    private = await cluster.project(owner=owner)
    request = await cluster.container_request("r", owner=project, by=owner)
    container = await cluster.run(request)
    collection = await cluster.collection("c", owner=project, by=owner)
    for moved in (request, collection):
        await cluster.update(moved, {"name": f"{SECRET} {moved.uuid}"}, owner)
        await cluster.move(moved, private, by=owner)
    await cluster.share(project, friend)
    await published(stack)
    found = await door(stack, friend)
    about = {event["object_uuid"] for event in found.values()}
    assert not about & {request.uuid, container.uuid, collection.uuid, private.uuid}
    assert SECRET not in json.dumps(list(found.values()))
    assert project.uuid in about
    own = await door(stack, owner)
    assert {request.uuid, collection.uuid} <= {event["object_uuid"] for event in own.values()}


async def test_the_past_of_what_was_moved_here_is_shown(stack: Stack, door: Door) -> None:
    """Arvados shows the object, so what happened to it as well."""
    cluster = stack.sandbox.cluster
    owner, friend = await cluster.user("early owner"), await cluster.user("early friend")
    project = await cluster.project(owner=owner)
    await cluster.share(project, friend)
    collection = await cluster.collection("c", owner=owner)
    await cluster.update(collection, {"name": "other"}, owner)
    await cluster.move(collection, project, by=owner)
    await published(stack)
    found = await door(stack, friend)
    told = [e["event_type"] for e in found.values() if e["object_uuid"] == collection.uuid]
    assert told == ["create", "update", "update"]


async def test_what_is_gone_is_shown_as_its_deletion_is(stack: Stack, door: Door) -> None:
    """To those who may read its last owner, wherever it was before, and whoever says so."""
    cluster = stack.sandbox.cluster
    owner, friend = await cluster.user("gone owner"), await cluster.user("gone friend")
    project, private = await cluster.project(owner=owner), await cluster.project(owner=owner)
    await cluster.share(project, friend)
    draft: dict[str, Any] = {"by": owner, "state": "Uncommitted", "priority": 0}
    here = await cluster.container_request(f"here {owner.uuid}", owner=private, **draft)
    away = await cluster.container_request(f"away {owner.uuid}", owner=project, **draft)
    await published(stack)
    await cluster.move(here, project, by=owner)
    await cluster.move(away, private, by=owner)
    for request in (here, away):
        await cluster.delete(request, owner)
    await cluster.log(
        friend,
        object_uuid=away.uuid,
        object_owner_uuid=friend.uuid,
        event_type="delete",
        properties={"old_attributes": {"owner_uuid": friend.uuid}},
    )
    await published(stack)
    found = await door(stack, friend)
    told = [e["event_type"] for e in found.values() if e["object_uuid"] == here.uuid]
    assert told == ["create", "update", "delete"]
    assert f"away {owner.uuid}" not in json.dumps(list(found.values()))
