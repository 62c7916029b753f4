# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One WebSocket as ASGI hands it over: what it asked for, accepting it, and what it sends.

An edge. Speaks ASGI only, and finds `websocket_protocol.Socket` in the scope where there is one.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from wsproxy.transport.asgi_wire import AsgiWire
from wsproxy.transport.limits import Pace
from wsproxy.transport.send_buffer import SendBuffer, SendBuffers
from wsproxy.transport.websocket import EXTENSION, Socket

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Incoming:
    """A WebSocket that asks to be let in."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, send_buffers: SendBuffers
    ) -> None:
        self.path: str = scope["path"]
        self.subprotocols: list[str] = scope.get("subprotocols", [])
        self.address: str = (scope.get("client") or ("",))[0]
        self.socket: Socket | None = scope.get("extensions", {}).get(EXTENSION)
        self._headers: list[tuple[bytes, bytes]] = scope["headers"]
        self._query: bytes = scope.get("query_string", b"")
        self._receive = receive
        self._send = send
        self._send_buffers = send_buffers

    def header(self, name: str) -> str | None:
        """The first header of this name (lower case)."""
        wanted = name.encode()
        return next((v.decode("latin-1") for key, v in self._headers if key == wanted), None)

    @property
    def query(self) -> dict[str, str]:
        """Parameters of the URL. May hold a token: never log it."""
        if self.socket is not None:
            return self.socket.query
        return dict(urllib.parse.parse_qsl(self._query.decode("latin-1"), keep_blank_values=True))

    async def accept(self, pace: Pace, *, subprotocol: str | None = None) -> SendBuffer:
        """Let it in, and hear it at this pace.

        Headers are forgotten then: thousands of connections would keep them for nothing.
        """
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol})
        if self.socket is not None:
            self._headers.clear()
            self.socket.accepted(pace)
            send_buffer = self._send_buffers.open(self.socket)
            self.socket.attach(send_buffer)
            return send_buffer
        wire = AsgiWire(self._send)
        send_buffer = self._send_buffers.open(wire)
        wire.attach(send_buffer)
        return send_buffer

    async def refuse(self, status: int, text: str) -> None:
        """Answer the handshake with an HTTP status; to a browser that is close code 1006."""
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        await self._send(
            {"type": "websocket.http.response.start", "status": status, "headers": headers}
        )
        await self._send({"type": "websocket.http.response.body", "body": text.encode()})

    async def connected(self) -> None:
        """Take the message that opens every ASGI WebSocket."""
        await self._receive()

    async def receive(self) -> str | bytes | None:
        """The peer's next message; None when the connection is over."""
        message = await self._receive()
        if message["type"] != "websocket.receive":
            return None
        text = message.get("text")
        return text if text is not None else message.get("bytes") or b""
