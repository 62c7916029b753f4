# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""WebSocket clients that cost next to nothing, so that the server is what is measured.

A client keeps the bytes it gets with the time they came, and nothing else; frames are found in them
after the round (`Crowd.take`). No library does the handshake or unmasks: servers do not mask.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import time
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

_HEAD_END = b"\r\n\r\n"
_TEXT, _CLOSE, _PING, _PONG = 0x81, 0x88, 0x89, 0x8A


@dataclass(slots=True)
class Heard:
    """Frames in the order they came. Times are of time.monotonic, which all processes share."""

    times: array[float] = field(default_factory=lambda: array("d"))
    sockets: array[int] = field(default_factory=lambda: array("i"))
    numbers: array[int] = field(default_factory=lambda: array("q"))
    """What the pattern found in the frame; -1 where it found nothing."""
    bytes: int = 0


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

    __slots__ = ("_crowd", "_number", "_open", "_request", "closed_at", "rest", "transport")

    def __init__(self, crowd: Crowd, number: int, request: bytes) -> None:
        self._crowd = crowd
        self._number = number
        self._request = request
        self._open: asyncio.Future[None] | None = None
        self.rest = b""
        """The beginning of a frame whose end has not come yet."""
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
            self._crowd.chunks.append((time.monotonic(), self._number, data))
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
            self._crowd.chunks.append((time.monotonic(), self._number, rest))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed_at = time.monotonic()
        if self._open and not self._open.done():
            self._open.set_exception(ConnectionError("closed in the handshake"))


class Crowd:
    """Many clients of one process."""

    def __init__(self) -> None:
        self.sockets: list[Socket] = []
        self.chunks: list[tuple[float, int, bytes]] = []
        self.pongs = 0

    async def open(
        self, address: tuple[str, int], paths: Sequence[str], at_once: int, protocol: str = ""
    ) -> array[float]:
        """Connect one client for each path; seconds that each handshake took, in no order."""
        gate = asyncio.Semaphore(at_once)
        took = array("d")

        async def one(path: str, number: int) -> None:
            async with gate:
                began = time.monotonic()
                self.sockets[number] = await self._connect(address, path, number, protocol)
                took.append(time.monotonic() - began)

        first = len(self.sockets)
        self.sockets.extend([None] * len(paths))  # type: ignore[list-item]
        async with asyncio.TaskGroup() as tasks:
            for number, path in enumerate(paths, first):
                tasks.create_task(one(path, number))
        return took

    async def _connect(
        self, address: tuple[str, int], path: str, number: int, protocol: str
    ) -> Socket:
        host, port = address
        request = _upgrade(path, f"{host}:{port}", protocol)
        loop = asyncio.get_running_loop()
        _, socket = await loop.create_connection(
            lambda: Socket(self, number, request), host, port, family=2
        )
        await socket.opened()
        return socket

    def send(self, texts: Iterable[bytes], numbers: Iterable[int]) -> None:
        """Send the texts, in order, from each of these clients."""
        frames = b"".join(map(masked, texts))
        for number in numbers:
            self.sockets[number].transport.write(frames)

    def pause(self, numbers: Iterable[int]) -> None:
        """These clients read no more."""
        for number in numbers:
            self.sockets[number].transport.pause_reading()

    def close(self) -> None:
        """Drop all connections."""
        for socket in self.sockets:
            socket.transport.abort()
        self.sockets.clear()
        self.chunks.clear()

    def closed(self) -> array[float]:
        """When each client's connection ended; 0 while it lives."""
        return array("d", (socket.closed_at for socket in self.sockets))

    def take(self, pattern: bytes = b"") -> Heard:
        """All frames since the last time; `pattern` has one group, a number to find in each."""
        heard = Heard()
        chunks, self.chunks = self.chunks, []
        search = re.compile(pattern).search if pattern else None
        for moment, number, data in chunks:
            socket = self.sockets[number]
            data = socket.rest + data if socket.rest else data
            heard.bytes += len(data)
            position = 0
            while (span := _frame(data, position)) is not None:
                start, end = span
                opcode = data[position]
                position = end
                if opcode == _PING:
                    self._answer_ping(socket, data[start:end])
                if opcode != _TEXT:
                    continue
                found = search(data, start, end) if search else None
                heard.times.append(moment)
                heard.sockets.append(number)
                heard.numbers.append(int(found[1]) if found else -1)
            socket.rest = data[position:]
            heard.bytes -= len(socket.rest)
        return heard

    def _answer_ping(self, socket: Socket, payload: bytes) -> None:
        self.pongs += 1
        if not socket.closed_at:
            socket.transport.write(masked(payload, _PONG))


def _frame(data: bytes, position: int) -> tuple[int, int] | None:
    """Where the payload of the frame at `position` starts and ends; None if it is not whole."""
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
    return (start, end) if end - position <= have else None


def _upgrade(path: str, host: str, protocol: str) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    extra = f"Sec-WebSocket-Protocol: {protocol}\r\n" if protocol else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Origin: http://{host}\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{extra}\r\n"
    ).encode()
