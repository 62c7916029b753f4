# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Readers of log hubs without sockets: what was sent is checked byte by byte as it comes.

The wire is the only thing in memory; the send buffer, the reader, the hub and NATS are the real
ones.
"""

from __future__ import annotations

import asyncio
import base64
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from arvados_nats.arvados.tokens import Token
from arvados_nats.contract.log_chunks import Chunk, ContainerEnd
from arvados_nats.nats.client import Message as NatsMessage
from arvados_nats.nats.client import Nats
from wsproxy.logs.consumer import LogConsumer, Selection
from wsproxy.logs.hub import LogHub
from wsproxy.logs.saved import Access
from wsproxy.transport.frames import Message
from wsproxy.transport.send_buffer import HIGH_WATER, SendBuffer
from wsproxy.transport.send_buffers import SendBuffers

TOKEN = Token("nobody")


class LossyHub(LogHub):
    """Live messages are lost while `deaf`, as they are when a connection is away."""

    deaf = False
    lost = 0

    async def _take(self, message: NatsMessage) -> None:
        if self.deaf:
            self.lost += 1
        else:
            await super()._take(message)


class MemoryWire:
    """A peer that takes what it is given, or nothing while it is stalled."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self.send_buffer: SendBuffer | None = None
        self.stalled = False
        self.most = 0
        self._take = take
        self._held: list[bytes] = []
        self._size = 0

    @property
    def unsent(self) -> int:
        return self._size

    def encode(self, message: Message) -> bytes:
        return message.text

    def write(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            if self.stalled:
                self._held.append(piece)
                self._size += len(piece)
            else:
                self._take(piece)
        self.most = max(self.most, self._size)
        if self.send_buffer and self._size > HIGH_WATER:
            self.send_buffer.paused()

    def stall(self) -> None:
        """Take nothing more, and let the send buffer count as full."""
        self.stalled = True
        if self.send_buffer:
            self.send_buffer.paused()

    def drain(self) -> None:
        """Take all that was held, and go on taking."""
        self.stalled = False
        held, self._held, self._size = self._held, [], 0
        for piece in held:
            self._take(piece)
        if self.send_buffer:
            self.send_buffer.resumed()

    def close(self, code: int, reason: str) -> None:
        self._held.clear()

    def abort(self) -> None:
        self._held.clear()


@dataclass(slots=True)
class Received:
    """What one reader was sent. Fails on a byte that comes twice or out of turn."""

    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    bytes_of: dict[tuple[str, int], bytearray] = field(
        default_factory=lambda: defaultdict(bytearray)
    )
    first: dict[tuple[str, int], int] = field(default_factory=dict)
    next: dict[tuple[str, int], int] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    done: bool = False
    """The end of the container has come."""

    def take(self, text: bytes) -> None:
        """One message as it came over the wire."""
        ((key, body),) = msgspec.json.decode(text).items()
        self.messages.append((key, body))
        if key == "log":
            self._log(body)
        if key == "places":
            told = {(file, at["epoch"]): at["offset"] for file, at in body["files"].items()}
            assert not told.keys() & self.first.keys(), "before the bytes"
            self.next |= told
        self.done = self.done or (key == "end" and "file" not in body)
        if key == "gap" and body["to"] is not None:
            place = body["file"], body["epoch"]
            assert body["from"] == self.next.get(place, body["from"])
            self.next[place] = body["to"]
        self.changed.set()

    def _log(self, body: dict[str, Any]) -> None:
        data = base64.b64decode(body["base64"]) if "base64" in body else body["text"].encode()
        place = body["file"], body["epoch"]
        assert data, "only `places` tells where a file goes on"
        self.first.setdefault(place, body["offset"])
        assert body["offset"] == self.next.get(place, body["offset"]), "gap or double"
        assert body["next"] == body["offset"] + len(data)
        self.next[place] = body["next"]
        self.bytes_of[place] += data

    def of(self, key: str) -> list[dict[str, Any]]:
        """All messages of one type."""
        return [body for found, body in self.messages if found == key]

    def content(self, file: str, epoch: int = 0) -> bytes:
        """All bytes of a file, in the order in which they came."""
        return bytes(self.bytes_of.get((file, epoch), b""))

    async def until(self, condition: Callable[[], object], within: float = 60) -> None:
        """Wait until something sent makes the condition true."""
        async with asyncio.timeout(within):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def until_told(self, key: str) -> None:
        """Wait until a message of this type was sent."""
        await self.until(lambda: self.of(key))

    async def until_at(self, file: str, offset: int) -> None:
        """Wait until a file was sent up to before this offset, in its first epoch."""
        await self.until(lambda: self.next.get((file, 0)) == offset)

    async def until_content(self, content: Mapping[str, bytes], within: float = 60) -> None:
        """Wait until exactly these files were sent, in their first epoch."""
        await self.until(
            lambda: all(self.content(name) == data for name, data in content.items()), within
        )
        assert {name for name, _ in self.bytes_of} <= set(content)


@dataclass(slots=True)
class Peer:
    """One reader with its wire."""

    reader: LogConsumer
    wire: MemoryWire
    received: Received


def join(hub: LogHub, selection: Selection | None = None, access: Access | None = None) -> Peer:
    """A new reader of a hub."""
    received = Received()
    wire = MemoryWire(received.take)
    send_buffer = SendBuffers().open(wire)
    wire.send_buffer = send_buffer

    reader = LogConsumer(
        hub,
        send_buffer,
        access or Access(TOKEN),
        selection or Selection(),
        id="s",
        send=send_buffer.write,
        ended=received.changed.set,
    )
    reader.start()
    return Peer(reader, wire, received)


async def publish(nats: Nats, *parts: Chunk | ContainerEnd) -> None:
    """Store chunks and ends, in this order."""
    for part in parts:
        data = part.data if isinstance(part, Chunk) else part.payload
        await (await nats.publish_stored(part.subject, data, part.headers))


def chunks(
    container: str, file: str, pieces: Sequence[bytes], *, epoch: int = 0, offset: int = 0
) -> list[Chunk]:
    """Chunks that join, one for each piece."""
    made = []
    for piece in pieces:
        made.append(Chunk(container, file, epoch, offset, piece))
        offset += len(piece)
    return made


async def all_stopped() -> None:
    """No reader asks Arvados any more when the connection to it is closed."""
    readers = [task for task in asyncio.all_tasks() if task.get_name() == "log consumer"]
    for task in readers:
        task.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
