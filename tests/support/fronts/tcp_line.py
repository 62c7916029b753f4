# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A TCP line to a server that can be cut, so that nobody comes through, or freeze as it is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class TcpLine:
    """Whole until it is cut, and again when it is mended."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._whole = True
        self._ends: set[asyncio.StreamWriter] = set()
        self._frozen: set[asyncio.StreamWriter] = set()
        self.connections = 0
        self.address = ""

    def cut(self) -> None:
        """End what is open; who comes now is sent away."""
        self._whole = False
        for end in self._ends:
            end.transport.abort()

    def freeze(self) -> None:
        """What is open gets no byte more, and no end either; who comes later is served."""
        self._frozen |= self._ends

    def mend(self) -> None:
        """Let through who comes from now on."""
        self._whole = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        ends = {writer}
        try:
            if self._whole:
                there, to = await asyncio.open_connection("127.0.0.1", self._port)
                ends.add(to)
                self._ends |= ends
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._pump(reader, to))
                    tasks.create_task(self._pump(there, writer))
        except OSError:
            pass
        finally:
            self._ends -= ends
            self._frozen -= ends
            for end in ends:
                end.transport.abort()
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if writer not in self._frozen:
                    writer.write(data)
                    await writer.drain()
        writer.close()


@asynccontextmanager
async def to(port: int) -> AsyncIterator[TcpLine]:
    """A line to a port of this machine."""
    line = TcpLine(port)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(line.serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    line.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield line
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
