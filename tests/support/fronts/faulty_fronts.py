# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What stands between us and a real server at some sites, and spoils it.

`rewriting` hands everything on, and changes what the server says. `pooling` is a pooler of
PostgreSQL connections by transaction, with one connection for all its clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

_SSL_REQUEST = 80877103
_AUTHENTICATED = b"R" + struct.pack("!II", 8, 0)
_READY = b"Z" + struct.pack("!I", 5) + b"I"
_STATEMENT_NAMES = b"__asyncpg_"

Carry = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def rewriting(port: int, pattern: bytes, becomes: bytes) -> AsyncIterator[int]:
    """The port of a proxy to `port`; what the server sends is changed piece by piece."""

    async def carry(client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        server, requests = await asyncio.open_connection("127.0.0.1", port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_pass(client, requests))
                both.create_task(_pass(server, answers, pattern, becomes))
        finally:
            await _closed(requests)

    async with _listening(carry) as own:
        yield own


async def _pass(
    source: asyncio.StreamReader,
    target: asyncio.StreamWriter,
    pattern: bytes = b"(?!)",
    becomes: bytes = b"",
) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await source.read(65536):
            target.write(re.sub(pattern, becomes, piece))
            await target.drain()
    target.close()


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def _listening(carry: Carry) -> AsyncIterator[int]:
    under_way: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        under_way.add(task)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await carry(reader, writer)
        finally:
            under_way.discard(task)
            await _closed(writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tuple(under_way):
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


class _Pooler:
    """One server connection, lent to a client from its first message to the end of what it began.

    What the server says while nobody has it, such as that somebody notified, is lost.
    """

    def __init__(self, dsn: str, *, renames: bool) -> None:
        self._dsn = urlsplit(dsn)
        self._renames = renames
        self._free = asyncio.Lock()
        self._holder: asyncio.StreamWriter | None = None
        self._greeting = b""
        self._clients = 0

    async def run(self, ready: asyncio.Event) -> None:
        server, self._to_server = await asyncio.open_connection("127.0.0.1", self._dsn.port)
        names = f"user\0{self._dsn.username}\0database\0{self._dsn.path[1:]}\0\0".encode()
        self._to_server.write(struct.pack("!II", len(names) + 8, 196608) + names)
        try:
            while True:
                kind, message = await _message(server)
                if kind == b"R" and message[5:9] == struct.pack("!I", 3):
                    self._to_server.write(_framed(b"p", f"{self._dsn.password}\0".encode()))
                elif kind == b"S" and not ready.is_set():
                    self._greeting += message
                elif kind == b"Z" and not ready.is_set():
                    ready.set()
                elif self._holder:
                    self._holder.write(message)
                    if message == _READY:
                        self._holder = None
                        self._free.release()
        finally:
            await _closed(self._to_server)

    async def serve(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        self._clients += 1
        own_names = b"__%07d_" % self._clients
        await self._greet(client, answers)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                kind, message = await _message(client)
                if kind == b"X":
                    return
                if self._renames and kind in b"PBDC":
                    message = message.replace(_STATEMENT_NAMES, own_names)
                if self._holder is not answers:
                    await self._free.acquire()
                    self._holder = answers
                self._to_server.write(message)

    async def _greet(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        while True:
            size, code = struct.unpack("!II", await client.readexactly(8))
            await client.readexactly(size - 8)
            if code != _SSL_REQUEST:
                break
            answers.write(b"N")
        own_key = b"K" + struct.pack("!III", 12, 1_000_000 + self._clients, 1)
        answers.write(_AUTHENTICATED + self._greeting + own_key + _READY)


async def _message(source: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The kind of the next message of PostgreSQL's protocol, and all its bytes."""
    head = await source.readexactly(5)
    (size,) = struct.unpack("!I", head[1:])
    return head[:1], head + await source.readexactly(size - 4)


def _framed(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


@contextlib.asynccontextmanager
async def pooling(dsn: str, *, renames: bool) -> AsyncIterator[int]:
    """The port of a pooler in front of the database `dsn`; `renames`: it keeps each client's
    prepared statements apart, as pgbouncer does from 1.21 on."""
    pooler, ready = _Pooler(dsn, renames=renames), asyncio.Event()
    running = asyncio.create_task(pooler.run(ready))
    try:
        await asyncio.wait_for(ready.wait(), 60)
        async with _listening(pooler.serve) as own:
            yield own
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
