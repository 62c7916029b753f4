# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Everything in several copies, with writers and readers that number all they do.

Three NATS servers, of which the third can be cut off from the others, PostgreSQL at two addresses
of which one at a time leads to it, two of each service with clocks that can be moved, and lines to
all of them. One writer makes collections, at home and in a project, and one writes a log; a guest
is shown the project and shut out again, all the time. What is done and seen becomes a history
(`tests/faults/checker.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from arvados_nats.nats.accounts_config import AccountLimits
from arvados_nats.nats.server_config import Routes
from sandbox import sandbox as whole_sandbox
from sandbox import stack as services
from sandbox.model.actors import Actor
from sandbox.model.records import Record
from sandbox.sandbox import Sandbox
from sandbox.servers import nats_server, ports, postgres
from sandbox.servers.nats_server import NatsServer
from sandbox.stack import Stack
from tests.support.fronts import cuttable, moved_clock
from tests.support.fronts.cuttable import Cuttable
from tests.support.fronts.moved_clock import MovedClock
from tests.support.worlds.storm_readers import EVENTS, FILE, LOG, PROJECT, NativeReader, Reader

_NOWHERE = "127.0.0.1:1"
"""So that no server finds another but over the lines that it is given."""
_LINE = b"line %08d\n"
_EVERY = 0.1
T = TypeVar("T")
_REPLICAS = ("EVENTS_REPLICAS", "LOGS_REPLICAS", "QUEUE_REPLICAS", "SYSTEM_LOGS_REPLICAS")

_GUEST_SECONDS = 6.0
_READ = {
    **dict.fromkeys(("one", "two", "three"), (EVENTS, PROJECT, LOG)),
    "native": (EVENTS,),
    "guest": (),  # may read the project now and then, and need not
    "stranger": (),
}


@dataclass(slots=True)
class Storm:
    """What runs, and what has happened since `begin`."""

    sandbox: Sandbox
    stack: Stack
    servers: list[NatsServer]
    database_lines: list[Cuttable]
    """The first leads to PostgreSQL; the others refuse."""
    proxy_lines: list[Cuttable]
    route_lines: list[Cuttable]
    """All that is between the third NATS server and the others."""
    nats_lines: list[Cuttable]
    """Between the services and each NATS server; the last is the native reader's."""
    clocks: dict[str, MovedClock]
    alice: Actor
    guest: Actor
    project: Record
    request: Record
    container: Record
    readers: list[Reader | NativeReader] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """Writers and readers that ended, and were begun again: they should not."""
    rights: asyncio.Lock = field(default_factory=asyncio.Lock)
    """While it is held the guest is shown nothing more, and not shut out."""
    _steps: list[dict[str, Any]] = field(default_factory=list)
    _shared: list[dict[str, Any]] = field(default_factory=list)
    _numbers: dict[str, tuple[str, int]] = field(default_factory=dict)
    _count: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _lines: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def note(self, do: str, **facts: Any) -> None:
        """Something happened now."""
        self._steps.append({"t": time.monotonic(), "do": do, **facts})

    def begin(self) -> None:
        """A new history."""
        self._steps = self._shared[-2:]
        for reader, streams in _READ.items():
            for stream in streams:
                self.note("allow", reader=reader, stream=stream, unordered=reader == "native")

    def history(self) -> list[bytes]:
        """All that happened since `begin`, as JSON lines, but for objects that are not counted."""
        return [json.dumps(step).encode() for step in self._known()]

    def _known(self) -> Iterator[dict[str, Any]]:
        for step in self._steps:
            uuid = step.get("uuid")
            if uuid is None:
                yield step
            elif uuid in self._numbers:
                stream, n = self._numbers[uuid]
                kept = {key: value for key, value in step.items() if key != "uuid"}
                yield {**kept, "stream": stream, "n": n}

    async def write_events(self) -> None:
        """Collections of alice, one after the other."""
        for n in self._count:
            stream, owner = (EVENTS, self.alice.uuid) if n % 2 else (PROJECT, self.project.uuid)
            with contextlib.suppress(Exception):  # the database is away: it was not written
                made = await self.sandbox.cluster.collection(f"c{n}", owner=owner)
                self._numbers[made.uuid] = stream, n
                self.note("write", uuid=made.uuid)
            await asyncio.sleep(_EVERY)

    async def forget_lost(self) -> None:
        """What the database has no more was not written."""
        written = [step["uuid"] for step in self._steps if step["do"] == "write" and "uuid" in step]
        query = "SELECT uuid FROM collections WHERE uuid = ANY($1::varchar[])"
        rows = await self._written(lambda: self.sandbox.cluster.pool.fetch(query, written))
        for uuid in set(written) - {row["uuid"] for row in rows}:
            del self._numbers[uuid]

    async def share(self) -> None:
        """Show the project to the guest for a while, and again."""
        cluster = self.sandbox.cluster
        while True:
            async with self.rights:
                self._guest("permit")
                await self._written(lambda: cluster.share(self.project, self.guest))
            await asyncio.sleep(_GUEST_SECONDS)
            async with self.rights:
                await self._written(lambda: cluster.unshare(self.project, self.guest))
                self._guest("revoke")
            await asyncio.sleep(_GUEST_SECONDS)

    async def _written(self, act: Callable[[], Awaitable[T]]) -> T:
        while True:
            with contextlib.suppress(Exception):  # the database is away
                return await act()
            await asyncio.sleep(_EVERY)

    def _guest(self, do: str) -> None:
        self.note(do, reader="guest", stream=PROJECT)
        self._shared = [*self._shared[-1:], self._steps[-1]]

    async def write_log(self) -> None:
        """Numbered lines; the container's node asks no database."""
        for n in self._lines:
            self.sandbox.cluster.logs.append(self.container.uuid, FILE, _LINE % n)
            self.note("write", stream=LOG, n=n)
            await asyncio.sleep(_EVERY)

    async def keep(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do it for ever: who has ended sees nothing, and is not missed."""
        while True:
            try:
                await act()
            except Exception as error:
                self.broken.append(f"{act.__qualname__} ended: {error!r}")
            await asyncio.sleep(1)

    @property
    def lines(self) -> list[Cuttable]:
        return [*self.database_lines, *self.proxy_lines, *self.route_lines, *self.nats_lines]

    def heal(self) -> None:
        """Let come through, late, what was held back on connections that fell silent."""
        for line in self.lines:
            line.heal()

    async def mend(self) -> None:
        """Have everything as in the beginning, whatever a fault has left behind."""
        self.heal()
        for line in self.lines:
            line.closed, line.refusing, line.rate = False, line in self.database_lines[1:], None
        for clock in self.clocks.values():
            clock.move(0)
        with contextlib.suppress(Exception):
            await self.sandbox.postgres.restart()
        for server in self.servers:
            with contextlib.suppress(Exception):
                await server.restart()
        await asyncio.gather(*(server.healthy() for server in self.servers), return_exceptions=True)
        for service in self.stack.services.values():
            if service.process is None or not service.process.running:
                with contextlib.suppress(Exception):
                    await service.start()

    def ended(self) -> list[str]:
        """Services that run no longer, though nobody has ended them."""
        return [
            f"{name} has ended: {service.process.tail()}"
            for name, service in self.stack.services.items()
            if service.process and not service.process.running
        ]

    async def reading(self, within: float) -> bool:
        """Whether everybody who may has soon read something of each stream."""
        wanted = {(reader, stream) for reader, streams in _READ.items() for stream in streams}
        return await self._soon(within, lambda: wanted <= {read[:2] for read in self._reads()})

    async def writing(self, within: float) -> bool:
        """Whether something of each stream is soon written from now on."""
        since = time.monotonic()

        def written() -> set[str]:
            return {s["stream"] for s in self._known() if s["do"] == "write" and s["t"] > since}

        return await self._soon(within, lambda: written() == {EVENTS, PROJECT, LOG})

    async def settled(self, within: float) -> bool:
        """Whether all that is written by now is soon read by everybody who must."""
        written = [(s["stream"], s["n"]) for s in self._known() if s["do"] == "write"]
        wanted = {
            (reader, stream, n)
            for reader, streams in _READ.items()
            for stream, n in written
            if stream in streams
        }
        return await self._soon(within, lambda: wanted <= self._reads())

    def _reads(self) -> set[tuple[str, str, int]]:
        return {(s["reader"], s["stream"], s["n"]) for s in self._known() if s["do"] == "read"}

    async def _soon(self, within: float, true: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if true():
                return True
            await asyncio.sleep(0.2)
        return False


@asynccontextmanager
async def running(keys_folder: Path, folder: Path) -> AsyncIterator[Storm]:
    """All of it; it takes some seconds to start."""
    async with AsyncExitStack() as exits:
        servers, routes = await _nats(exits, keys_folder)
        database = await exits.enter_async_context(postgres.run(durable=True))
        sandbox = await exits.enter_async_context(
            whole_sandbox.on(database, servers[0], keys_folder, folder)
        )
        lines = [
            await exits.enter_async_context(cuttable.before("127.0.0.1", database.port))
            for _ in range(2)
        ]
        lines[1].refusing = True
        nats_lines = [
            await exits.enter_async_context(cuttable.before("127.0.0.1", server.port))
            for server in (*servers, servers[1])
        ]
        clocks = moved_clock.make(folder, ("publishers", "wsproxy-2", "authcallout"))
        stack = await exits.enter_async_context(_services(sandbox, nats_lines[:3], lines, clocks))
        storm = await _peopled(exits, sandbox, stack, servers, lines, routes, nats_lines, clocks)
        acts = [*(reader.run for reader in storm.readers)]
        acts += [storm.write_events, storm.write_log, storm.share]
        tasks = [asyncio.create_task(storm.keep(act)) for act in acts]
        try:
            yield storm
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _nats(
    exits: AsyncExitStack, keys_folder: Path
) -> tuple[list[NatsServer], list[Cuttable]]:
    """Three servers, and all lines between the third and the others."""
    own = list(itertools.islice(ports.candidates(), 3))
    lines = [await exits.enter_async_context(cuttable.before("127.0.0.1", port)) for port in own]
    one, two, three = [f"127.0.0.1:{port}" for port in own]
    to_one, to_two, to_three = [f"127.0.0.1:{line.port}" for line in lines]
    found = {
        one: (one, two, to_three),
        two: (one, two, to_three),
        three: (to_one, to_two, three),
    }
    routes = [
        Routes("sandbox", address, others, advertise=_NOWHERE) for address, others in found.items()
    ]
    limits = AccountLimits(copies=3)
    running = nats_server.run_cluster(keys_folder, limits=limits, routes=routes)
    return await exits.enter_async_context(running), lines


async def _peopled(
    exits: AsyncExitStack,
    sandbox: Sandbox,
    stack: Stack,
    servers: list[NatsServer],
    database_lines: list[Cuttable],
    route_lines: list[Cuttable],
    nats_lines: list[Cuttable],
    clocks: dict[str, MovedClock],
) -> Storm:
    cluster = sandbox.cluster
    alice, mallory = await cluster.user("alice"), await cluster.user("mallory")
    guest = await cluster.user("guest")
    project = await cluster.project("shown now and then", owner=alice)
    request = await cluster.container_request("stormy", owner=alice)
    container = await cluster.run(request)
    second = stack.services["wsproxy-2"].environment["ARVADOS_NATS_LISTEN"]
    lines = [
        await exits.enter_async_context(cuttable.before("127.0.0.1", port))
        for port in (stack.proxy_port, int(second.rpartition(":")[2]))
    ]
    storm = Storm(
        sandbox,
        stack,
        servers,
        database_lines,
        lines,
        route_lines,
        nats_lines,
        clocks,
        alice,
        guest,
        project,
        request,
        container,
    )
    people = [("one", 0, alice), ("two", 1, alice), ("three", 0, alice)]
    for name, proxy, who in [*people, ("guest", 1, guest), ("stranger", 1, mallory)]:
        base = f"ws://127.0.0.1:{lines[proxy].port}"
        storm.readers.append(Reader(name, base, who, request, storm.note))
    storm.readers.append(NativeReader("native", _url(nats_lines[3]), alice, storm.note))
    return storm


def _url(line: Cuttable) -> str:
    return f"nats://127.0.0.1:{line.port}"


@asynccontextmanager
async def _services(
    sandbox: Sandbox,
    nats_lines: list[Cuttable],
    lines: list[Cuttable],
    clocks: dict[str, MovedClock],
) -> AsyncIterator[Stack]:
    hosts = ",".join(f"127.0.0.1:{line.port}" for line in lines)
    dsn = sandbox.database.reader_dsn.replace(f"127.0.0.1:{sandbox.postgres.port}", hosts)
    environment = {
        "ARVADOS_NATS_NATS_URL": ",".join(map(_url, nats_lines)),
        "ARVADOS_NATS_POSTGRES_DSN": dsn,
        **{f"ARVADOS_NATS_{name}": "3" for name in _REPLICAS},
    }
    async with services.beside(sandbox, **environment) as stack:
        root = sandbox.cluster.root.token
        stack.add("publishers-2", ["publishers", "run"], ARVADOS_NATS_LOG_TOKEN=root, **environment)
        stack.add("authcallout-2", ["authcallout"], **environment)
        listen = next(ports.candidates())
        stack.add(
            "wsproxy-2", ["wsproxy"], ARVADOS_NATS_LISTEN=f"127.0.0.1:{listen}", **environment
        )
        for name, clock in clocks.items():
            service = stack.services[name]
            service.environment = {**service.environment, **clock.environment}
        async with AsyncExitStack() as exits:
            for name in ("publishers-2", "authcallout-2", "wsproxy-2"):
                exits.push_async_callback(stack.services[name].stop)
                await stack.services[name].start()
            yield stack
