# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Each row of the Revocations table of facts/arvados.md 1, for a v0 connection that stays open."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from websockets.exceptions import ConnectionClosed

from sandbox.cluster import Cluster
from sandbox.model.records import Record
from sandbox.stack import Stack
from tests.flows.revocations import SCENES, Given
from tests.v0.client import Client, client

_names = itertools.count(1)


async def _make(cluster: Cluster, given: Given, kind: str, name: str) -> Record:
    make = cluster.collection if kind == "collection" else cluster.container_request
    return await make(name, owner=given.project, by=given.owner)


async def _closed(socket: Client, within: float) -> int | None:
    with pytest.raises(ConnectionClosed):
        async with asyncio.timeout(within):
            while True:
                await socket.socket.recv()
    return socket.socket.close_code


@pytest.mark.parametrize("name", SCENES)
async def test_what_is_taken_is_not_shown(stack: Stack, name: str) -> None:
    """Until then every change is shown; the very next change after it is not."""
    scene, within = SCENES[name]
    cluster = stack.sandbox.cluster
    reader = await cluster.user(f"socket{next(_names)}")
    given = await scene(cluster, reader)
    kind = given.hides[-1]
    async with (
        client(stack.websocket_url, reader.token) as socket,
        client(stack.websocket_url, cluster.root.token) as other,
    ):
        await socket.subscribe()
        await other.subscribe()
        before = await _make(cluster, given, kind, "before")
        await socket.event_about(before.uuid)
        await given.take()
        if given.ends_token:
            assert await _closed(socket, within) == 4501
            return
        if name == "trash_time_passed":
            await asyncio.sleep(1.2)  # the time itself, which nothing announces
        about = before if kind == "request" else await _make(cluster, given, kind, "after")
        await cluster.log(cluster.root, object_uuid=about.uuid, event_type="after")
        if kind == "collection":
            await other.event_about(about.uuid, "after")
        await cluster.log(cluster.root, object_uuid=reader.uuid, event_type="sentinel")
        shown = []
        while (event := await socket.event())["event_type"] != "sentinel":
            shown.append((event["object_uuid"], event["event_type"]))
        assert (about.uuid, "after") not in shown
        assert about is before or (about.uuid, "create") not in shown


async def test_what_is_given_is_shown_from_then_on(stack: Stack) -> None:
    """On the connection that is open, with the first change after it."""
    cluster = stack.sandbox.cluster
    reader, owner = await cluster.user("socketgains"), await cluster.user("owner")
    project = await cluster.project(f"later {next(_names)}", owner=owner)
    async with client(stack.websocket_url, reader.token) as socket:
        await socket.subscribe()
        await cluster.collection("unseen", owner=project, by=owner)
        await cluster.share(project, reader)
        made = await cluster.collection("seen", owner=project, by=owner)
        shown = []
        while (event := await socket.event())["object_uuid"] != made.uuid:
            shown.append(event["object_kind"])
        assert "arvados#collection" not in shown
