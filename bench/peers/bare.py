# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The least that could do the same work: nothing of ours is in it (`bench floors`).

In a process of its own, told what to do over a pipe: a relay from a NATS subject to WebSockets, as
one writes it in an afternoon on kept libraries; sockets that are given bytes by `send` alone; and
a tape, which passes one connection on, and gives the next one the same bytes from memory.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import shutil
import signal
import socket
import sysconfig
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
from nats.aio.msg import Msg
from websockets.asyncio.server import ServerConnection, broadcast, serve

from sandbox.servers import child, ports

SUBJECT = "bench"
_HERE = "127.0.0.1"
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_HEAD_END = b"\r\n\r\n"
_PIECE = 65536


class Bare:
    """The far end of `clients.far`."""

    def __init__(self) -> None:
        self._lines: set[ServerConnection] = set()
        self._sockets: list[socket.socket] = []
        self._tape: list[bytes] = []
        self._kept: list[Any] = []

    async def relay(self, url: str) -> int:
        """Whoever connects to this port is given each message of the subject."""
        heard = await nats.connect(url)

        async def say(message: Msg) -> None:
            broadcast(self._lines, message.data)

        await heard.subscribe(SUBJECT, cb=say)
        await heard.flush()
        server = await serve(
            self._hold, _HERE, 0, compression=None, ping_interval=None, max_queue=None
        )
        self._kept += [heard, server]
        port: int = next(iter(server.sockets)).getsockname()[1]
        return port

    async def _hold(self, line: ServerConnection) -> None:
        self._lines.add(line)
        await line.wait_closed()
        self._lines.discard(line)

    async def sockets(self) -> int:
        """Whoever connects to this port is given what `send` says."""
        listener = socket.create_server((_HERE, 0), backlog=1024)
        listener.setblocking(False)
        self._kept.append(asyncio.create_task(self._accept(listener)))
        port: int = listener.getsockname()[1]
        return port

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            line, _ = await loop.sock_accept(listener)
            line.setblocking(False)
            await loop.sock_sendall(line, _agreed(await loop.sock_recv(line, _PIECE)))
            self._sockets.append(line)

    def send(self, data: bytes) -> float:
        """Give these bytes to all sockets; seconds of CPU."""
        for line in self._sockets:
            line.setblocking(True)
        began = time.process_time()
        for line in self._sockets:
            line.sendall(data)
        return time.process_time() - began

    async def tape(self, port: int) -> int:
        """Pass the first connection on to `port`, and give all later ones what it was given."""
        server = await asyncio.start_server(
            lambda reader, writer: self._taped(reader, writer, port), _HERE, 0
        )
        self._kept.append(server)
        own: int = server.sockets[0].getsockname()[1]
        return own

    async def _taped(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int
    ) -> None:
        head = await reader.readuntil(_HEAD_END)
        if self._tape:
            _, _, first = self._tape[0].partition(_HEAD_END)
            protocol = re.search(rb"(?i)sec-websocket-protocol: [^\r]+\r\n", self._tape[0])
            for data in (_agreed(head, protocol[0] if protocol else b""), first, *self._tape[1:]):
                writer.write(data)
                await writer.drain()
            await reader.read()
        else:
            await self._record(head, reader, writer, port)
        writer.close()

    async def _record(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int
    ) -> None:
        upstream, sink = await asyncio.open_connection(_HERE, port)
        sink.write(head)
        asking = asyncio.create_task(_pump(reader, sink))
        while data := await upstream.read(_PIECE):
            self._tape.append(data)
            writer.write(data)
            await writer.drain()
        await asking


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_PIECE):
        writer.write(data)
        await writer.drain()
    writer.close()


def _agreed(head: bytes, more: bytes = b"") -> bytes:
    """The answer to a WebSocket handshake."""
    key = re.search(rb"(?i)sec-websocket-key: ([^\r]+)", head)
    digest = hashlib.sha1((key[1] if key else b"") + GUID, usedforsecurity=False).digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n" + more + b"\r\n"
    )


def frame(payload: bytes) -> bytes:
    """A server's frame around a text."""
    size = len(payload)
    length = bytes((size,)) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    return b"\x81" + length + payload


@asynccontextmanager
async def nats_server(folder: Path) -> AsyncIterator[str]:
    """The address of a server with JetStream and no accounts."""
    program = shutil.which("nats-server", path=sysconfig.get_path("scripts"))
    port = next(ports.candidates())
    words = [program or "nats-server", "-a", _HERE, "-p", str(port), "-js", "-sd", str(folder)]
    running = child.start(words, log=folder / "bare-nats.log")
    try:
        await child.ready(running, lambda: _answers(port), 30)
        yield f"nats://{_HERE}:{port}"
    finally:
        await running.stop(signal.SIGTERM)


_TLS = """
daemon off; master_process off; pid {folder}/nginx.pid;
events {{ worker_connections 20000; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  ssl_certificate {certificate}; ssl_certificate_key {key};
  {servers}
}}
"""
_SERVER = """
  server {{ listen 127.0.0.1:{port} ssl; location / {{
    proxy_pass http://127.0.0.1:{behind}; proxy_http_version 1.1; proxy_buffering off;
    proxy_set_header Host $host; proxy_set_header Origin $http_origin;
    proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
  }} }}
"""


@asynccontextmanager
async def nginx(
    folder: Path, certificate: Path, key: Path, behind: list[int]
) -> AsyncIterator[list[int]]:
    """Ports with TLS, one before each of these."""
    found = [port for port, _ in zip(ports.candidates(), behind, strict=False)]
    servers = "".join(_SERVER.format(port=p, behind=b) for p, b in zip(found, behind, strict=True))
    conf = folder / "nginx.conf"
    conf.write_text(_TLS.format(folder=folder, certificate=certificate, key=key, servers=servers))
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    errors = str(folder / "nginx.error")
    words = [program or "nginx", "-p", str(folder), "-c", str(conf), "-e", errors]
    running = child.start(words, log=folder / "nginx.log")
    try:
        await child.ready(running, lambda: _answers(found[-1]), 30)
        yield found
    finally:
        await running.stop(signal.SIGTERM)


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(_HERE, port)
    except OSError:
        return False
    writer.close()
    return True
