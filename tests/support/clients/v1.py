# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A v1 client as simple as it gets; log bytes are checked as they come."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from arvados_nats.protocol_v1 import messages as messages_v1
from arvados_nats.protocol_v1.messages import SUBPROTOCOL
from sandbox.model.actors import Actor

WITHIN = 60.0
"""Seconds that something may take on a busy machine."""

Json = dict[str, Any]


_FIELDS = {
    key: {field.encode_name for field in msgspec.structs.fields(kind)}
    for key, kind in messages_v1.SERVER_KEYS.items()
}
"""Looked up once: asking msgspec took more time than all the rest of a message."""


def as_described(key: str, body: Json) -> None:
    """A message has the fields that its type says, and no other."""
    msgspec.convert(body, messages_v1.SERVER_KEYS[key])
    assert set(body) <= _FIELDS[key]


class Logs:
    """Log bytes by (container, file, epoch). Fails on a byte that comes twice or out of turn."""

    def __init__(self) -> None:
        self.bytes_of: defaultdict[tuple[str, str, int], bytearray] = defaultdict(bytearray)
        self._next: dict[tuple[str, str, int], int] = {}

    def take(self, body: Json) -> None:
        """One `log` message."""
        place = body["container"], body["file"], body["epoch"]
        data = base64.b64decode(body["base64"]) if "base64" in body else body["text"].encode()
        assert body["offset"] == self._next.get(place, body["offset"]), "gap or double"
        assert body["next"] == body["offset"] + len(data)
        self._next[place] = body["next"]
        self.bytes_of[place] += data

    def content(self, container: str, file: str, epoch: int = 0) -> bytes:
        """All bytes of a file so far."""
        return bytes(self.bytes_of.get((container, file, epoch), b""))


class Client:
    """One open connection."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.seen: list[tuple[str, Json]] = []
        self.logs = Logs()

    async def send(self, key: str, body: Any) -> None:
        """Send one message."""
        await self.socket.send(json.dumps({key: body}))

    async def next(self, within: float = WITHIN) -> tuple[str, Json]:
        """The next message, pings left out."""
        while True:
            async with asyncio.timeout(within):
                frame = await self.socket.recv()
            assert isinstance(frame, str), "v1 sends text frames"
            ((key, body),) = json.loads(frame).items()
            as_described(key, body)
            if key == "ping":
                await self.send("pong", {})
                continue
            if key == "log":
                self.logs.take(body)
            self.seen.append((key, body))
            return key, body

    async def expect(self, key: str, within: float = WITHIN) -> Json:
        """The next message, which must be of this type."""
        found, body = await self.next(within)
        assert found == key, (found, body)
        return body

    async def until(self, key: str, within: float = WITHIN, **fields: Any) -> Json:
        """Read on to a message of this type with these fields."""
        async with asyncio.timeout(within):
            while True:
                found, body = await self.next(within)
                if found == key and all(body.get(name) == fields[name] for name in fields):
                    return body

    async def until_true(self, condition: Callable[[], bool], within: float = WITHIN) -> None:
        """Read on until the condition holds."""
        async with asyncio.timeout(within):
            while not condition():
                await self.next(within)

    async def until_content(self, container: str, file: str, data: bytes) -> None:
        """Read on until exactly these bytes of a file have come."""
        await self.until_true(lambda: self.logs.content(container, file) == data)

    async def authenticate(self, who: Actor | str) -> Json:
        """Send a token, and see that it is accepted."""
        await self.send("auth", {"token": who if isinstance(who, str) else who.token})
        return await self.until("hello")

    async def subscribe(self, id: str, **target: Any) -> Json:
        """Subscribe, and see that it was accepted."""
        await self.send("subscribe", {"id": id, **target})
        return await self.until("subscribed", id=id)

    def of(self, key: str) -> list[Json]:
        """All messages of one type so far."""
        return [body for found, body in self.seen if found == key]

    async def closed(self, within: float = WITHIN) -> int:
        """Read to the end; the close code."""
        with contextlib.suppress(ConnectionClosed):
            async with asyncio.timeout(within):
                while True:
                    await self.next(within)
        assert self.socket.close_code is not None
        return self.socket.close_code

    async def silence(self, seconds: float = 0.5) -> None:
        """Nothing comes for a while."""
        with contextlib.suppress(TimeoutError):
            found = await self.next(seconds)
            raise AssertionError(f"not silent: {found}")


@asynccontextmanager
async def connected(base: str, who: Actor | str | None = None) -> AsyncIterator[Client]:
    """A connection to `ws://host:port`, with `who` authenticated if given."""
    async with connect(
        f"{base}/v1/stream",
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        compression=None,
        max_size=None,
        max_queue=None,
    ) as socket:
        client = Client(socket)
        if who is not None:
            await client.authenticate(who)
        yield client
