# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A v0 client as simple as it gets, and the API calls that make events."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

from sandbox.model.actors import Actor

WITHIN = 60.0
"""Seconds that an event may take on a busy machine."""

Json = dict[str, Any]


class Client:
    """One open WebSocket."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def send(self, message: Any) -> None:
        """Send a value as JSON."""
        await self.socket.send(json.dumps(message))

    async def receive(self, within: float = WITHIN) -> Json:
        """The next message."""
        async with asyncio.timeout(within):
            frame = await self.socket.recv()
        assert isinstance(frame, str), "v0 sends text frames"
        message = json.loads(frame)
        assert isinstance(message, dict), "every frame is one JSON object"
        return message

    async def status(self) -> int:
        """The next message, which must be a status."""
        message = await self.receive()
        assert set(message) == {"status"}, message
        return int(message["status"])

    async def subscribe(self, filters: Any = None, last_log_id: int | None = None) -> None:
        """Subscribe, and see that it was accepted."""
        message: Json = {"method": "subscribe"}
        if filters is not None:
            message["filters"] = filters
        if last_log_id is not None:
            message["last_log_id"] = last_log_id
        await self.send(message)
        assert await self.status() == 200

    async def unsubscribe(self, filters: Any = None) -> int:
        """Unsubscribe; the status."""
        message: Json = {"method": "unsubscribe"}
        if filters is not None:
            message["filters"] = filters
        await self.send(message)
        return await self.status()

    async def event(self, within: float = WITHIN) -> Json:
        """The next event; keep-alives are passed over."""
        while True:
            message = await self.receive(within)
            if message:
                assert "msgID" in message, message
                return message

    async def event_about(self, uuid: str, event_type: str | None = None) -> Json:
        """The next event about an object; others are passed over."""
        while True:
            event = await self.event()
            if event["object_uuid"] == uuid and event_type in (None, event["event_type"]):
                return event

    async def silent(self, seconds: float = 0.5) -> None:
        """Nothing but keep-alives comes for a while."""
        with contextlib.suppress(TimeoutError):
            event = await self.event(seconds)
            raise AssertionError(f"an event came: {event}")


@asynccontextmanager
async def client(url: str, token: str | None, **options: Any) -> AsyncIterator[Client]:
    """A connected client."""
    address = url if token is None else f"{url}?api_token={token}"
    async with connect(address, compression=None, **options) as socket:
        yield Client(socket)


class Api:
    """Arvados' API with one token."""

    def __init__(self, url: str, token: str) -> None:
        self._client = httpx.AsyncClient(
            base_url=f"{url}/arvados/v1",
            headers={"Authorization": f"Bearer {token}"},
            timeout=30,
            verify=False,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def post(self, resource: str, **attributes: Any) -> Json:
        """Create an object."""
        return await self._call("POST", resource, {_singular(resource): attributes})

    async def put(self, resource: str, uuid: str, **attributes: Any) -> Json:
        """Update an object."""
        return await self._call("PUT", f"{resource}/{uuid}", {_singular(resource): attributes})

    async def delete(self, resource: str, uuid: str) -> Json:
        """Delete an object, or put it into the trash."""
        return await self._call("DELETE", f"{resource}/{uuid}")

    async def get(self, path: str, **parameters: Any) -> Json:
        """Read something."""
        answer = await self._client.get(path, params=parameters)
        answer.raise_for_status()
        found: Json = answer.json()
        return found

    async def newest_log_id(self) -> int:
        """The highest id of the logs that the token may see."""
        found = await self.get("logs", order=json.dumps(["id desc"]), limit=1, count="none")
        return int(found["items"][0]["id"]) if found["items"] else 1

    async def emit_events(self) -> str:
        """A workflow that is created, logged about and updated, as in arvados-ws' suite."""
        workflow = await self.post("workflows", name="ws_test")
        uuid = str(workflow["uuid"])
        await self.post("logs", object_uuid=uuid, event_type="blip", properties={"beep": "boop"})
        await self.put("workflows", uuid, name=f"ws_test {uuid}")
        return uuid

    async def _call(self, method: str, path: str, body: Any = None) -> Json:
        answer = await self._client.request(method, path, json=body)
        assert answer.status_code == 200, f"{method} {path}: {answer.status_code} {answer.text}"
        found: Json = answer.json()
        return found


def _singular(resource: str) -> str:
    return resource.removesuffix("s")


@asynccontextmanager
async def api(url: str, token: str) -> AsyncIterator[Api]:
    """The API for one token."""
    opened = Api(url, token)
    try:
        yield opened
    finally:
        await opened.close()


async def settled(websocket_url: str, api_url: str, actor: Actor) -> Actor:
    """Wait until all events up to now were delivered, those of making the user among them."""
    async with api(api_url, actor.token) as own, client(websocket_url, actor.token) as socket:
        await socket.subscribe()
        await own.post("logs", object_uuid=actor.uuid, event_type="settled")
        await socket.event_about(actor.uuid, "settled")
    return actor
