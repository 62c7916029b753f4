# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One publication to many subscribers, at servers of different kinds: ours, Centrifugo, nexus.

Ours starts at the stream: an event is published to JetStream as the event publisher does, and
wsproxy judges every reader, gives every frame a cursor and can resume. The peers keep no history
here and check nothing. All frames have about the size of ours.
"""

from __future__ import annotations

import asyncio
import json
import time
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Nats
from bench.crowd import clients as crowds
from bench.crowd import publisher
from bench.crowd.clients import Clients
from bench.peers.centrifugo import Centrifugo
from bench.peers.nexus import Nexus
from bench.worlds import cluster as world
from bench.worlds.cluster import World
from sandbox import stack as services
from sandbox.stack import Stack

_CHANNEL = "bench"
_REST_SECONDS = 0.3
_TRIES, _TRY_SECONDS = 10, 3.0
"""Time to read a sign of life of every client: what follows is to cost publications only."""
_SIGN_OF_LIFE = {"v0": b"{}", "v1": b'{"pong":{}}', "wamp": b"[16,1,{}]"}


class Fan(Protocol):
    """One server with its subscribers."""

    name: str
    clients: Clients

    @property
    def marker(self) -> bytes:
        """What each frame of a publication has exactly once."""

    @property
    def server(self) -> int:
        """Process id of what holds the sockets."""

    @property
    def others(self) -> tuple[int, ...]:
        """Process ids of what else works for a publication."""

    async def connect(self, count: int) -> None:
        """So many subscribers."""

    async def publish(self, count: int, size: int) -> None:
        """So many publications at once, each with about so many bytes of content."""

    async def keep_alive(self) -> None:
        """Let all subscribers give a sign of life."""


@dataclass(slots=True)
class Ours:
    """wsproxy with protocol v1, v0 or WAMP."""

    world: World
    stack: Stack
    nats: Nats
    clients: Clients
    version: str = "v1"
    name: str = "ours"
    owner: str = ""
    objects: int = 0
    """Events are about so many objects in turn; 0: each is about one of its own."""
    above: str = ""
    published: array[float] = field(default_factory=lambda: array("d"))
    """When each event was published; the first has id 1."""

    @property
    def marker(self) -> bytes:
        return b'{"msgID":' if self.version == "v0" else b'{"event":{'

    @property
    def server(self) -> int:
        process = self.stack.services["wsproxy"].process
        return process.pid if process else 0

    @property
    def others(self) -> tuple[int, ...]:
        return (self.world.sandbox.nats.pid,)

    async def connect(self, count: int) -> None:
        """All are users who can read one project, which is shared with everybody."""
        cluster = self.world.sandbox.cluster
        project = await cluster.project("for all", owner=cluster.root)
        await cluster.share(project, cluster.config.all_users)
        self.owner, self.above = project.uuid, cluster.root.uuid
        users = self.world.users
        tokens = [users[number % len(users)].token for number in range(count)]
        address = ("127.0.0.1", self.stack.proxy_port)
        if self.version == "v1":
            await open_v1(self.clients, address, tokens)
        elif self.version == "wamp":
            topic = f"arvados.event.{self.owner}.collection.update"
            await open_wamp(self.clients, address, tokens, topic)
        else:
            await world.open_v0(self.clients, address, tokens)
        await self.until_heard(self.clients, count)

    async def until_heard(self, clients: Clients, count: int) -> None:
        """Grants are read when somebody comes: what is published before is history, and history
        shows no object that is in no database."""
        for _ in range(_TRIES):
            await self.publish(1, 10)
            heard, _ = await clients.tally(self.marker, count, within=_TRY_SECONDS)
            if heard >= count:
                return
        raise ConnectionError(f"{heard} of {count} subscribers hear anything")

    async def publish(self, count: int, size: int) -> None:
        acks = [await self._publish_one(size) for _ in range(count)]
        await asyncio.gather(*acks)

    async def _publish_one(self, size: int) -> asyncio.Future[object]:
        self.published.append(time.monotonic())
        number = len(self.published)
        uuid = f"zzzzz-4zz18-{number % self.objects if self.objects else number:015d}"
        return await publisher.publish(self.nats, number, uuid, self.owner, self.above, size)

    async def keep_alive(self) -> None:
        await self.clients.send([_SIGN_OF_LIFE[self.version]])
        await asyncio.sleep(_REST_SECONDS)
        await self.clients.tally(b"")


@asynccontextmanager
async def begun(users: int, sockets: int = 1, version: str = "v1") -> AsyncIterator[Ours]:
    """Our services with a cluster of so many users, and so many subscribers."""
    async with (
        world.world(users, 0) as made,
        services.beside(made.sandbox) as running,
        nats_client.connect(
            [made.sandbox.nats.url], name="bench", seed=made.sandbox.seed("publisher")
        ) as nats,
        crowds.clients() as clients,
    ):
        fan = Ours(made, running, nats, clients, version)
        await fan.connect(sockets)
        yield fan


async def open_v1(
    clients: Clients,
    address: tuple[str, int],
    tokens: Sequence[str],
    subscribe: str = '{"subscribe":{"id":"bench","events":{}}}',
    begun: bytes = b'{"caught_up"',
) -> None:
    """A v1 client for each token, with one subscription, of which `begun` is heard once."""
    await clients.open(address, ["/v1/stream"] * len(tokens), protocol="arvados.events.v1.json")
    for number, token in enumerate(tokens):
        await clients.send([json.dumps({"auth": {"token": token}}).encode()], [number])
    await answered(clients, len(tokens), b'{"hello"')
    await clients.send([subscribe.encode()])
    await answered(clients, len(tokens), begun)


async def open_wamp(
    clients: Clients, address: tuple[str, int], tokens: Sequence[str], topic: str
) -> None:
    """A WAMP client for each token, which says what a client of nexus does, and has this topic."""
    await clients.open(address, ["/wamp"] * len(tokens), protocol=Nexus.protocol)
    roles = {"roles": {"publisher": {}, "subscriber": {}}, "authmethods": ["ticket"]}
    await clients.send([json.dumps([1, "arvados", roles]).encode()])
    await answered(clients, len(tokens), b'[4,"ticket"')
    for number, token in enumerate(tokens):
        await clients.send([json.dumps([5, token, {}]).encode()], [number])
    await answered(clients, len(tokens), Nexus.welcome)
    await clients.send([json.dumps([32, 1, {}, topic]).encode()])
    await answered(clients, len(tokens), b'{"caught_up"')


async def answered(clients: Clients, count: int, marker: bytes) -> None:
    heard, _ = await clients.tally(marker, count)
    if heard < count:
        raise ConnectionError(f"{heard} of {count} clients were answered with {marker!r}")


@dataclass(slots=True)
class OfPeer:
    """Centrifugo or nexus; the last client of nexus publishes."""

    peer: Centrifugo | Nexus
    clients: Clients
    name: str

    @property
    def marker(self) -> bytes:
        return self.peer.marker

    @property
    def server(self) -> int:
        return self.peer.process.pid

    @property
    def others(self) -> tuple[int, ...]:
        return ()

    async def connect(self, count: int) -> None:
        peer, clients = self.peer, self.clients
        await clients.open(peer.address, [peer.path] * count, protocol=peer.protocol)
        hello = peer.hello([_CHANNEL])
        await clients.send(hello[:1])
        await clients.until(count)
        await clients.send(hello[1:])
        await clients.until(count)
        if isinstance(peer, Nexus):
            await clients.open(peer.address, [peer.path], protocol=peer.protocol)
            await clients.send(peer.hello([]), [count])
            await clients.until(1)

    async def publish(self, count: int, size: int) -> None:
        texts = ["x" * size] * count
        if isinstance(self.peer, Nexus):
            publisher = self.clients.count - 1
            await self.clients.send(self.peer.publications(_CHANNEL, texts), [publisher])
        else:
            await self.peer.publish(_CHANNEL, texts)

    async def keep_alive(self) -> None:
        await asyncio.sleep(_REST_SECONDS)
        await self.clients.tally(b"")
