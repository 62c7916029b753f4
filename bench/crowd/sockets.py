# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A WebSocket client that costs next to nothing, so that the server is what is measured.

It keeps the bytes it gets with the time they came, and nothing else; frames are found in them after
the round (`crowd_process`). No library does the handshake or unmasks: servers do not mask.
"""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import Callable
from typing import cast

from bench.crowd.frame import Frame, Kind

_HEAD_END = b"\r\n\r\n"
_TEXT, _PING, _PONG = 0x81, 0x89, 0x8A
_KINDS = {_TEXT: Kind.TEXT, 0x82: Kind.TEXT, _PING: Kind.PING, 0x88: Kind.CLOSE}


def masked(payload: bytes, opcode: int = _TEXT) -> bytes:
    """A client's frame around a text, with the mask 0, which leaves the text as it is."""
    length = len(payload)
    if length < 126:
        head = bytes((opcode, 0x80 | length))
    elif length < 65536:
        head = bytes((opcode, 0x80 | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((opcode, 0x80 | 127)) + length.to_bytes(8, "big")
    return head + b"\0\0\0\0" + payload


class Socket(asyncio.Protocol):
    """One client."""

    __slots__ = ("_hear", "_number", "_open", "_request", "closed_at", "rest", "tail", "transport")

    def __init__(
        self, hear: Callable[[float, int, bytes], None], number: int, request: bytes
    ) -> None:
        self._hear = hear
        self._number = number
        self._request = request
        self._open: asyncio.Future[None] | None = None
        self.rest = b""
        """The beginning of a frame whose end has not come yet."""
        self.tail = b""
        """The last bytes that were counted, which may hold the beginning of what is counted."""
        self.closed_at = 0.0
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._open = asyncio.get_running_loop().create_future()
        self.transport.write(self._request)

    async def opened(self) -> None:
        """Return when the handshake is done; ConnectionError if the server did not agree."""
        assert self._open
        await self._open
        self._open = None

    def data_received(self, data: bytes) -> None:
        if self._open is None or self._open.done():
            self._hear(time.monotonic(), self._number, data)
            return
        head, end, rest = (self.rest + data).partition(_HEAD_END)
        if not end:
            self.rest = head
            return
        self.rest = b""
        if b" 101 " not in head[:20]:
            self._open.set_exception(ConnectionError(head.partition(b"\r")[0].decode()))
        else:
            self._open.set_result(None)
        if rest:
            self._hear(time.monotonic(), self._number, rest)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed_at = self.closed_at or time.monotonic()
        if self._open and not self._open.done():
            self._open.set_exception(ConnectionError("closed in the handshake"))

    def answer(self, frame: Frame, data: bytes) -> None:
        """Answer a ping."""
        self.transport.write(masked(data[frame.start : frame.end], _PONG))

    @staticmethod
    def frame(data: bytes, position: int) -> Frame | None:
        """The frame at `position`; None if it is not whole."""
        have = len(data) - position
        if have < 2:
            return None
        length = data[position + 1]
        start = position + 2
        if length == 126:
            start += 2
            length = int.from_bytes(data[position + 2 : start], "big")
        elif length == 127:
            start += 8
            length = int.from_bytes(data[position + 2 : start], "big")
        end = start + length
        if end - position > have:
            return None
        return Frame(_KINDS.get(data[position], Kind.OTHER), start, end, end)


def upgrade(path: str, host: str, protocol: str = "") -> bytes:
    """The request of a handshake."""
    key = base64.b64encode(os.urandom(16)).decode()
    extra = f"Sec-WebSocket-Protocol: {protocol}\r\n" if protocol else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Origin: http://{host}\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{extra}\r\n"
    ).encode()
