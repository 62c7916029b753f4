# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The cases of arvados-ws' session_v0_test.go, under their names."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from sandbox.model.actors import Actor
from tests.support.clients.v0 import Api, Client, api, client, settled
from tests.support.worlds.site import Site

UPDATES = [["event_type", "in", ["update"]]]
V0_KEYS = {
    "msgID",
    "id",
    "uuid",
    "object_uuid",
    "object_owner_uuid",
    "object_kind",
    "event_type",
    "event_at",
    "properties",
}


async def expect_emitted(socket: Client, uuid: str) -> None:
    """The three events of `emit_events`, in order, and nothing between them."""
    for event_type in ("create", "blip", "update"):
        event = await socket.event()
        assert (event["object_uuid"], event["event_type"]) == (uuid, event_type)


async def test_filters(site: Site, active: Actor, active_api: Api) -> None:
    """Equal subscriptions are kept apart: each 200, removed one at a time, the rest deliver."""
    async with client(site.websocket_url, active.token) as socket:
        for _ in range(3):
            await socket.subscribe(UPDATES)
        assert await socket.unsubscribe([["event_type", "in", ["create"]]]) == 400
        assert await socket.unsubscribe(UPDATES) == 200
        assert await socket.unsubscribe(UPDATES) == 200
        uuid = await active_api.emit_events()
        event = await socket.event()
        assert (event["object_uuid"], event["event_type"]) == (uuid, "update")
        assert await socket.unsubscribe(UPDATES) == 200
        assert await socket.unsubscribe(UPDATES) == 400
        await active_api.emit_events()
        await socket.silent()


async def test_an_event_comes_once_however_many_subscriptions_match(
    site: Site, active: Actor, active_api: Api
) -> None:
    """Subscriptions are OR-ed."""
    async with client(site.websocket_url, active.token) as socket:
        await socket.subscribe()
        await socket.subscribe()
        await socket.subscribe(UPDATES)
        await expect_emitted(socket, await active_api.emit_events())
        await socket.silent()


async def test_last_log_id(site: Site, active: Actor, active_api: Api) -> None:
    """Replay from a row, then live events, in order on the same socket."""
    last_id = await active_api.newest_log_id()
    async with client(site.websocket_url, active.token) as socket:
        before = await active_api.emit_events()
        await socket.subscribe(last_log_id=last_id)
        await expect_emitted(socket, before)
        await expect_emitted(socket, await active_api.emit_events())
        await socket.silent()


async def test_permission(site: Site, active: Actor, active_api: Api, admin_api: Api) -> None:
    """Another user's private object is never shown, one's own is."""
    async with client(site.websocket_url, active.token) as socket:
        await socket.subscribe()
        await admin_api.emit_events()
        uuid = await active_api.emit_events()
        event = await socket.event()
        assert event["object_uuid"] == uuid


async def test_event_type_delete(
    site: Site, active: Actor, spectator: Actor, active_api: Api, admin_api: Api
) -> None:
    """After an admin deletes two private objects, each owner gets his own delete next."""
    async with (
        api(site.api.url, spectator.token) as spectator_api,
        client(site.websocket_url, active.token) as one,
        client(site.websocket_url, spectator.token) as other,
    ):
        first = (await active_api.post("workflows", name="ws_test"))["uuid"]
        second = (await spectator_api.post("workflows", name="ws_test"))["uuid"]
        for socket in (one, other):
            await socket.subscribe([["event_type", "in", ["delete"]]])
        await admin_api.delete("workflows", first)
        await admin_api.delete("workflows", second)
        for socket, uuid in ((one, first), (other, second)):
            event = await socket.event_about(uuid)
            assert event["event_type"] == "delete"


@pytest.mark.ours("arvados-ws shows a delete in a home to all who can see the home's user")
async def test_a_delete_in_a_home_is_no_business_of_others(
    site: Site, active: Actor, spectator: Actor, active_api: Api, admin_api: Api
) -> None:
    """Though every user may see the other's name."""
    async with client(site.websocket_url, spectator.token) as socket:
        await socket.subscribe()
        made = (await active_api.post("workflows", name="ws_test"))["uuid"]
        await admin_api.delete("workflows", made)
        await socket.silent()


async def test_event_properties_fields(site: Site, active: Actor, active_api: Api) -> None:
    """An unsupported filter matches; a posted update of a running container keeps its fields."""
    request = await site.cluster.container_request("ws_test", owner=active)
    container = await site.cluster.run(request)
    await settled(site.websocket_url, site.api.url, active)
    async with client(site.websocket_url, active.token) as socket:
        await socket.subscribe([["object_uuid", "=", container.uuid]])
        posted = {
            "name": "namestring",
            "requesting_container_uuid": container.uuid,
            "state": "Running",
            "command": ["not", "sent"],
        }
        await active_api.post(
            "logs",
            object_uuid=container.uuid,
            event_type="update",
            properties={"new_attributes": posted},
        )
        event = await socket.event()
        assert set(event) == V0_KEYS
        assert (event["object_uuid"], event["event_type"]) == (container.uuid, "update")
        assert event["object_kind"] == "arvados#container"
        del posted["command"]
        assert event["properties"] == {"new_attributes": posted}


async def test_trashed_collection(site: Site, active: Actor, active_api: Api) -> None:
    """A collection put into the trash gives an update that its owner may still see."""
    collection = await active_api.post("collections", name="ws_test")
    async with client(site.websocket_url, active.token) as socket:
        await socket.subscribe(UPDATES)
        await active_api.delete("collections", collection["uuid"])
        event = await socket.event_about(collection["uuid"])
        assert event["event_type"] == "update"
        assert event["properties"]["old_attributes"]["is_trashed"] is False
        assert event["properties"]["new_attributes"]["is_trashed"] is True


async def test_send_bad_json(site: Site, active: Actor) -> None:
    """What is no JSON is answered 400, and the connection lives on."""
    async with client(site.websocket_url, active.token) as socket:
        await socket.subscribe()
        await socket.socket.send("^]beep\n")
        assert await socket.status() == 400
        await socket.subscribe()


async def test_subscribe(site: Site, active: Actor, active_api: Api) -> None:
    """An unknown method is 400, an empty list of filters matches all."""
    await active_api.emit_events()
    await settled(site.websocket_url, site.api.url, active)
    async with client(site.websocket_url, active.token) as socket:
        await socket.send({"21": 12})
        assert await socket.status() == 400
        await socket.subscribe([])
        await expect_emitted(socket, await active_api.emit_events())


async def test_messages_are_numbered_from_one(site: Site, active: Actor, active_api: Api) -> None:
    """`msgID` counts events per connection; status frames have none."""
    async with client(site.websocket_url, active.token) as socket:
        await socket.subscribe()
        await active_api.emit_events()
        assert [(await socket.event())["msgID"] for _ in range(3)] == [1, 2, 3]


async def test_fields_of_an_event(site: Site, active: Actor, active_api: Api) -> None:
    """The names and types of services/ws/session_v0.go, with times in RFC 3339."""
    async with client(site.websocket_url, active.token) as socket:
        await socket.subscribe()
        made = await active_api.post("collections", name="ws_test")
        event = await socket.event()
        assert set(event) == V0_KEYS
        assert isinstance(event["id"], int)
        assert event["object_uuid"] == made["uuid"]
        assert event["object_owner_uuid"] == active.uuid
        assert event["object_kind"] == "arvados#collection"
        assert event["event_type"] == "create"
        assert event["event_at"].endswith("Z")
        age = datetime.now(UTC) - datetime.fromisoformat(event["event_at"])
        assert abs(age.total_seconds()) < 60
        attributes = event["properties"]["new_attributes"]
        assert attributes["name"] == "ws_test"
        assert set(attributes) <= {
            "is_trashed",
            "name",
            "owner_uuid",
            "portable_data_hash",
            "requesting_container_uuid",
            "state",
        }


@pytest.mark.ours("arvados-ws leaves it out: docs/facts/arvados-demand.md A11")
async def test_new_attributes_is_an_object_on_create_and_update(
    site: Site, active: Actor, active_api: Api
) -> None:
    """Workbench 2 dereferences it, also when somebody posted a row without properties."""
    request = await site.cluster.container_request("ws_test", owner=active)
    await settled(site.websocket_url, site.api.url, active)
    async with client(site.websocket_url, active.token) as socket:
        await socket.subscribe()
        for event_type in ("create", "update"):
            await active_api.post("logs", object_uuid=request.uuid, event_type=event_type)
            event = await socket.event()
            assert (event["object_uuid"], event["event_type"]) == (request.uuid, event_type)
            assert event["properties"]["new_attributes"] == {}


async def test_a_row_with_text_keeps_all_its_properties(
    site: Site, active: Actor, active_api: Api
) -> None:
    """As arvados-ws sent the lines of a log."""
    workflow = await active_api.post("workflows", name="ws_test")
    await settled(site.websocket_url, site.api.url, active)
    async with client(site.websocket_url, active.token) as socket:
        await socket.subscribe()
        properties = {"text": "a line\n", "more": {"deep": [1, 2]}}
        await active_api.post(
            "logs", object_uuid=workflow["uuid"], event_type="stderr", properties=properties
        )
        assert (await socket.event())["properties"] == properties
