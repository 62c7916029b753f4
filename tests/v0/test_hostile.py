# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whatever one user posts, nobody else's connection notices (docs/facts/arvados.md 0.3, 0.4)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import pytest

from sandbox import raw_rows
from sandbox.model.actors import Actor
from sandbox.raw_rows import RawRow
from tests.support.clients.v0 import Api, client, settled
from tests.support.worlds.site import Site

NOBODY = "zzzzz-4zz18-nobodysobjectxx"
LONG = 5_000_000


def about(uuid: str | None, **fields: Any) -> RawRow:
    return raw_rows.row(uuid, **fields)


@pytest.mark.ours("arvados-ws ends every connection on a bogus object_uuid")
async def test_bad_rows_reach_nobody_and_end_nothing(
    site: Site, active: Actor, spectator: Actor, admin: Actor, active_api: Api
) -> None:
    """No object, no such object, no such kind, no owner, no type: for users and admins alike."""
    rows = [
        about(None),
        about(""),
        about("not a uuid"),
        about("zzzzz-zzzzz-zzzzzzzzzzzzzzz"),
        about("zzzzz-4zz18-UPPERCASEUPPER0"),
        about(NOBODY),
        about(NOBODY, event_type="delete", object_owner_uuid=None),
        about(NOBODY, event_type="delete", object_owner_uuid="not a uuid"),
        about(None, event_type=None, properties=None, object_owner_uuid=None),
        about(NOBODY, event_type="x" * 255, properties="null"),
        about("zzzzz-dz642-nobodyscontainr", event_type="update"),
        about("zzzzz-o0j2j-nobodyslinkxxxx", event_type="create"),
    ]
    connection = await asyncpg.connect(site.database.dsn)
    try:
        async with (
            client(site.websocket_url, active.token) as one,
            client(site.websocket_url, spectator.token) as other,
            client(site.websocket_url, admin.token) as third,
        ):
            for socket in (one, other, third):
                await socket.subscribe()
            await raw_rows.insert(connection, rows)
            made = await active_api.post("collections", name="after it all")
            event = await one.event()
            assert event["object_uuid"] == made["uuid"]
            assert (await third.event())["object_uuid"] == made["uuid"]
            await other.silent(0.3)
            await other.subscribe()
    finally:
        await connection.close()


@pytest.mark.ours("arvados-ws is slow with them")
async def test_rows_of_any_size_arrive_or_are_cut_to_what_travels(
    site: Site, active: Actor
) -> None:
    """A manifest of 5 MB is not sent at all; a text of 5 MB is too long for any message
    (docs/facts/arvados-demand.md A19, G30)."""
    collection = await site.cluster.collection("large", owner=active)
    await settled(site.websocket_url, site.api.url, active)
    manifest = {"name": "large", "manifest_text": "x" * LONG}
    rows = [
        about(collection.uuid, properties=raw_rows.change(manifest, manifest)),
        about(collection.uuid, event_type="note", properties=json.dumps({"text": "y" * LONG})),
        about(collection.uuid, event_type="end"),
    ]
    connection = await asyncpg.connect(site.database.dsn)
    try:
        async with client(site.websocket_url, active.token, max_size=None) as socket:
            await socket.subscribe()
            await raw_rows.insert(connection, rows)
            first = await socket.event()
            assert first["properties"]["new_attributes"] == {"name": "large"}
            second = await socket.event()
            assert second["event_type"] == "note"
            assert (await socket.event())["event_type"] == "end"
    finally:
        await connection.close()


async def test_posted_rows_show_what_was_posted_to_those_who_see_the_object(
    site: Site, active: Actor, spectator: Actor, active_api: Api
) -> None:
    """Also a lie; and a lie about the owner gives nobody else a look."""
    made = await active_api.post("collections", name="mine")
    await settled(site.websocket_url, site.api.url, active)
    lie = {"name": "a lie", "owner_uuid": spectator.uuid, "state": "Running"}
    async with (
        client(site.websocket_url, active.token) as socket,
        client(site.websocket_url, spectator.token) as other,
    ):
        await socket.subscribe()
        await other.subscribe()
        await active_api.post(
            "logs",
            object_uuid=made["uuid"],
            event_type="update",
            properties={"old_attributes": {}, "new_attributes": lie},
        )
        event = await socket.event()
        assert event["properties"] == {"old_attributes": {}, "new_attributes": lie}
        await other.silent(0.3)


async def test_a_bogus_notify_does_no_harm(site: Site, active: Actor, active_api: Api) -> None:
    """Anybody who can connect to the database can send one."""
    connection = await asyncpg.connect(site.database.dsn)
    try:
        async with client(site.websocket_url, active.token) as socket:
            await socket.subscribe()
            for payload in ("999999999", "abc", "", "-1", "9" * 40):
                await connection.execute("SELECT pg_notify('logs', $1)", payload)
            made = await active_api.post("collections", name="after it all")
            async with asyncio.timeout(60):
                assert (await socket.event())["object_uuid"] == made["uuid"]
    finally:
        await connection.close()
