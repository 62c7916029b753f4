# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One WebSocket between uvicorn, which hands it over, and websockets, which knows RFC 6455.

An edge. Of uvicorn it takes what the option `ws` gives any class of protocols: the arguments of the
constructor, the sets in `server_state`, `shutdown`; of websockets its Sans-I/O protocol
(docs/facts/realtime.md 2.3, 2.4). `integration/wsproxy/test_websocket_protocol.py` holds it, also
on the oldest versions that are allowed (.ci/oldest). The application finds the socket in the
scope, `scope["extensions"]["arvados.socket"]`, and talks to it alone (`incoming`).

A peer has one pong at a time to fetch, the newest (RFC 6455 5.5.3).

The query string, which may hold a token, is kept in `Socket.query` and told to nobody else.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Protocol, cast

from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from arvados_nats.service import door
from wsproxy.transport import handshake, kernel
from wsproxy.transport.fragments import BadFrames, Fragments, cost
from wsproxy.transport.frames import Message
from wsproxy.transport.inbound import Inbound
from wsproxy.transport.limits import Pace
from wsproxy.transport.send_buffer import CLOSE_SECONDS, HIGH_WATER, SendBuffer

EXTENSION = "arvados.socket"
_SERVICE_RESTART = 1012

logger = logging.getLogger(__name__)


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

    def __init__(
        self, config: _Config, server_state: _ServerState, app_state: dict[str, Any]
    ) -> None:
        self._app = config.loaded_app
        self._server = server_state
        self._loop = asyncio.get_running_loop()
        self.conn = ServerProtocol(
            state=State.OPEN, max_size=config.ws_max_size, logger=handshake.silent
        )
        """Of what comes after the handshake."""
        self.transport: asyncio.Transport
        self.query: dict[str, str] = {}
        self.send_buffer: SendBuffer | None = None
        self.heard_at = self._loop.time()
        """Loop time at which the peer last sent anything."""
        self.inbound = Inbound(self._hear, self._waits)
        self._asked = False
        self._response: Response | None = None
        self._open = False
        """Between the handshake and the first word of a goodbye."""
        self._file: int | None = None
        """The socket's number where its bytes are ours as they are, that is, without TLS."""
        self._mail: deque[str | bytes] = deque()
        self._over = False
        self._reader: asyncio.Future[None] | None = None
        self._fragments = Fragments()
        self._full = False
        self._pong: bytes | None = None
        self._ending: asyncio.TimerHandle | None = None

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast("asyncio.Transport", transport)
        self._server.connections.add(self)
        door.stays()
        self.inbound.begin(transport)
        transport.set_write_buffer_limits(high=HIGH_WATER)
        sock = transport.get_extra_info("socket")
        if transport.get_extra_info("ssl_object") is None:
            self._file = sock.fileno()
        kernel.bound(sock)

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        if self._asked:
            self.inbound.take(data)
        else:
            self._asked = True
            self._ask(data)

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
        self._server.connections.discard(self)
        self.inbound.end()
        self._end()
        if self._ending is not None:
            self._ending.cancel()
        if self.send_buffer:
            self.send_buffer.gone()
            self.send_buffer = None

    def shutdown(self) -> None:
        """The server stops."""
        self.close(_SERVICE_RESTART, "")
        self.transport.close()

    # What the peer says.

    def _hear(self, piece: bytes) -> int:
        self.conn.receive_data(piece)
        units = 0
        try:
            for event in self.conn.events_received():
                if isinstance(event, Frame):
                    units += cost(event)
                    self._frame(event)
        except BadFrames as error:
            self.conn.fail(error.code, str(error))
        self._see_the_end()
        return units

    def _frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PING:
            self._answer(bytes(frame.data))
        elif self._open and frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            message = self._fragments.add(frame)
            if message is not None:
                self._mail.append(message)
                self._wake()

    def _waits(self) -> bool:
        return self._response is not None or (self._open and bool(self._mail))

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
        if self._open and words:
            self.transport.write(words[-1])
            if self.conn.close_rcvd is None and self.transport.can_write_eof():
                self._end()
                self._end_soon()
                self.transport.write_eof()
                self.inbound.linger()
                return
        elif self.inbound.pace is None:
            self.transport.write(b"".join(words))
        self._close_transport()

    # The handshake.

    def _ask(self, head: bytes) -> None:
        asked = handshake.read(head)
        self.query = asked.query
        if not asked.upgrades:
            self._respond(asked.response)
            return
        self._response = asked.response
        client = self.transport.get_extra_info("peername")
        scope = asked.scope(client, secure=self._file is None)
        scope["extensions"] = {EXTENSION: self}
        task = self._loop.create_task(self._serve(scope))
        self._server.tasks.add(task)
        task.add_done_callback(self._server.tasks.discard)

    async def _serve(self, scope: dict[str, Any]) -> None:
        try:
            await self._app(scope, None, None)
        except Exception:
            logger.exception("connection failed", extra={"action": "socket.failed"})
            if self._response is not None:
                self.refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "the server has made a mistake\n")
        finally:
            if self._ending is None:
                self._close_transport()

    def accept(self, pace: Pace, subprotocol: str | None) -> None:
        """Let the peer in, and hear it at this pace."""
        response, self._response = self._response, None
        if response is None or self._over:
            return
        if subprotocol is not None:
            response.headers["Sec-WebSocket-Protocol"] = subprotocol
        self.transport.write(response.serialize())
        self._open = True
        self.inbound.pace = pace
        self.inbound.go_on()

    def refuse(self, status: int, text: str) -> None:
        """Answer the handshake with an HTTP status."""
        self._respond(handshake.refusal(status, text))

    def _respond(self, response: Response) -> None:
        self._response = None
        self.transport.write(response.serialize())
        self._close_transport()

    # The application's side.

    async def receive(self) -> str | bytes | None:
        """The peer's next message; None when the connection is over."""
        while not self._mail:
            if self._over:
                return None
            self._reader = self._loop.create_future()
            await self._reader
        message = self._mail.popleft()
        self.inbound.go_on()
        return message

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def attach(self, send_buffer: SendBuffer) -> None:
        """Tell `send_buffer` when the transport is full and when it has room."""
        self.send_buffer = send_buffer
        if self._full:
            send_buffer.paused()

    @property
    def unsent(self) -> int:
        return self.transport.get_write_buffer_size()

    def silent_for(self) -> float:
        """Seconds since the peer's kernel last acknowledged anything, if only a probe."""
        return kernel.silent_for(self.transport.get_extra_info("socket"))

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
        self._end()
        self._end_soon()
        self.inbound.go_on()

    def abort(self) -> None:
        self.transport.abort()

    def _end(self) -> None:
        """Nothing is heard or said any more."""
        self._open = False
        self._over = True
        self._wake()

    def _close_transport(self) -> None:
        """When all is written; at once where the peer does not read it."""
        self._end()
        self.transport.close()
        self._end_soon()

    def _end_soon(self) -> None:
        """Even where the peer never reads what is still on its way to it."""
        if self._ending is None:
            self._ending = self._loop.call_later(CLOSE_SECONDS, self.transport.abort)
