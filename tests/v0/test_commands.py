# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What arvados-ws answers to each kind of frame (docs/facts/arvados.md 6,
services/ws/session_v0.go)."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from sandbox.model.actors import Actor
from tests.support.clients.v0 import Api, client
from tests.support.worlds.site import Site
from wsproxy.v0 import connection as socket_v0

SUBSCRIBE = {"method": "subscribe"}


@pytest.mark.parametrize(
    ("frame", "status"),
    [
        ("nonsense", 400),
        ("null", 400),
        ("[]", 400),
        ('"subscribe"', 400),
        ("{}", 400),
        ('{"method": 7}', 400),
        ('{"method": "publish"}', 400),
        ('{"method": "subscribe"} {"method": "subscribe"}', 400),
        ('{"method": "subscribe", "filters": {}}', 400),
        ('{"method": "subscribe", "filters": ["event_type"]}', 400),
        ('{"method": "subscribe", "last_log_id": "1"}', 400),
        ('{"method": "subscribe", "last_log_id": 1.5}', 400),
        ('{"method": "subscribe", "last_log_id": 9223372036854775808}', 400),
        ('{"method": "unsubscribe"}', 400),
        ('{"method": "subscribe"}', 200),
        ('{"METHOD": "subscribe", "Filters": null}', 200),
        ('{"method": "subscribe", "unknown": {"key": 1}}', 200),
        ('{"method": "subscribe", "filters": [[]]}', 200),
        ('{"method": "subscribe", "filters": [["a", "b", "c", "d"]]}', 200),
        ('{"method": "subscribe", "last_log_id": null}', 200),
        ('{"method": "subscribe", "last_log_id": 0}', 200),
    ],
)
async def test_each_frame_has_its_status(
    site: Site, active: Actor, frame: str, status: int
) -> None:
    """A status per frame, and the connection lives on."""
    async with client(site.websocket_url, active.token) as socket:
        await socket.socket.send(frame)
        assert await socket.status() == status
        await socket.subscribe()


@pytest.mark.parametrize(
    ("subscribed", "unsubscribed", "status"),
    [
        (None, None, 200),
        ([], [], 200),
        (None, [], 400),
        ([], None, 400),
        ([["a", "=", 1]], [["a", "=", 1.0]], 200),
        ([["a", "=", 1]], [["a", "=", True]], 400),
        ([["a", "=", {"x": 1, "y": 2}]], [["a", "=", {"y": 2, "x": 1}]], 200),
        ([["a"]], [["a", None, None]], 200),
        ([["a", "=", 1], ["b", "=", 2]], [["b", "=", 2], ["a", "=", 1]], 400),
    ],
)
async def test_unsubscribe_looks_for_equal_filters(
    site: Site, active: Actor, subscribed: Any, unsubscribed: Any, status: int
) -> None:
    """Equal means deep-equal, as Go sees it: an absent list is no empty list."""
    async with client(site.websocket_url, active.token) as socket:
        await socket.subscribe(subscribed)
        assert await socket.unsubscribe(unsubscribed) == status


async def test_an_empty_frame_is_no_command(site: Site, active: Actor) -> None:
    """It is not answered at all."""
    async with client(site.websocket_url, active.token) as socket:
        await socket.socket.send("")
        await socket.socket.send(b"")
        await socket.send({})
        assert await socket.status() == 400
        await socket.subscribe()


async def test_binary_frames_are_commands_too(site: Site, active: Actor) -> None:
    """arvados-ws does not look at a frame's type."""
    async with client(site.websocket_url, active.token) as socket:
        await socket.socket.send(json.dumps(SUBSCRIBE).encode())
        assert await socket.status() == 200
        await socket.socket.send(b"\xff\xfe\x00")
        assert await socket.status() == 400


@pytest.mark.ours("arvados-ws reads a long frame in pieces, and answers each of them")
async def test_a_frame_over_64_kib_closes_the_connection(site: Site, active: Actor) -> None:
    """One byte less is read and answered."""
    padding = " " * (socket_v0.MAX_MESSAGE - len(json.dumps(SUBSCRIBE)))
    async with client(site.websocket_url, active.token) as socket:
        await socket.socket.send(json.dumps(SUBSCRIBE) + padding)
        assert await socket.status() == 200
        with pytest.raises(ConnectionClosed):
            await socket.socket.send(json.dumps(SUBSCRIBE) + padding + " ")
            await socket.receive()
        assert socket.socket.close_code == 1009


@pytest.mark.ours("arvados-ws does not look at the text: RFC 6455 8.1 wants 1007")
async def test_text_that_is_no_utf8_ends_that_connection_only(site: Site, active: Actor) -> None:
    """RFC 6455 8.1: close code 1007."""
    async with (
        client(site.websocket_url, active.token) as other,
        client(site.websocket_url, active.token) as socket,
    ):
        with pytest.raises(ConnectionClosed):
            await socket.socket.send(b"\xc3\x28", text=True)
            await socket.receive()
        assert socket.socket.close_code == 1007
        await other.subscribe()


@pytest.mark.parametrize(
    "filters",
    [
        [["event_type", "in", ["create"]]],
        [["event_type", "in", ["create", "delete", 7]]],
        [["created_at", ">=", "2020-01-01T00:00:00Z"], ["event_type", "in", ["create"]]],
        [["created_at", "<", "2020-01-01T00:00:00+02:00"]],
        [["created_at", ">", "2100-01-01T00:00:00.123456789Z"]],
        [["event_type", "in", []]],
    ],
)
async def test_filters_that_are_honoured(
    site: Site, active: Actor, active_api: Api, filters: Any
) -> None:
    """An update gets through none of these."""
    workflow = await active_api.post("workflows", name="ws_test")
    async with client(site.websocket_url, active.token) as watcher:
        await watcher.subscribe([["event_type", "in", ["blip"]]])
        await watcher.subscribe(filters)
        await active_api.put("workflows", workflow["uuid"], name="changed")
        await active_api.post("logs", object_uuid=workflow["uuid"], event_type="blip")
        event = await watcher.event_about(workflow["uuid"])
        if event["event_type"] == "create":  # made just before the subscription
            event = await watcher.event_about(workflow["uuid"])
        assert event["event_type"] == "blip"


@pytest.mark.parametrize(
    "filters",
    [
        [["object_uuid", "=", "zzzzz-4zz18-000000000000000"]],
        [["object_uuid", "is_a", "arvados#collection"]],
        [["event_type", "=", "create"]],
        [["event_type", "not in", ["update"]]],
        [["event_type", "in", "create"]],
        [["created_at", ">=", "2100-01-01"]],
        [["created_at", ">=", "2100-01-01 00:00:00"]],
        [["created_at", ">=", 4102444800]],
        [["created_at", "!=", "2100-01-01T00:00:00Z"]],
        [["created_at"]],
        [[None, None, None]],
    ],
)
async def test_filters_that_are_ignored(
    site: Site, active: Actor, active_api: Api, filters: Any
) -> None:
    """Ignored means that everything matches."""
    workflow = await active_api.post("workflows", name="ws_test")
    async with client(site.websocket_url, active.token) as watcher:
        await watcher.subscribe(filters)
        await active_api.put("workflows", workflow["uuid"], name="changed")
        await watcher.event_about(workflow["uuid"], "update")


async def test_plain_http_is_told_what_is_missing(site: Site) -> None:
    """The installation guide tells people to look for this text."""
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"{site.http_url}/websocket?api_token=secret")
    assert answer.status_code in (400, 426)
    assert "not websocket protocol" in answer.text


async def test_the_unfinished_protocol_is_closed_at_once(site: Site, active: Actor) -> None:
    """`/arvados/v1/events.ws` was never implemented."""
    url = site.websocket_url.replace("/websocket", "/arvados/v1/events.ws")
    with pytest.raises((ConnectionClosed, InvalidStatus)):
        async with client(url, active.token) as socket:
            await socket.receive()


async def test_a_subprotocol_or_extension_offered_is_no_obstacle(site: Site, active: Actor) -> None:
    """ws4py, browsers and x/net differ in what they offer."""
    async with client(
        site.websocket_url, active.token, additional_headers={"Origin": "https://wb.example"}
    ) as socket:
        await socket.subscribe()
