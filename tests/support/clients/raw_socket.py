# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A WebSocket client that sends whatever bytes it is told to, and reads only when it is told to."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket as sockets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from websockets.frames import Frame, Opcode

WITHIN = 60.0


def frame(opcode: int, data: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    """One masked frame, right or wrong."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    length = len(data)
    if length < 126:
        head = bytes((first, 0x80 | length))
    elif length < 65536:
        head = bytes((first, 0x80 | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((first, 0x80 | 127)) + length.to_bytes(8, "big")
    mask = b"\x01\x02\x03\x04"
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))


def text(data: bytes | str, *, fin: bool = True) -> bytes:
    return frame(Opcode.TEXT, data.encode() if isinstance(data, str) else data, fin=fin)


def more(data: bytes = b"", *, fin: bool = True) -> bytes:
    return frame(Opcode.CONT, data, fin=fin)


def ping(data: bytes = b"") -> bytes:
    return frame(Opcode.PING, data)


def close(data: bytes = b"") -> bytes:
    return frame(Opcode.CLOSE, data)


class Raw:
    """A connection after its handshake."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        """Hand bytes to the kernel; what it does not take any more is no matter."""
        with contextlib.suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    async def frame(self) -> Frame:
        """The next frame of the server."""
        async with asyncio.timeout(WITHIN):
            first, length = await self.reader.readexactly(2)
            if length == 126:
                length = int.from_bytes(await self.reader.readexactly(2), "big")
            elif length == 127:
                length = int.from_bytes(await self.reader.readexactly(8), "big")
            data = await self.reader.readexactly(length)
        return Frame(Opcode(first & 0x0F), data, bool(first & 0x80))

    async def rest(self) -> list[Frame]:
        """All frames to the end of the connection."""
        frames = []
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                frames.append(await self.frame())
        return frames

    async def close_code(self) -> int | None:
        """What the server closes with; None where it sends no close frame."""
        for got in await self.rest():
            if got.opcode is Opcode.CLOSE:
                return int.from_bytes(bytes(got.data[:2]), "big") if got.data else 1005
        return None


@asynccontextmanager
async def opened(url: str, *, receive_buffer: int | None = None) -> AsyncIterator[Raw]:
    """Shake hands at `ws://host:port/path`."""
    parts = urlsplit(url)
    sock = sockets.create_connection((parts.hostname or "", parts.port or 80))
    if receive_buffer is not None:
        sock.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, receive_buffer)
    reader, writer = await asyncio.open_connection(sock=sock, limit=1024)
    path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    key = base64.b64encode(os.urandom(16)).decode()
    head = (
        f"GET {path} HTTP/1.1",
        f"Host: {parts.netloc}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
    )
    writer.write("\r\n".join((*head, "", "")).encode())
    try:
        async with asyncio.timeout(WITHIN):
            answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        yield Raw(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
