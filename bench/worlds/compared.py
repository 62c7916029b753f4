# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Two servers of protocol v0 that take turns: ours and arvados-ws, with the same clients and rows.

Both run all the time, each with clients of its own in a process of their own. Whoever does not have
the turn is stopped with SIGSTOP, so that it takes no CPU from the other, and works off what it
missed before it is measured again: clients have no subscription then but one, to marker rows, which
tells when it is done. Stopped servers keep their connections and what they remember.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from bench import processes
from bench.crowd import clients as crowds
from bench.crowd.clients import Clients
from bench.crowd.crowd_process import Heard
from bench.figures import Figures
from bench.peers import arvados_ws
from bench.worlds.cluster import Target, World
from sandbox import raw_rows
from sandbox.stack import Stack

ROW_ID = rb'"id":(\d+)'
_MARKER = "bench"
_QUIET_SECONDS = 0.5
_QUIET_ROUNDS = 4


def _command(method: str, event_type: str) -> bytes:
    filters = [["event_type", "in", [event_type]]]
    return json.dumps({"method": method, "filters": filters}).encode()


@dataclass(slots=True)
class Side:
    """One server with its clients. Client n is user n % users of the world."""

    name: str
    world: World
    address: tuple[str, int]
    server: int
    """Process id of the server that holds the sockets."""
    others: tuple[int, ...]
    """Process ids of the rest of what it needs: ours has publishers and a callout service."""
    shared: tuple[int, ...] = ()
    """Process ids of what it uses and the other side too, or nobody stops: NATS for ours."""
    clients: Clients | None = None
    per_user: int = 0

    @property
    def crowd(self) -> Clients:
        assert self.clients
        return self.clients

    @property
    def pids(self) -> tuple[int, ...]:
        return self.server, *self.others

    async def connect(self, clients: Clients, sockets: int) -> Figures:
        """Connect so many clients, spread over the users, and subscribe one to markers."""
        users = self.world.users
        self.clients, self.per_user = clients, sockets // len(users)
        before = processes.resident(self.server)
        paths = [
            f"/websocket?api_token={quote(users[n % len(users)].token)}" for n in range(sockets)
        ]
        await clients.open(self.address, paths)
        await self._told([_command("subscribe", _MARKER)], [0])
        await self.caught_up()
        grown = processes.resident(self.server) - before
        return {"rss_per_socket_kib": grown / sockets / 1024}

    async def _told(self, texts: Sequence[bytes], numbers: Sequence[int]) -> None:
        await self.crowd.take()
        await self.crowd.send(texts, numbers)
        heard = await self.crowd.until(len(numbers))
        if len(heard.times) < len(numbers):
            raise ConnectionError(f"{self.name}: {len(heard.times)} answers of {len(numbers)}")

    async def subscribe(self) -> None:
        """All clients want updates from now on."""
        await self._told([_command("subscribe", "update")], range(self.crowd.count))

    async def unsubscribe(self) -> None:
        """No client wants updates any more."""
        await self._told([_command("unsubscribe", "update")], range(self.crowd.count))

    async def caught_up(self) -> None:
        """Return when a row committed now has come through."""
        target = self.world.private[0]
        owner = target.record["owner_uuid"]
        marker = raw_rows.row(target.uuid, event_type=_MARKER, object_owner_uuid=owner)
        (row_id,) = await raw_rows.insert(self.world.writer, [marker])
        deadline = time.monotonic() + 180.0
        while row_id not in (await self.crowd.take(ROW_ID)).numbers:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} has not caught up")
            await asyncio.sleep(0.02)

    def readers(self, target: Target) -> int:
        """How many sockets must get an event of this object."""
        return len(target.readers) * self.per_user


def delays(heard: Heard, written: Sequence[tuple[int, Target, float]]) -> list[float]:
    """Seconds from COMMIT to each frame of these rows."""
    committed = {row_id: moment for row_id, _, moment in written}
    return [
        moment - committed[number]
        for moment, number in zip(heard.times, heard.numbers, strict=True)
        if number in committed
    ]


@dataclass(slots=True)
class Cost:
    """What a side has used between two moments."""

    side: Side
    server: float = 0.0
    everything: float = 0.0
    calls: int = 0

    def begin(self) -> None:
        self.server, self.everything, self.calls = self._now()

    def _now(self) -> tuple[float, float, int]:
        side = self.side
        every = (*side.pids, *side.shared)
        return (
            processes.cpu_seconds(side.server),
            sum(map(processes.cpu_seconds, every)),
            side.world.sandbox.backend.faults.count(),
        )

    def figures(self, frames: int, events: int) -> Figures:
        """Since `begin`."""
        server, everything, calls = self._now()
        used, all_used = server - self.server, everything - self.everything
        return {
            "server_cpu_s": used,
            "all_cpu_s": all_used,
            "frames_per_cpu_s": frames / max(used, 0.01),
            "frames_per_all_cpu_s": frames / max(all_used, 0.01),
            "api_calls_per_event": (calls - self.calls) / max(events, 1),
            "rss_mib": processes.resident(self.side.server) / 2**20,
        }


@asynccontextmanager
async def ours(world: World, stack: Stack) -> AsyncIterator[Side]:
    """Our services, which run already."""
    pids = {name: one.process.pid for name, one in stack.services.items() if one.process}
    server = pids.pop("wsproxy")
    yield Side(
        "ours",
        world,
        ("127.0.0.1", stack.proxy_port),
        server,
        tuple(pids.values()),
        (world.sandbox.nats.pid,),
    )


@asynccontextmanager
async def theirs(world: World, folder: Path) -> AsyncIterator[Side]:
    """arvados-ws on the same database and API; NotToBeHad if there is none."""
    async with arvados_ws.run(world.sandbox, folder) as peer:
        yield Side("arvados_ws", world, peer.address, peer.process.pid, ())


@asynccontextmanager
async def connected(sides: Sequence[Side], sockets: int) -> AsyncIterator[dict[str, Figures]]:
    """So many clients at each side; what connecting cost."""
    async with AsyncExitStack() as exits:
        found = {}
        for side in sides:
            clients = await exits.enter_async_context(crowds.clients())
            found[side.name] = await side.connect(clients, sockets)
        yield found


@asynccontextmanager
async def turn(side: Side, sides: Sequence[Side]) -> AsyncIterator[None]:
    """This side alone runs, has caught up, and its clients are subscribed."""
    with processes.frozen(pid for other in sides if other is not side for pid in other.pids):
        await side.caught_up()
        await side.subscribe()
        yield
        await side.unsubscribe()


async def quiet(world: World) -> int:
    """Wait until nobody has called Arvados' API for a while; calls so far."""
    faults, loop = world.sandbox.backend.faults, asyncio.get_running_loop()
    deadline = loop.time() + 600.0
    seen, still = -1, 0
    while still < _QUIET_ROUNDS and loop.time() < deadline:
        await asyncio.sleep(_QUIET_SECONDS)
        calls = faults.count()
        still = still + 1 if calls == seen else 0
        seen = calls
    return seen


async def warm(side: Side, targets: Sequence[Target]) -> Figures:
    """Let every client meet every object once, so that what can be remembered is."""
    before = side.world.sandbox.backend.faults.count()
    began = time.monotonic()
    await side.subscribe()
    await side.world.commit(targets)
    calls = await quiet(side.world)
    await side.unsubscribe()
    cut = sum(1 for moment in await side.crowd.closed() if moment)
    if cut:
        raise ConnectionError(f"{side.name} has cut {cut} of its clients")
    return {
        "warm_up_api_calls": calls - before,
        "warm_up_s": round(time.monotonic() - began, 1),
    }
