# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A native client hears what it may, and stops hearing it when the permission is taken."""

from __future__ import annotations

import itertools

import pytest

from sandbox.stack import Stack
from tests.flows.native import Native, connected, until
from tests.flows.revocations import SCENES

_names = itertools.count(1)


async def _subscribe(client: Native, project_uuid: str) -> None:
    await client.listen(f"arvados.live.{project_uuid}.>")


@pytest.mark.parametrize("name", SCENES)
async def test_what_is_taken_is_not_heard(stack: Stack, name: str) -> None:
    """Until then every change arrives; afterwards none, and the client knows by a cut."""
    scene, within = SCENES[name]
    cluster = stack.sandbox.cluster
    reader = await cluster.user(f"native{next(_names)}")
    given = await scene(cluster, reader)
    async with connected(stack, reader) as client:
        await _subscribe(client, given.project.uuid)
        before = await cluster.collection("before", owner=given.project, by=given.owner)
        await until(lambda: client.heard_of(before.uuid), "what is readable arrives")
        cuts = client.cuts
        await given.take()
        await until(lambda: client.cuts > cuts, f"{name} cuts the connection", within)
        after = await cluster.collection("after", owner=given.project, by=given.owner)
        watcher = await cluster.user("owner")
        async with connected(stack, watcher) as other:
            await _subscribe(other, given.project.uuid)
            last = await cluster.collection("last", owner=given.project, by=given.owner)
            await until(lambda: other.heard_of(last.uuid), "the owner still hears")
        assert not client.heard_of(after.uuid)
        assert not client.heard_of(last.uuid)


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
