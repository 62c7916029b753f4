# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A native client hears what it may, and stops hearing it when the permission is taken."""

from __future__ import annotations

import asyncio

import pytest

from sandbox.cluster import Cluster
from sandbox.model.records import Record
from sandbox.stack import Stack
from tests.support.clients.native import Native, connected
from tests.support.revocations import SCENES, Given
from tests.support.waiting import until


async def _subscribe(client: Native, project_uuid: str) -> None:
    await client.listen(f"arvados.live.{project_uuid}.>")


async def _make(cluster: Cluster, given: Given, kind: str, name: str) -> Record:
    make = cluster.collection if kind == "collection" else cluster.container_request
    return await make(name, owner=given.project, by=given.owner)


@pytest.mark.parametrize("name", SCENES)
async def test_what_is_taken_is_not_heard(stack: Stack, name: str) -> None:
    """Until then every change arrives; afterwards none. The client is cut where the reader's own
    access was taken, and for nothing that was done to the project below it."""
    scene, within = SCENES[name]
    cluster = stack.sandbox.cluster
    reader = await cluster.user("native")
    given = await scene(cluster, reader)
    kind = given.hides[-1]
    async with connected(stack, reader) as client:
        await _subscribe(client, given.share or given.project.uuid)
        before = await _make(cluster, given, kind, "before")
        await until(lambda: client.heard_of(before.uuid), "what is readable arrives")
        cuts = client.cuts
        await given.take()
        if given.cuts:
            await until(lambda: client.cuts > cuts, f"{name} cuts the connection", within)
        heard = len(client.heard_of(before.uuid))
        if name == "trash_time_passed":
            await asyncio.sleep(within)  # the moment to come is what takes it
        async with connected(stack, cluster.root) as other:
            await other.listen("arvados.stored.events.>")
            await cluster.log(cluster.root, object_uuid=before.uuid, event_type="after")
            await until(lambda: other.heard_of(f"{before.uuid}.after"), "others still hear")
        assert len(client.heard_of(f"{before.uuid}.after")) == 0
        assert len(client.heard_of(before.uuid)) == heard
        assert given.cuts or client.cuts == cuts


async def test_what_others_do_below_cuts_nobody(stack: Stack) -> None:
    """A lab makes, moves and trashes projects all day; who can read them all hears of it, on the
    connection that they had (V11). Somebody to whom one is given last is cut, as all would be."""
    cluster = stack.sandbox.cluster
    reader, other = await cluster.user("reads"), await cluster.user("gains")
    owner = await cluster.user("lab")
    tree = await cluster.project("tree", owner=owner)
    await cluster.share(tree, reader)
    home = await cluster.project("home", owner=tree, by=owner)
    async with connected(stack, reader) as client, connected(stack, other) as gaining:
        await _subscribe(client, tree.uuid)
        cuts, gained = client.cuts, gaining.cuts
        project = await cluster.project("made", owner=tree, by=owner)
        inner = await cluster.project("inner", owner=project, by=owner)
        await cluster.update(project, {"name": "renamed"}, owner)
        await cluster.move(inner, home, by=owner)
        await cluster.update(project, {"frozen_by_uuid": cluster.root.uuid}, cluster.root)
        await cluster.update(project, {"frozen_by_uuid": None}, cluster.root)
        await cluster.trash(project, owner)
        await cluster.untrash(project, owner)
        await cluster.delete(project.uuid, owner)
        await cluster.role("a role")
        for made in (project, inner):
            await until(lambda: client.heard_of(made.uuid), "it is heard of")  # noqa: B023
        await cluster.share(home, other)
        await until(lambda: gaining.cuts > gained, "who was given something is cut")
        assert client.cuts == cuts


async def test_what_is_given_is_heard(stack: Stack) -> None:
    """A project that is shared later: the client comes back with a wider list by itself."""
    cluster = stack.sandbox.cluster
    reader, owner = await cluster.user("gains"), await cluster.user("owner")
    project = await cluster.project("later", owner=owner)
    async with connected(stack, reader) as client:
        await _subscribe(client, project.uuid)
        cuts = client.cuts
        await cluster.share(project, reader)
        await until(lambda: client.cuts > cuts and client.nats.connected, "it is back")
        await _subscribe(client, project.uuid)
        made = await cluster.collection("seen", owner=project, by=owner)
        await until(lambda: client.heard_of(made.uuid), "what was given arrives")


async def test_a_container_shows_under_its_requests(stack: Stack) -> None:
    """Its events and log lines appear below each request that points to it."""
    cluster = stack.sandbox.cluster
    owner, reader = await cluster.user("owner"), await cluster.user("logreader")
    project = await cluster.project("runs", owner=owner)
    await cluster.share(project, reader)
    request = await cluster.container_request("run", owner=project, by=owner)
    async with connected(stack, reader) as client:
        await _subscribe(client, project.uuid)
        container = await cluster.run(request)
        await cluster.write_log(request, "stdout.txt", b"hello from the container\n")
        await until(
            lambda: any(b"hello from the container" in message.data for message in client.heard),
            "the line arrives",
        )
        await until(
            lambda: any(
                f".event.container.{container.uuid}.update" in message.subject
                for message in client.heard
            ),
            "its state arrives",
        )
        await cluster.finish(container)
