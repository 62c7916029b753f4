# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Many clients of one kind in one process: what each heard and when, told after the round."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from bench.crowd.frame import Frame, Kind
from bench.crowd.native import Native
from bench.crowd.sockets import Socket, masked, upgrade

Client = Socket | Native
Address = tuple[str, int]


@dataclass(slots=True)
class Heard:
    """Frames in the order they came. Times are of time.monotonic, which all processes share."""

    times: array[float] = field(default_factory=lambda: array("d"))
    sockets: array[int] = field(default_factory=lambda: array("i"))
    numbers: array[int] = field(default_factory=lambda: array("q"))
    """What the pattern found in the frame; -1 where none was asked for."""
    bytes: int = 0

    def add(self, more: Heard) -> None:
        """What came later."""
        self.times.extend(more.times)
        self.sockets.extend(more.sockets)
        self.numbers.extend(more.numbers)
        self.bytes += more.bytes


class Crowd:
    """Clients are numbered from 0 in the order in which they were opened."""

    def __init__(self) -> None:
        self.clients: list[Client] = []
        self.chunks: list[tuple[float, int, bytes]] = []
        self._tls: ssl.SSLContext | None = None

    def trust(self, authority: str) -> None:
        """Connect by TLS from now on."""
        self._tls = ssl.create_default_context(cafile=authority)

    def hear(self, moment: float, number: int, data: bytes) -> None:
        self.chunks.append((moment, number, data))

    async def open(
        self, address: Address, paths: Sequence[str], at_once: int, protocol: str = ""
    ) -> array[float]:
        """A WebSocket for each path; seconds that each handshake took, negative if refused."""
        host = f"{address[0]}:{address[1]}"
        first = len(self.clients)
        self.clients += [
            Socket(self.hear, number, upgrade(path, host, protocol))
            for number, path in enumerate(paths, first)
        ]
        return await self._connect(address, self.clients[first:], at_once)

    async def login(self, address: Address, hellos: Sequence[bytes], at_once: int) -> array[float]:
        """A NATS client for each hello; seconds that each login took, negative if refused."""
        first = len(self.clients)
        self.clients += [
            Native(self.hear, number, hello) for number, hello in enumerate(hellos, first)
        ]
        return await self._connect(address, self.clients[first:], at_once)

    async def again(self, address: Address, at_once: int) -> array[float]:
        """Connect those that were cut until all are in; when each was, in time.monotonic()."""
        moments = array("d")

        async def one(client: Client) -> None:
            while True:
                async with gate:
                    if await _connected(address, client, self._tls) >= 0:
                        moments.append(time.monotonic())
                        return
                await asyncio.sleep(0.1)

        gate = asyncio.Semaphore(at_once)
        async with asyncio.TaskGroup() as tasks:
            for client in self.clients:
                if client.closed_at:
                    tasks.create_task(one(client))
        return moments

    async def _connect(
        self, address: Address, clients: Sequence[Client], at_once: int
    ) -> array[float]:
        gate = asyncio.Semaphore(at_once)

        async def one(client: Client) -> float:
            async with gate:
                return await _connected(address, client, self._tls)

        return array("d", await asyncio.gather(*map(one, clients)))

    def send(self, texts: Iterable[bytes], numbers: Iterable[int]) -> None:
        """Send the texts, in order, from each of these WebSockets."""
        frames = b"".join(map(masked, texts))
        for number in numbers:
            self.clients[number].transport.write(frames)

    def pause(self, numbers: Iterable[int]) -> None:
        """These clients read no more."""
        for number in numbers:
            self.clients[number].transport.pause_reading()

    def close(self) -> None:
        """Drop all connections."""
        for client in self.clients:
            client.transport.abort()
        self.clients.clear()
        self.chunks.clear()

    def closed(self) -> array[float]:
        """When each client's connection ended; 0 while it lives."""
        return array("d", (client.closed_at for client in self.clients))

    def tally(self, marker: bytes) -> tuple[int, int, float]:
        """How often `marker` came since the last time, bytes, and when the last of them did.

        Much cheaper than `take`: for rounds with millions of frames. Pings are not answered. Go
        from one to the other when nothing is under way.
        """
        chunks, self.chunks = self.chunks, []
        together: dict[int, list[bytes]] = {}
        for _, number, data in chunks:
            together.setdefault(number, []).append(data)
        found, size, keep = 0, 0, len(marker) - 1
        for number, pieces in together.items():
            client = self.clients[number]
            data = b"".join((client.tail, *pieces))
            size += len(data) - len(client.tail)
            found += data.count(marker) if marker else 0
            client.tail = data[-keep:] if keep > 0 else b""
        return found, size, chunks[-1][0] if chunks else 0.0

    def take(self, pattern: bytes = b"") -> Heard:
        """Frames since the last time: all, or those with `pattern`, whose one group is a number.

        Keep-alive frames have none.
        """
        heard = Heard()
        chunks, self.chunks = self.chunks, []
        search = re.compile(pattern).search if pattern else None
        for moment, number, data in chunks:
            client = self.clients[number]
            data = client.rest + data if client.rest else data
            heard.bytes += len(data)
            position = 0
            next_frame: Callable[[bytes, int], Frame | None] = client.frame
            while (frame := next_frame(data, position)) is not None:
                kind, start, end, position = frame
                if kind is Kind.TEXT:
                    found = search(data, start, end) if search else None
                    if found or not search:
                        heard.times.append(moment)
                        heard.sockets.append(number)
                        heard.numbers.append(int(found[1]) if found else -1)
                elif kind is Kind.PING and not client.closed_at:
                    client.answer(frame, data)
                elif kind is Kind.CLOSE:
                    client.closed_at = moment
                    client.transport.abort()
            client.rest = data[position:]
            heard.bytes -= len(client.rest)
        return heard


async def _connected(address: Address, client: Client, tls: ssl.SSLContext | None) -> float:
    """Seconds it took; -1 if the server did not want it."""
    began = time.monotonic()
    host, port = address
    try:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: client, host, port, family=2, ssl=tls)
        await client.opened()
    except OSError:
        return -1.0
    return time.monotonic() - began
