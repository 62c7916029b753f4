# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A WebSocket server whose side of protocol v1 a test plays itself, message by message."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from arvados_nats.protocol_v1.messages import SUBPROTOCOL


class Peer:
    """One connection of a client."""

    def __init__(self, socket: ServerConnection) -> None:
        self._socket = socket
        self.over = asyncio.Event()

    async def heard(self) -> Any:
        """The next message of the client, which has to come soon."""
        async with asyncio.timeout(60):
            return json.loads(await self._socket.recv())

    async def say(self, **message: Any) -> None:
        """Send a message: its key and its body."""
        await self._socket.send(json.dumps(message))

    async def say_raw(self, frame: str | bytes) -> None:
        await self._socket.send(frame)

    async def welcome(self, *, ping_seconds: float = 30) -> Any:
        """Take the token and greet; the token."""
        auth = await self.heard()
        await self.greet(ping_seconds)
        return auth["auth"]["token"]

    async def greet(self, ping_seconds: float = 30) -> None:
        """Accept whatever token there was."""
        limits = {"subscriptions": 10, "frame_bytes": 1000}
        hello = {
            "user_uuid": "u",
            "token_uuid": "t",
            "ping_seconds": ping_seconds,
            "limits": limits,
        }
        await self.say(hello=hello)

    async def close(self, code: int = 1001, reason: str = "") -> None:
        await self._socket.close(code, reason)

    def abort(self) -> None:
        """Cut the connection without a word."""
        self._socket.transport.abort()


class Proxy:
    """The server; `status` is the answer to a handshake, None to accept it."""

    def __init__(self) -> None:
        self.url = ""
        self.status: int | None = None
        self.handshakes = 0
        self._peers: asyncio.Queue[Peer] = asyncio.Queue()

    async def next(self, within: float = 60) -> Peer:
        """The next client that connects."""
        async with asyncio.timeout(within):
            return await self._peers.get()

    async def serve(self, socket: ServerConnection) -> None:
        peer = Peer(socket)
        self._peers.put_nowait(peer)
        await socket.wait_closed()

    def answer(self, connection: ServerConnection, request: Request) -> Response | None:
        self.handshakes += 1
        return None if self.status is None else connection.respond(self.status, "no\n")


@contextlib.asynccontextmanager
async def run(*, subprotocol: str = SUBPROTOCOL) -> AsyncIterator[Proxy]:
    """A server on a free port."""
    proxy = Proxy()
    async with serve(
        proxy.serve,
        "127.0.0.1",
        0,
        subprotocols=[Subprotocol(subprotocol)],
        select_subprotocol=lambda _, offered: Subprotocol(subprotocol) if offered else None,
        process_request=proxy.answer,
        ping_interval=None,
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        proxy.url = f"ws://127.0.0.1:{port}/v1/stream"
        yield proxy
