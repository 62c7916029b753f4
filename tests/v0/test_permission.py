# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who hears what: arvados-ws' permission_test.go seen from outside, and tokens of every kind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from sandbox import raw_rows
from sandbox.model.actors import Actor
from tests.support.clients.v0 import Api, client, settled
from tests.support.worlds.site import Site

EMPTY = "d41d8cd98f00b204e9800998ecf8427e+0"
"""The portable data hash of a collection without files."""


@pytest.mark.parametrize("token", [None, "", "undefined", "v2/zzzzz-gj3su-000/none", "ö", "a%20b"])
async def test_any_token_connects_and_a_bad_one_hears_nothing(
    site: Site, active_api: Api, token: str | None
) -> None:
    """No error either: arvados-ws cannot tell before the first event."""
    async with client(site.websocket_url, token) as socket:
        await socket.subscribe()
        await active_api.emit_events()
        await socket.silent()
        await socket.subscribe()


async def test_expired_token_hears_nothing(site: Site, active: Actor, active_api: Api) -> None:
    """An expired token is a bad one."""
    expired = await site.cluster.token(active, expires_at=datetime.now(UTC) - timedelta(hours=1))
    async with client(site.websocket_url, expired.token) as socket:
        await socket.subscribe()
        await active_api.emit_events()
        await socket.silent()


async def test_anonymous_hears_of_public_objects_only(site: Site, active: Actor) -> None:
    """The anonymous user is not active, and reads what its group may read."""
    config = site.cluster.config
    public = await site.cluster.project("public", owner=active)
    await site.cluster.share(public, config.anonymous_group)
    private = await site.cluster.collection("private", owner=active)
    await settled(site.websocket_url, site.api.url, active)
    async with client(site.websocket_url, config.anonymous_user_token) as socket:
        await socket.subscribe()
        await site.cluster.update(private, {"name": "still private"}, active)
        shown = await site.cluster.collection("shown", owner=public, by=active)
        event = await socket.event()
        assert event["object_uuid"] == shown.uuid


@pytest.mark.ours("arvados-ws shows rows about a portable data hash")
async def test_check_of_a_public_collection_by_uuid_and_by_pdh(
    site: Site, active: Actor, admin: Actor
) -> None:
    """By uuid yes, private no. A portable data hash is no object: a row about one, which only a
    user can post, reaches nobody (docs/compatibility.md)."""
    config = site.cluster.config
    public = await site.cluster.project("public", owner=active)
    await site.cluster.share(public, config.anonymous_group)
    shown = await site.cluster.collection("shown", owner=public, by=active)
    private = await site.cluster.collection("private", owner=active)
    await settled(site.websocket_url, site.api.url, active)
    connection = await asyncpg.connect(site.database.dsn)
    try:
        async with client(site.websocket_url, config.anonymous_user_token) as socket:
            await socket.subscribe()
            about = (private.uuid, EMPTY, shown.uuid)
            rows = [raw_rows.row(uuid, event_type="blip") for uuid in about]
            await raw_rows.insert(connection, rows)
            assert (await socket.event())["object_uuid"] == shown.uuid
    finally:
        await connection.close()


async def test_admin_hears_of_everything(site: Site, admin: Actor, active_api: Api) -> None:
    """Without any permission link."""
    async with client(site.websocket_url, admin.token) as socket:
        await socket.subscribe()
        uuid = await active_api.emit_events()
        for event_type in ("create", "blip", "update"):
            await socket.event_about(uuid, event_type)


async def test_system_root_token_hears_of_everything(site: Site, active_api: Api) -> None:
    """It is no row of the database."""
    async with client(site.websocket_url, site.cluster.config.system_root_token) as socket:
        await socket.subscribe()
        await socket.event_about(await active_api.emit_events())


async def test_a_container_is_seen_through_its_request(
    site: Site, active: Actor, spectator: Actor
) -> None:
    """Its own owner is the system user."""
    request = await site.cluster.container_request("ws_test", owner=active)
    async with (
        client(site.websocket_url, active.token) as socket,
        client(site.websocket_url, spectator.token) as other,
    ):
        await socket.subscribe()
        await other.subscribe()
        container = await site.cluster.run(request)
        seen = []
        while "Running" not in seen:
            event = await socket.event_about(container.uuid, "update")
            seen.append(event["properties"]["new_attributes"]["state"])
        assert seen == ["Locked", "Running"]
        await other.silent()


@pytest.mark.ours("arvados-ws keeps each answer for an hour")
async def test_sharing_shows_what_comes_and_unsharing_hides_it(
    site: Site, active: Actor, spectator: Actor
) -> None:
    """The very next change after the link counts; no cache of an hour as in arvados-ws."""
    project = await site.cluster.project("shared", owner=active)
    collection = await site.cluster.collection("in it", owner=project, by=active)
    await settled(site.websocket_url, site.api.url, active)
    changes = [["event_type", "in", ["update"]]]
    async with client(site.websocket_url, spectator.token) as socket:
        await socket.subscribe(changes)
        await site.cluster.update(collection, {"name": "unseen"}, active)
        await site.cluster.share(project, spectator)
        await site.cluster.update(collection, {"name": "seen"}, active)
        event = await socket.event_about(collection.uuid)
        assert event["properties"]["new_attributes"]["name"] == "seen"
        await site.cluster.unshare(project, spectator)
        await site.cluster.update(collection, {"name": "unseen again"}, active)
        await socket.silent()


@pytest.mark.ours("an answer that arvados-ws does not know")
async def test_who_asks_is_told_that_they_may_read_less(site: Site, active: Actor) -> None:
    """Also where no row says so that they could read: one role is taken out of another."""
    cluster = site.cluster
    member = await cluster.user(f"member {active.uuid}")
    inner = await cluster.role(f"inner {member.uuid}", member)
    outer = await cluster.role(f"outer {member.uuid}", inner)
    project = await cluster.project("of a role", owner=active)
    await cluster.share(project, outer)
    seen = await cluster.collection("in it", owner=project, by=active)
    await settled(site.websocket_url, site.api.url, member)
    async with (
        client(site.websocket_url, member.token) as asks,
        client(site.websocket_url, member.token) as plain,
    ):
        await asks.send({"method": "subscribe", "narrowed": True})
        assert await asks.status() == 200
        await plain.subscribe()
        await cluster.update(seen, {"name": "seen"}, active)
        for socket in (asks, plain):
            await socket.event_about(seen.uuid)
        await cluster.unshare(outer, inner)
        assert await asks.receive() == {"narrowed": True}
        await plain.silent()


async def test_a_new_project_is_seen_with_all_that_is_made_in_it_at_once(
    site: Site, active: Actor
) -> None:
    """Its right to be seen exists as soon as it does."""
    async with client(site.websocket_url, active.token) as socket:
        await socket.subscribe([["event_type", "in", ["create"]]])
        async with site.cluster.transaction() as together:
            outer = await together.project("outer", owner=active)
            inner = await together.project("inner", owner=outer)
            collection = await together.collection("deep inside", owner=inner)
        seen = [(await socket.event())["object_uuid"] for _ in range(3)]
        assert seen == [outer.uuid, inner.uuid, collection.uuid]


async def test_an_object_shared_as_it_is_made_is_seen_from_its_making(
    site: Site, active: Actor, spectator: Actor
) -> None:
    """The link that shares it stands behind it in the same transaction."""
    async with client(site.websocket_url, spectator.token) as socket:
        await socket.subscribe([["event_type", "in", ["create"]]])
        for number in range(5):
            async with site.cluster.transaction() as together:
                made = await together.collection(f"given away {number}", owner=active)
                await together.share(made, spectator)
            assert (await socket.event())["object_uuid"] == made.uuid
            link = await socket.event()
            assert link["object_kind"] == "arvados#link"


@pytest.mark.ours("arvados-ws keeps each answer for an hour")
async def test_a_moved_object_is_seen_where_it_is(
    site: Site, active: Actor, spectator: Actor
) -> None:
    """Whoever sees the new place gets the update; who saw only the old one, that it has left."""
    mine = await site.cluster.project("mine", owner=active)
    theirs = await site.cluster.project("theirs", owner=active)
    await site.cluster.share(theirs, spectator)
    collection = await site.cluster.collection("traveller", owner=mine, by=active)
    await settled(site.websocket_url, site.api.url, active)
    await settled(site.websocket_url, site.api.url, spectator)
    async with client(site.websocket_url, spectator.token) as socket:
        await socket.subscribe()
        await site.cluster.move(collection, theirs, by=active)
        event = await socket.event()
        assert event["object_uuid"] == collection.uuid
        assert event["properties"]["old_attributes"]["owner_uuid"] == mine.uuid
        await site.cluster.move(collection, mine, by=active)
        event = await socket.event()
        assert event["properties"]["old_attributes"]["owner_uuid"] == theirs.uuid
        assert event["properties"]["new_attributes"] == {}
        await site.cluster.update(collection, {"name": "homebody"}, active)
        await socket.silent()


async def test_a_scoped_token_hears_of_what_it_may_get(
    site: Site, active: Actor, active_api: Api
) -> None:
    """A token for collections only."""
    scoped = await site.cluster.token(active, scopes=["GET /arvados/v1/collections/"])
    async with client(site.websocket_url, scoped.token) as socket:
        await socket.subscribe()
        await active_api.emit_events()
        collection = await active_api.post("collections", name="ws_test")
        event = await socket.event()
        assert event["object_uuid"] == collection["uuid"]
