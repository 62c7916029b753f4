# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The real arvados-ws and wsproxy on one cluster: the same frames, field by field.

Runs where the program is (`ARVADOS_WS`, or `python -m bench.peers.build arvados-ws`).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from bench.peers import binaries
from sandbox import raw_rows
from sandbox.model.actors import Actor
from sandbox.sandbox import Sandbox
from tests.support.clients.v0 import Client, Json, client, settled
from tests.support.worlds import site as sites
from tests.support.worlds.site import Site

DONE = "done"


def _program() -> Path | None:
    places = (binaries.PEERS["arvados-ws"].given, binaries.BIN / "arvados-ws")
    return next((path for path in places if path and os.access(path, os.X_OK)), None)


pytestmark = pytest.mark.skipif(_program() is None, reason="arvados-ws is not built here")


@pytest.fixture
async def both(sandbox: Sandbox, tmp_path: Path) -> AsyncIterator[tuple[Site, Site]]:
    """Ours and theirs."""
    async with (
        sites.beside(sandbox) as ours,
        sites.with_arvados_ws(sandbox, tmp_path) as theirs,
    ):
        yield ours, theirs


async def frames(socket: Client) -> dict[str, Json]:
    """All events by the uuid of their row, until the last of the scenario."""
    found: dict[str, Json] = {}
    while True:
        event = await socket.event(40)
        assert event.pop("msgID") == len(found) + 1
        found[event["uuid"]] = event
        if event["event_type"] == DONE:
            return found


def as_ours(frame: Json) -> Json:
    """Their frame with the one field that we add (docs/compatibility.md)."""
    properties = dict(frame["properties"])
    if frame["event_type"] in ("create", "update") and "text" not in properties:
        properties.setdefault("new_attributes", {})
    return {**frame, "properties": properties}


async def _objects(site: Site, user: Actor) -> str:
    """Objects of every kind that a user works with, through their lives."""
    cluster = site.cluster
    project = await cluster.project("project", owner=user)
    collection = await cluster.collection("collection", owner=project, by=user)
    await cluster.update(collection, {"name": "renamed", "properties": {"a": [1, "é"]}}, user)
    await cluster.trash(collection, user)
    await cluster.untrash(collection, user)
    await cluster.move(collection, user, by=user)
    request = await cluster.container_request("request", owner=project, by=user)
    await cluster.run(request)
    await cluster.progress(request, 0.5, activity="busy")
    await cluster.finish(request)
    await cluster.share(project, user.uuid, by=cluster.root)
    workflow = await cluster.create("workflow", {"name": "<workflow> & co"}, user)
    await cluster.update(workflow, {"name": '\u00e9 & <b> \\ "quoted"'}, user)
    return workflow.uuid


async def _rows(site: Site, about: str) -> None:
    """Rows as some user, or an old version of Arvados, may have written them."""
    texts: list[str | None] = [
        None,
        "",
        "{}",
        "null",
        "[]",
        "{not: [json",
        '{"text": "a line\\n", "more": {"numbers": [1, 2.5, true, null]}}',
        '{"text": null, "new_attributes": {"name": "n", "state": "s", "priority": 3}}',
        '{"text": ""}',
        '{"old_attributes": "no object", "new_attributes": [1]}',
        '{"old_attributes": {"name": "o", "other": 1}, "new_attributes": {"state": {"deep": 1}}}',
        '{"new_attributes": {"name": "twice", "name": "again", "is_trashed": false}}',
        "---\nnew_attributes:\n  name: yaml\n  state: Running\n  modified_at: 2020-01-01\n",
    ]
    types: list[str | None] = ["blip", "update", "create", None, "", "UPPER CASE", "x" * 200]
    rows: list[Any] = [raw_rows.row(about, event_type="posted", properties=text) for text in texts]
    rows += [raw_rows.row(about, event_type=name) for name in types]
    connection = await asyncpg.connect(site.database.dsn)
    try:
        await raw_rows.insert(connection, rows)
        await raw_rows.insert(connection, [raw_rows.row(about, event_type=DONE)])
    finally:
        await connection.close()


async def test_the_same_frames_field_by_field(both: tuple[Site, Site]) -> None:
    """Objects of all kinds, and rows as hostile as may be."""
    ours, theirs = both
    user = await ours.cluster.user("compared")
    await settled(ours.websocket_url, ours.api.url, user)
    await settled(theirs.websocket_url, theirs.api.url, user)
    async with (
        client(ours.websocket_url, user.token) as our_socket,
        client(theirs.websocket_url, user.token) as their_socket,
    ):
        for socket in (our_socket, their_socket):
            await socket.subscribe()
        about = await _objects(ours, user)
        await _rows(ours, about)
        our_frames, their_frames = await frames(our_socket), await frames(their_socket)
    assert len(our_frames) > 40
    differing = {
        uuid: (our_frames.get(uuid), as_ours(frame))
        for uuid, frame in their_frames.items()
        if our_frames.get(uuid) != as_ours(frame)
    }
    assert not differing
    assert our_frames.keys() == their_frames.keys()
