# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The client library's connection, made to take whatever bytes a server passes on.

A server checks the subject, the reply and the headers of what somebody publishes for little more
than where they end. nats-py 2.16 ends its read loop for good on a subject that is no UTF-8 or a
status that is no text, and takes a vertical tab in a subject for the end of it: so a sender could
silence each service that hears it, or put a message into another subscription of it.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any

import nats.aio.client
import nats.errors
import nats.protocol.parser
from nats.aio.msg import Msg

from arvados_nats.errors import said
from arvados_nats.nats.history import Headers

logger = logging.getLogger(__name__)

# Only spaces and the end of the line divide a control line; the groups are the library's.
_NAME = rb"([^ \n]+)"
# Where there is no reply the server leaves out the word or, in answers of its own, the word alone.
_LINE = rb"\A%s +" + _NAME + rb" +(\d+) +(" + _NAME + rb" +)?(\d+)%s\r\n"
nats.protocol.parser.MSG_RE = re.compile(_LINE % (b"MSG", b""))
nats.protocol.parser.HMSG_RE = re.compile(_LINE % (b"HMSG", rb" +(\d+)"))

_VERSION = b"NATS/1.0"
_PING, _PONG = b"PING\r\n", b"PONG\r\n"


class Client(nats.aio.client.Client):
    """A connection that one message cannot end, that is in once the server has said so, and that
    stays closed once it is."""

    _ended = False

    def __init__(self, seed: Callable[[], str] | None = None, in_turn: int = 0) -> None:
        super().__init__()
        self._seed = seed
        self._in_turn = in_turn
        self._read = 0
        self.taken: dict[int, Callable[[Msg], None]] = {}
        """Takes what comes to a subscription at once, by its number: without the queue and the task
        by which the library hands a message on, which cost more than an acknowledgement."""

    def abort(self) -> None:
        """End the connection with all that waits to be taken: of a line that fell silent the kernel
        would wait for that for a quarter of an hour, and whoever closes it with it."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    async def _attempt_reconnect(self) -> None:
        self.abort()
        await super()._attempt_reconnect()

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        self._ended = self._ended or status == self.CLOSED
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None and writer.is_closing():
            # The library would fail to send the rest, and leave its tasks behind.
            self._pending, self._pending_data_size = [], 0
        await super()._close(status, do_cbs)

    async def _connect_to_server(self, s: nats.aio.client.Srv) -> None:
        """The library drops the socket of an attempt that was refused, without closing it. And on
        Python 3.11 `wait_for` can lose the cancellation by which `_close` ends the attempts, which
        would then go on for ever."""
        if self._ended:
            raise asyncio.CancelledError
        if self._transport:
            self._transport.close()  # type: ignore[no-untyped-call]
        await super()._connect_to_server(s)

    async def _process_connect_init(self) -> None:
        """While the callout decides the server may ping (docs/facts/nats-callout.md 1.5). The
        library takes that for a yes, and the no that follows for the end of the connection."""
        transport: Any = self._transport
        readline = transport.readline

        async def verdict() -> bytes:
            while (line := bytes(await readline())) == _PING:
                transport.write(_PONG)
                await transport.drain()
            if not line:
                raise nats.errors.UnexpectedEOF
            return line

        transport.readline = verdict
        try:
            await super()._process_connect_init()
        finally:
            transport.readline = readline

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        self._read += 1
        if self._in_turn and not self._read % self._in_turn:
            await asyncio.sleep(0)
        try:
            if take := self.taken.get(sid):
                found = parse_headers(headers) if headers else None
                take(self._build_message(sid, subject, reply, data, found))
            else:
                await super()._process_msg(sid, subject, reply, data, headers)
        except Exception as error:
            logger.warning(
                "a message cannot be read",
                extra={
                    "action": "nats.unreadable",
                    "subject": repr(subject[:200]),
                    "error": said(error),
                },
            )

    def _connect_command(self) -> bytes:
        """The library sends a token to a `tls://` server in the clear if that does not ask for
        TLS, as nobody on the way would."""
        server = self._current_server
        if server and server.uri.scheme == "tls" and not self._server_info.get("tls_required"):
            raise nats.errors.Error("the server does not speak TLS")
        if self._seed and (seed := self._seed()) != self._nkeys_seed_str:
            self._nkeys_seed_str = seed
            self._setup_nkeys_connect()
        return super()._connect_command()

    async def _process_headers(self, headers: bytes | None) -> Headers | None:
        """As the library does for what a server writes: of a name that comes twice, the last."""
        return parse_headers(headers) if headers else None


def parse_headers(headers: bytes) -> Headers:
    """The headers of a message, and a status as `Status` and `Description`."""
    first, _, lines = headers.partition(b"\r\n")
    status, _, description = first.removeprefix(_VERSION).strip().partition(b" ")
    found = Headers()
    found.size = len(headers)
    if status.isdigit():
        found["Status"] = status.decode()
        if description:
            found["Description"] = description.decode(errors="replace")
    found.update(nats.aio.client.Client._parse_header_lines(lines))
    return found
