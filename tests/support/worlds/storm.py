# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Everything in several copies, with writers and readers that number all they do.

Three NATS servers, PostgreSQL behind a network that can be cut, two of each service. One writer
makes collections and one writes a log; readers on both proxies hold on to their places and come
back whenever they are cut off, as any client does. What is done and seen becomes a history
(`tests/faults/checker.py`).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from arvados_nats.nats.server_config import AccountLimits
from arvados_nats.protocol_v1.messages import SUBPROTOCOL
from sandbox import nats_server, ports, postgres
from sandbox import sandbox as whole_sandbox
from sandbox import stack as services
from sandbox.model.actors import Actor
from sandbox.model.records import Record
from sandbox.nats_server import NatsServer
from sandbox.sandbox import Sandbox
from sandbox.stack import Stack
from tests.support.fronts import cuttable
from tests.support.fronts.cuttable import Cuttable

EVENTS, LOG = "events", "log"
_FILE = "stdout.txt"
_LINE = b"line %08d\n"
_EVERY = 0.1
_REPLICAS = ("EVENTS_REPLICAS", "LOGS_REPLICAS", "QUEUE_REPLICAS", "SYSTEM_LOGS_REPLICAS")

Take = Callable[..., None]


class Reader:
    """A client of protocol v1 that never gives up, and forgets no place."""

    def __init__(self, name: str, base: str, who: Actor, request: Record, took: Take) -> None:
        self.name = name
        self._base = base
        self._who = who
        self._request = request
        self._took = took
        self._cursor: str | None = None
        self._place: dict[str, int] = {}
        self._line = b""

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            with contextlib.suppress(OSError, WebSocketException, TimeoutError):
                await self._session()
            await asyncio.sleep(0.2)

    async def _session(self) -> None:
        async with connect(
            f"{self._base}/v1/stream",
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            max_size=None,
            open_timeout=5,
            ping_interval=5,
            ping_timeout=10,
        ) as socket:
            await socket.send(json.dumps({"auth": {"token": self._who.token}}))
            async for frame in socket:
                ((key, body),) = json.loads(frame).items()
                if key == "hello":
                    for wanted in self._subscriptions():
                        await socket.send(json.dumps({"subscribe": wanted}))
                elif key == "ping":
                    await socket.send('{"pong":{}}')
                elif key == "error" and body.get("temporary"):
                    return
                else:
                    self._handle(key, body)

    def _subscriptions(self) -> list[dict[str, Any]]:
        events = {"cursor": self._cursor} if self._cursor else {"begin": "now"}
        log: dict[str, Any] = {"uuid": self._request.uuid}
        if self._place:
            log["from"] = {_FILE: self._place}
        return [{"id": EVENTS, "events": events}, {"id": LOG, "log": log}]

    def _handle(self, key: str, body: dict[str, Any]) -> None:
        self._cursor = body.get("cursor", self._cursor)
        if key == "event" and body["event_type"] == "create":
            self._took("read", reader=self.name, stream=EVENTS, uuid=body["object_uuid"])
        elif key == "gap":
            if body.get("file"):
                self._place, self._line = {}, b""
            self._took("gap", reader=self.name)
        elif key == "log" and body["file"] == _FILE:
            self._bytes(body)

    def _bytes(self, body: dict[str, Any]) -> None:
        data = base64.b64decode(body["base64"]) if "base64" in body else body["text"].encode()
        at = body["offset"]
        if self._place and at != self._place["offset"]:
            self._line = b""
        self._place = {"epoch": body["epoch"], "offset": body["next"]}
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            number = line.rpartition(b" ")[2]
            if number.isdigit():
                self._took("read", reader=self.name, stream=LOG, n=int(number))


@dataclass(slots=True)
class Storm:
    """What runs, and what has happened since `begin`."""

    sandbox: Sandbox
    stack: Stack
    servers: list[NatsServer]
    database_line: Cuttable
    proxy_lines: list[Cuttable]
    alice: Actor
    request: Record
    container: Record
    readers: list[Reader] = field(default_factory=list)
    _steps: list[dict[str, Any]] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)
    _count: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _lines: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def note(self, do: str, **facts: Any) -> None:
        """Something happened now."""
        self._steps.append({"t": time.monotonic(), "do": do, **facts})

    def begin(self) -> None:
        """A new history."""
        self._steps = []
        for reader in self.readers:
            if reader.name != "stranger":
                for stream in (EVENTS, LOG):
                    self.note("allow", reader=reader.name, stream=stream)

    def history(self) -> list[bytes]:
        """All that happened since `begin`, as JSON lines, but for objects that are not counted."""
        lines = []
        for step in self._steps:
            uuid = step.get("uuid")
            if uuid is None or uuid in self._numbers:
                known = {} if uuid is None else {"n": self._numbers[uuid]}
                kept = {key: value for key, value in step.items() if key != "uuid"}
                lines.append(json.dumps({**kept, **known}).encode())
        return lines

    async def write_events(self) -> None:
        """Collections of alice, one after the other."""
        for n in self._count:
            with contextlib.suppress(Exception):  # the database is away: it was not written
                made = await self.sandbox.cluster.collection(f"c{n}", owner=self.alice)
                self._numbers[made.uuid] = n
                self.note("write", stream=EVENTS, n=n)
            await asyncio.sleep(_EVERY)

    async def write_log(self) -> None:
        """Numbered lines."""
        for n in self._lines:
            await self.sandbox.cluster.write_log(self.container, _FILE, _LINE % n)
            self.note("write", stream=LOG, n=n)
            await asyncio.sleep(_EVERY)

    async def reading(self, within: float) -> bool:
        """Whether everybody who may has soon read something of both streams."""
        wanted = {(r.name, s) for r in self.readers for s in (EVENTS, LOG) if r.name != "stranger"}
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            reads = {(s["reader"], s["stream"]) for s in self._steps if s["do"] == "read"}
            if wanted <= reads:
                return True
            await asyncio.sleep(0.2)
        return False

    async def settled(self, within: float) -> bool:
        """Whether all that is written by now is soon read by everybody."""
        wanted = {(s["stream"], s["n"]) for s in self._steps if s["do"] == "write"}
        names = [reader.name for reader in self.readers if reader.name != "stranger"]
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            read: dict[str, set[tuple[str, int]]] = {name: set() for name in names}
            for step in self._steps:
                if step["do"] == "read" and step["reader"] in read:
                    n = step.get("n") or self._numbers.get(step.get("uuid", ""), 0)
                    read[step["reader"]].add((step["stream"], n))
            if all(wanted <= seen for seen in read.values()):
                return True
            await asyncio.sleep(0.2)
        return False


@asynccontextmanager
async def running(keys_folder: Path, folder: Path) -> AsyncIterator[Storm]:
    """All of it; it takes some seconds to start."""
    async with AsyncExitStack() as exits:
        servers = await exits.enter_async_context(
            nats_server.run_cluster(keys_folder, limits=AccountLimits(copies=3))
        )
        database = await exits.enter_async_context(postgres.run(durable=True))
        sandbox = await exits.enter_async_context(
            whole_sandbox.on(database, servers[0], keys_folder, folder)
        )
        line = await exits.enter_async_context(cuttable.before("127.0.0.1", database.port))
        stack = await exits.enter_async_context(_services(sandbox, servers, line, database.port))
        cluster = sandbox.cluster
        alice, mallory = await cluster.user("alice"), await cluster.user("mallory")
        request = await cluster.container_request("stormy", owner=alice)
        container = await cluster.run(request)
        second = stack.services["wsproxy-2"].environment["ARVADOS_NATS_LISTEN"]
        ports_of_proxies = [stack.proxy_port, int(second.rpartition(":")[2])]
        lines = [
            await exits.enter_async_context(cuttable.before("127.0.0.1", port))
            for port in ports_of_proxies
        ]
        storm = Storm(sandbox, stack, servers, line, lines, alice, request, container)
        people = [("one", 0, alice), ("two", 1, alice), ("three", 0, alice)]
        for name, proxy, who in [*people, ("stranger", 1, mallory)]:
            base = f"ws://127.0.0.1:{lines[proxy].port}"
            storm.readers.append(Reader(name, base, who, request, storm.note))
        tasks = [asyncio.create_task(reader.run()) for reader in storm.readers]
        tasks += [asyncio.create_task(w) for w in (storm.write_events(), storm.write_log())]
        try:
            yield storm
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def _services(
    sandbox: Sandbox, servers: list[NatsServer], line: Cuttable, port: int
) -> AsyncIterator[Stack]:
    dsn = sandbox.database.reader_dsn.replace(f":{port}/", f":{line.port}/")
    environment = {
        "ARVADOS_NATS_NATS_URL": ",".join(server.url for server in servers),
        "ARVADOS_NATS_POSTGRES_DSN": dsn,
        **{f"ARVADOS_NATS_{name}": "3" for name in _REPLICAS},
    }
    async with services.beside(sandbox, **environment) as stack:
        root = sandbox.cluster.root.token
        stack.add("publishers-2", ["publishers", "run"], ARVADOS_NATS_LOG_TOKEN=root, **environment)
        stack.add("authcallout-2", ["authcallout"], **environment)
        listen = next(ports.candidates())
        second = stack.add(
            "wsproxy-2", ["wsproxy"], ARVADOS_NATS_LISTEN=f"127.0.0.1:{listen}", **environment
        )
        async with AsyncExitStack() as exits:
            others = [stack.services[name] for name in ("publishers-2", "authcallout-2")]
            for service in (*others, second):
                exits.push_async_callback(service.stop)
                await service.start()
            yield stack
