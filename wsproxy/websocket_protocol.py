# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""uvicorn's WebSocket protocol with a direct way to the transport, and with no token in any log.

An edge: the only module that knows uvicorn's and websockets' insides; `tests/integration/
test_websocket_protocol.py` holds what is relied on, and pyproject pins the minor version.
uvicorn parses, answers pings and does the closing handshake; frames that are ready go past ASGI
(facts/realtime.md 2.3, 2.4). The application finds the socket in the scope:
`scope["extensions"]["arvados.socket"]` is a `Socket`. Servers that have no such extension are
served by `asgi_wire`.

uvicorn logs the path with its query string on each accept, and websockets logs headers and frames
at DEBUG (facts/realtime.md 0.7). Neither gets to see a query string here: it is cut off the
request before they do, and kept in `Socket.query`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import urllib.parse
from collections.abc import Sequence
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.exceptions import InvalidState
from websockets.frames import Frame
from websockets.http11 import Request

from wsproxy.frames import Message
from wsproxy.outlet import CLOSE_SECONDS, HIGH_WATER, Outlet

EXTENSION = "arvados.socket"
VANISHED_SECONDS = 90.0
"""The kernel ends a connection whose peer's kernel acknowledges nothing for so long. A peer that is
only busy is not meant: its kernel answers for it."""

UNSENT_BYTES = 128 * 1024
"""What the kernel takes for one peer beyond what is on its way. Its own limit is some megabytes,
which a thousand peers that do not read would fill."""

_TCP_OPTIONS: dict[int, int] = {
    getattr(socket, name): value
    for name, value in (
        ("TCP_USER_TIMEOUT", int(VANISHED_SECONDS * 1000)),
        ("TCP_NOTSENT_LOWAT", UNSENT_BYTES),
    )
    if hasattr(socket, name)
}

_UTF8_TRACEBACK = "Invalid UTF-8 sequence"

logger = logging.getLogger(__name__)
"""Gets what uvicorn says of a connection: failures of the application, at any level setting."""
logger.setLevel(logging.WARNING)
logger.addFilter(lambda record: not str(record.msg).startswith(_UTF8_TRACEBACK))

_silent = logging.getLogger(f"{__name__}.silent")
_silent.disabled = True


class _Mailbox:
    """What uvicorn's protocol needs of an asyncio.Queue, in a tenth of its 2.5 KB."""

    __slots__ = ("_items", "_reader")

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._reader: asyncio.Future[None] | None = None

    def put_nowait(self, item: Any) -> None:
        self._items.append(item)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def empty(self) -> bool:
        return not self._items

    async def get(self) -> Any:
        """The next item; one reader at a time, which is the application."""
        while not self._items:
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return self._items.pop(0)


class _Gate:
    """What uvicorn's protocol needs of an asyncio.Event."""

    __slots__ = ("_open", "_waiters")

    def __init__(self) -> None:
        self._open = True
        self._waiters: list[asyncio.Future[None]] | None = None

    def is_set(self) -> bool:
        return self._open

    def clear(self) -> None:
        self._open = False

    def set(self) -> None:
        self._open = True
        waiters, self._waiters = self._waiters, None
        for future in waiters or ():
            if not future.done():
                future.set_result(None)

    async def wait(self) -> bool:
        while not self._open:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters = [*(self._waiters or ()), future]
            await future
        return True


class Socket(WebSocketsSansIOProtocol):
    """One WebSocket; to an `Outlet` it is a `Wire`."""

    joins = True

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.logger = logger
        self.conn.logger = _silent
        self.conn.debug = False
        self.queue = cast("Any", _Mailbox())
        self.writable = cast("Any", _Gate())
        self.query: dict[str, str] = {}
        self.outlet: Outlet | None = None
        self.heard_at = self.loop.time()
        """Loop time at which the peer last sent anything."""
        self._file: int | None = None
        """The socket's number where its bytes are ours as they are, that is, without TLS."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        sock = self.transport.get_extra_info("socket")
        if self.transport.get_extra_info("ssl_object") is None:
            self._file = sock.fileno()
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            for option, value in _TCP_OPTIONS.items():
                sock.setsockopt(socket.IPPROTO_TCP, option, value)

    def handle_connect(self, event: Request) -> None:
        path, _, query = event.path.partition("?")
        self.query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        event.path = path
        super().handle_connect(event)
        if self.handshake_initiated and self.response.status_code == 101:
            extensions = cast("dict[str, object]", self.scope["extensions"])
            extensions[EXTENSION] = self

    def data_received(self, data: bytes) -> None:
        self.heard_at = self.loop.time()
        super().data_received(data)

    def accepted(self, max_message: int) -> None:
        """Refuse longer messages from the peer with close code 1009; forget the handshake."""
        self.conn.max_message_size = max_message
        del self.request, self.response
        self.scope["headers"] = []

    def attach(self, outlet: Outlet) -> None:
        """Tell `outlet` when the transport is full and when it has room."""
        self.outlet = outlet
        if not self.writable.is_set():
            outlet.paused()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.outlet:
            self.outlet.paused()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.outlet:
            self.outlet.resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.outlet:
            self.outlet.gone()
            self.outlet = None

    @property
    def unsent(self) -> int:
        return self.transport.get_write_buffer_size()

    def encode(self, message: Message) -> bytes:
        return message.frame

    def write(self, pieces: Sequence[bytes]) -> None:
        """Past the transport while it holds nothing back: what it would do first is do the same."""
        if self.close_sent or self.disconnected:
            return
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        transport, file = self.transport, self._file
        # A closing transport has given its number back, perhaps to another connection.
        if (
            file is not None
            and not transport.is_closing()
            and not transport.get_write_buffer_size()
        ):
            try:
                sent = os.write(file, piece)
            except OSError:  # full, or broken: the transport finds that out as well
                sent = 0
            if sent == len(piece):
                return
            piece = piece[sent:]
        transport.write(piece)

    def ping(self) -> None:
        """Send a ping frame; the pong only moves `heard_at`."""
        if self.close_sent or self.disconnected:
            return
        with contextlib.suppress(InvalidState):
            self.conn.send_ping(b"")
            self.transport.write(b"".join(self.conn.data_to_send()))

    def close(self, code: int, reason: str) -> None:
        """The closing handshake, without waiting for room as ASGI's `send` would."""
        if self.close_sent or self.disconnected or self.transport.is_closing():
            return
        with contextlib.suppress(InvalidState):
            self.conn.send_close(code, reason)
            self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self._end_soon()

    def handle_close(self, event: Frame) -> None:
        super().handle_close(event)
        self._end_soon()

    def handle_parser_exception(self) -> None:
        super().handle_parser_exception()
        self._end_soon()

    def _end_soon(self) -> None:
        """Even where the peer never reads what is still on its way to it."""
        if self.close_timer is None and not self.disconnected:
            self.close_timer = self.loop.call_later(CLOSE_SECONDS, self.transport.abort)

    def abort(self) -> None:
        self.transport.abort()
