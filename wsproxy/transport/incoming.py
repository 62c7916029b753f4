# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One WebSocket as the server hands it over: what it asked for, accepting it, and what it sends.

An edge. Its scope is ASGI's, so that uvicorn's view of proxies in front counts; its messages come
from the `Socket` in there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from wsproxy.transport.limits import Pace
from wsproxy.transport.send_buffer import SendBuffer
from wsproxy.transport.send_buffers import SendBuffers
from wsproxy.transport.websocket import EXTENSION, Socket

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Incoming:
    """A WebSocket that asks to be let in."""

    def __init__(self, scope: Scope, send_buffers: SendBuffers) -> None:
        self.path: str = scope["path"]
        self.subprotocols: list[str] = scope["subprotocols"]
        self.address: str = (scope.get("client") or ("",))[0]
        self.socket: Socket = scope["extensions"][EXTENSION]
        self._headers: list[tuple[bytes, bytes]] = scope["headers"]
        self._send_buffers = send_buffers

    def header(self, name: str) -> str | None:
        """The first header of this name (lower case)."""
        wanted = name.encode()
        return next((v.decode("latin-1") for key, v in self._headers if key == wanted), None)

    @property
    def query(self) -> dict[str, str]:
        """Parameters of the URL. May hold a token: never log it."""
        return self.socket.query

    def accept(self, pace: Pace, *, subprotocol: str | None = None) -> SendBuffer:
        """Let it in, and hear it at this pace.

        Headers are forgotten then: thousands of connections would keep them for nothing.
        """
        self._headers.clear()
        self.socket.accept(pace, subprotocol)
        send_buffer = self._send_buffers.open(self.socket)
        self.socket.attach(send_buffer)
        return send_buffer

    def refuse(self, status: int, text: str) -> None:
        """Answer the handshake with an HTTP status; to a browser that is close code 1006."""
        self.socket.refuse(status, text)

    async def receive(self) -> str | bytes | None:
        """The peer's next message; None when the connection is over."""
        return await self.socket.receive()
