# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One WebSocket between uvicorn, which hands it over, and websockets, which knows RFC 6455.

An edge. Of uvicorn it takes what its option `ws` promises a protocol class: the arguments of the
constructor, the sets in `server_state`, `shutdown`; of websockets its Sans-I/O protocol
(docs/facts/realtime.md 2.3, 2.4). `tests/integration/test_websocket_protocol.py` holds that against
the oldest and the newest versions that are allowed. The application finds the socket in the scope:
`scope["extensions"]["arvados.socket"]` is a `Socket`. Servers that have no such extension are
served by `asgi_wire`.

What a peer sends is looked at a slice a turn, and each frame, of whatever kind, is counted: beyond
its pace nothing is read. So neither the number of frames nor their kind lets one peer keep others
waiting. It has one pong at a time to fetch, the newest (RFC 6455 5.5.3).

websockets logs headers and frames at DEBUG (docs/facts/realtime.md 0.7). It gets no query string to
see: it is cut off the request before, and kept in `Socket.query`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import urllib.parse
from collections import deque
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Protocol, cast

from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from arvados_nats.service import door
from wsproxy.transport.fragments import BadFrames, Fragments, cost
from wsproxy.transport.frames import Message
from wsproxy.transport.limits import Pace
from wsproxy.transport.send_buffer import CLOSE_SECONDS, HIGH_WATER, SendBuffer

EXTENSION = "arvados.socket"
SLICE_BYTES = 4096
"""Read in one turn of the loop: at most 683 frames, some milliseconds."""
LINGER_BYTES = 1024 * 1024
"""Taken and dropped of a peer after the connection has failed."""
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
_SERVICE_RESTART = 1012

logger = logging.getLogger(__name__)

_silent = logging.getLogger(f"{__name__}.silent")
_silent.disabled = True


class _Config(Protocol):
    """What is used of uvicorn's configuration."""

    loaded_app: Any
    ws_max_size: int


class _ServerState(Protocol):
    """What is used of uvicorn's server: whom it tells to shut down, and whom it waits for."""

    connections: set[Any]
    tasks: set[asyncio.Task[None]]


class Socket(asyncio.Protocol):
    """One WebSocket; to a `SendBuffer` it is a `Wire`."""

    joins = True

    def __init__(
        self,
        config: _Config,
        server_state: _ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._app = config.loaded_app
        self._server = server_state
        self._loop = _loop or asyncio.get_event_loop()
        self.conn = ServerProtocol(max_size=config.ws_max_size, logger=_silent)
        self.transport: asyncio.Transport
        self.query: dict[str, str] = {}
        self.send_buffer: SendBuffer | None = None
        self.heard_at = self._loop.time()
        """Loop time at which the peer last sent anything."""
        self._pace: Pace | None = None
        self._response: Response | None = None
        self._open = False
        """Between the handshake and the first word of a goodbye."""
        self._lost = False
        self._file: int | None = None
        """The socket's number where its bytes are ours as they are, that is, without TLS."""
        self._slices: deque[bytes] = deque()
        self._mail: deque[str | bytes | None] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._paused = False
        self._next: asyncio.Handle | None = None
        self._fragments = Fragments()
        self._full = False
        self._pong: bytes | None = None
        self._ending: asyncio.TimerHandle | None = None
        self._lingers = 0

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast("asyncio.Transport", transport)
        self._server.connections.add(self)
        door.stays()
        transport.set_write_buffer_limits(high=HIGH_WATER)
        sock = transport.get_extra_info("socket")
        if transport.get_extra_info("ssl_object") is None:
            self._file = sock.fileno()
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            for option, value in _TCP_OPTIONS.items():
                sock.setsockopt(socket.IPPROTO_TCP, option, value)

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        if self._lingers:
            self._drop(len(data))
        else:
            starts = range(0, len(data), SLICE_BYTES)
            self._slices.extend(data[start : start + SLICE_BYTES] for start in starts)
            if self._next is None:
                self._look()

    def pause_writing(self) -> None:
        self._full = True
        if self.send_buffer:
            self.send_buffer.paused()

    def resume_writing(self) -> None:
        self._full = False
        pong, self._pong = self._pong, None
        if pong is not None:
            self._answer(pong)
        if self.send_buffer and not self._full:
            self.send_buffer.resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._open = False
        self._server.connections.discard(self)
        for handle in (self._next, self._ending):
            if handle is not None:
                handle.cancel()
        self._slices.clear()
        self._put(None)
        if self.send_buffer:
            self.send_buffer.gone()
            self.send_buffer = None

    def shutdown(self) -> None:
        """The server stops."""
        self.close(_SERVICE_RESTART, "")
        self.transport.close()

    # What the peer sends, a slice a turn.

    def _look(self) -> None:
        self._next = None
        if not self._slices or self._lost:
            return
        self.conn.receive_data(self._slices.popleft())
        units = 0
        try:
            for event in self.conn.events_received():
                if isinstance(event, Request):
                    self._asked(event)
                elif isinstance(event, Frame):
                    units += cost(event)
                    self._heard(event)
        except BadFrames as error:
            self.conn.fail(error.code, str(error))
        self._see_the_end()
        self._go_on(self._pace.wait(self._loop.time(), units) if self._pace and units else 0.0)

    def _go_on(self, pause: float = 0.0) -> None:
        """Read on, unless something is to be done first: by us, by the application, or by time."""
        if self._next is not None or self._lost:
            return
        waits = self._response is not None or (self._open and bool(self._mail))
        if pause:
            self._next = self._loop.call_later(pause, self._continue)
        elif self._slices and not waits:
            self._next = self._loop.call_soon(self._look)
        stop = waits or self._next is not None
        if stop != self._paused and not self.transport.is_closing():
            self._paused = stop
            if stop:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def _continue(self) -> None:
        self._next = None
        self._go_on()

    def _heard(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PING:
            self._answer(bytes(frame.data))
        elif self._open and frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            message = self._fragments.add(frame)
            if message is not None:
                self._put(message)

    def _answer(self, ping: bytes) -> None:
        if self._full:
            self._pong = ping
        elif self._open:
            self.transport.write(Frame(Opcode.PONG, ping).serialize(mask=False))

    def _see_the_end(self) -> None:
        """Send what ends the connection, if anything does; pongs are sent by us."""
        words = [word for word in self.conn.data_to_send() if word]
        if not self.conn.eof_sent or self.transport.is_closing():
            return
        if self._pace is None:
            self.transport.write(b"".join(words))
        elif self._open and words:
            self.transport.write(words[-1])
        if self._open and self.conn.close_rcvd is None and self.transport.can_write_eof():
            self._linger()
        else:
            self._close_transport()

    def _linger(self) -> None:
        """Drop what the peer still sends: closed with that unread, it would not get our word."""
        self._open = False
        self._put(None)
        self._end_soon()
        self.transport.write_eof()
        self._lingers = LINGER_BYTES
        unread = sum(map(len, self._slices))
        self._slices.clear()
        self._drop(unread)

    def _drop(self, length: int) -> None:
        self._lingers -= length
        if self._lingers <= 0:
            self._lingers = 1
            self.transport.close()

    def _close_transport(self) -> None:
        """When all is written; at once where the peer does not read it."""
        self._open = False
        self._put(None)
        self.transport.close()
        self._end_soon()

    # The application's side.

    def _asked(self, request: Request) -> None:
        path, _, query = request.path.partition("?")
        self.query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        request.path = path
        self._response = self.conn.accept(request)
        if self._response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._respond(self._response)
            return
        task = self._loop.create_task(self._serve(self._scope(request)))
        self._server.tasks.add(task)
        task.add_done_callback(self._server.tasks.discard)

    def _scope(self, request: Request) -> dict[str, Any]:
        address = self.transport.get_extra_info("peername")
        offered = ",".join(request.headers.get_all("Sec-WebSocket-Protocol"))
        return {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "ws" if self._file is not None else "wss",
            "client": tuple(address[:2]) if isinstance(address, tuple) else None,
            "path": urllib.parse.unquote(request.path),
            "query_string": b"",
            "headers": [
                (name.lower().encode("ascii"), value.encode("latin-1", "replace"))
                for name, value in request.headers.raw_items()
            ],
            "subprotocols": [word.strip() for word in offered.split(",") if word.strip()],
            "extensions": {"websocket.http.response": {}, EXTENSION: self},
        }

    async def _serve(self, scope: dict[str, Any]) -> None:
        try:
            await self._app(scope, self._receive, self._send)
        except Exception:
            logger.exception("connection failed", extra={"action": "socket.failed"})
            if self._response is not None:
                self._respond(self.conn.reject(HTTPStatus.INTERNAL_SERVER_ERROR, "a fault\n"))
        finally:
            if self._ending is None:
                self._close_transport()

    async def _receive(self) -> dict[str, Any]:
        """ASGI's, but that the connection is taken for open from the beginning."""
        if self._response is not None:
            return {"type": "websocket.connect"}
        while not self._mail:
            self._reader = self._loop.create_future()
            await self._reader
        message = self._mail.popleft()
        self._go_on()
        if message is None:
            self._mail.append(None)
            return {"type": "websocket.disconnect", "code": 1005}
        form = "text" if isinstance(message, str) else "bytes"
        return {"type": "websocket.receive", form: message}

    async def _send(self, message: dict[str, Any]) -> None:
        """ASGI's, for the handshake alone: what comes later goes to the `SendBuffer`."""
        response = self._response
        if response is None or self._lost:
            raise OSError("the handshake is over")
        if message["type"] == "websocket.accept":
            self._response = None
            if message.get("subprotocol"):
                response.headers["Sec-WebSocket-Protocol"] = message["subprotocol"]
            self.conn.send_response(response)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self._open = True
        elif message["type"] == "websocket.http.response.start":
            headers = Headers({name.decode(): value.decode() for name, value in message["headers"]})
            status = HTTPStatus(message["status"])
            self._response = Response(status.value, status.phrase, headers)
        elif message["type"] == "websocket.http.response.body":
            response.body = message["body"]
            response.headers["Content-Length"] = str(len(response.body))
            response.headers["Connection"] = "close"
            self._respond(response)

    def _respond(self, response: Response) -> None:
        self._response = None
        self.conn.send_response(response)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self._close_transport()

    def _put(self, message: str | bytes | None) -> None:
        self._mail.append(message)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def accepted(self, pace: Pace) -> None:
        """Read at this pace: a unit for each frame, and for each KiB of it."""
        self._pace = pace
        self._go_on()

    def attach(self, send_buffer: SendBuffer) -> None:
        """Tell `send_buffer` when the transport is full and when it has room."""
        self.send_buffer = send_buffer
        if self._full:
            send_buffer.paused()

    @property
    def waits(self) -> bool:
        """Whether nothing is read of the peer for now."""
        return self._paused

    @property
    def unsent(self) -> int:
        return self.transport.get_write_buffer_size()

    def encode(self, message: Message) -> bytes:
        return message.frame

    def write(self, pieces: Sequence[bytes]) -> None:
        """Past the transport while it holds nothing back: what it would do first is do the same."""
        if not self._open:
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
        if self._open:
            self.transport.write(Frame(Opcode.PING, b"").serialize(mask=False))

    def close(self, code: int, reason: str) -> None:
        """The closing handshake."""
        if not self._open or self.transport.is_closing():
            return
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self._open = False
        self._put(None)
        self._end_soon()
        self._go_on()

    def _end_soon(self) -> None:
        """Even where the peer never reads what is still on its way to it."""
        if self._ending is None and not self._lost:
            self._ending = self._loop.call_later(CLOSE_SECONDS, self.transport.abort)

    def abort(self) -> None:
        self.transport.abort()
