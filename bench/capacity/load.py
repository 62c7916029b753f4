# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Everything at once for a while: is all of it in time, and does anything grow?

`--sockets` sockets (v0) of `--users` users, `--rate` rows a second about objects in their homes,
and `--containers` containers that write `--lines` lines a second each, with one viewer (v1) each.
`events`: from COMMIT to the socket; `logs`: from the write to the viewer; `missing`: frames that
did not come. Of each process `mib_per_minute` (least squares over the second half, when caches are
as full as they get), `rss_mib` at the end and `cpu_percent` of one core. The writers, the viewers
and the sandbox's API run on the same machine; what they take is `bench_cpu_percent`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import time
from array import array
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from arvados_nats.protocol_v1.messages import SUBPROTOCOL
from bench import figures, processes
from bench.crowd import clients as crowds
from bench.crowd.clients import Clients
from bench.figures import Figures
from bench.worlds import cluster as world
from bench.worlds import subscribers
from bench.worlds.cluster import World
from bench.worlds.compared import ROW_ID
from sandbox import stack
from sandbox.logs.log_files import NumberedLines
from sandbox.model.records import Record
from sandbox.stack import Stack

_FILE, _WIDTH = "stdout.txt", 100
_OFFSET = rb'"offset":(\d+)'
_TOGETHER = 5
"""Rows of one transaction."""
_LOOK = 2.0
_PONG = b'{"pong":{}}'


@dataclass(slots=True)
class _Samples:
    """Memory and CPU of each process, every few seconds."""

    pids: dict[str, int]
    times: list[float] = field(default_factory=list)
    memory: dict[str, list[float]] = field(default_factory=dict)
    began: dict[str, float] = field(default_factory=dict)

    def take(self) -> None:
        self.times.append(time.monotonic())
        for name, pid in self.pids.items():
            self.memory.setdefault(name, []).append(processes.resident(pid) / 2**20)
            self.began.setdefault(name, processes.cpu_seconds(pid))

    def figures(self) -> Figures:
        half = len(self.times) // 2
        minutes = [moment / 60 for moment in self.times[half:]]
        elapsed = self.times[-1] - self.times[0]
        found: Figures = {}
        for name, pid in self.pids.items():
            memory = self.memory[name]
            slope = statistics.linear_regression(minutes, memory[half:]).slope
            used = processes.cpu_seconds(pid) - self.began[name]
            found[f"{name}_mib_per_minute"] = round(slope, 3)
            found[f"{name}_rss_mib"] = round(memory[-1], 1)
            found[f"{name}_cpu_percent"] = round(used / elapsed * 100, 1)
        return found


class _Load:
    """What is written, and what came of it."""

    def __init__(self, made: World, events: Clients, logs: Clients, per_user: int) -> None:
        self._made = made
        self._events = events
        self._logs = logs
        self._per_user = per_user
        self._committed: dict[int, float] = {}
        self._written: list[array[float]] = []
        self._containers: list[Record] = []
        self._end = 0.0
        self.rows = 0
        self.frames = 0
        self.event_delays = array("d")
        self.log_delays = array("d")
        self._came: list[int] = []

    def follow(self, containers: list[Record]) -> None:
        """Containers that write from now on; viewer n watches the one of number n."""
        self._containers = containers
        self._written = [array("d") for _ in containers]
        self._came = [0] * len(containers)

    async def run(self, rate: float, lines: float, seconds: float, samples: _Samples) -> None:
        self._end = time.monotonic() + seconds
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._write_rows(rate))
            tasks.create_task(self._write_logs(lines))
            while time.monotonic() < self._end:
                samples.take()
                await self._look()
                await asyncio.sleep(_LOOK)
        for _ in range(10):  # what is under way
            await asyncio.sleep(1)
            await self._look()
        samples.take()

    async def _write_rows(self, rate: float) -> None:
        began = time.monotonic()
        targets = itertools.cycle(self._made.private)
        while (now := time.monotonic()) < self._end:
            if self.rows < (now - began) * rate:
                chosen = list(itertools.islice(targets, _TOGETHER))
                for row_id, _, moment in await self._made.commit(chosen):
                    self._committed[row_id] = moment
                self.rows += _TOGETHER
            else:
                await asyncio.sleep(_TOGETHER / rate)

    async def _write_logs(self, lines: float) -> None:
        logs, source = self._made.sandbox.cluster.logs, NumberedLines(10**9, _WIDTH)
        if not self._containers:
            return
        for number in itertools.cycle(range(len(self._containers))):
            if (now := time.monotonic()) >= self._end:
                return
            line = len(self._written[number])
            data = source.read(line * _WIDTH, (line + 1) * _WIDTH)
            logs.append(self._containers[number].uuid, _FILE, data)
            self._written[number].append(now)
            await asyncio.sleep(1 / (lines * len(self._containers)))

    async def _look(self) -> None:
        heard = await self._events.take(ROW_ID)
        for moment, row_id in zip(heard.times, heard.numbers, strict=True):
            if row_id in self._committed:
                self.frames += 1
                self.event_delays.append(moment - self._committed[row_id])
        if not self._containers:
            return
        heard = await self._logs.take(_OFFSET)
        for moment, viewer, offset in zip(heard.times, heard.sockets, heard.numbers, strict=True):
            line = offset // _WIDTH
            if 0 <= line < len(self._written[viewer]):
                self.log_delays.append(moment - self._written[viewer][line])
                self._came[viewer] = max(self._came[viewer], line)
        await self._logs.send([_PONG])

    def figures(self) -> Figures:
        behind = [len(w) - 1 - came for w, came in zip(self._written, self._came, strict=True)]
        return {
            **figures.delays(self.event_delays, "events_"),
            **figures.delays(self.log_delays, "logs_"),
            "rows": self.rows,
            "frames": self.frames,
            "missing": self.rows * self._per_user - self.frames,
            "log_lines": sum(map(len, self._written)),
            "log_most_lines_behind": max(behind, default=0),
        }


async def _running(made: World, count: int) -> tuple[list[Record], list[Record]]:
    """Requests that all users can read, and their running containers, which have a line each."""
    cluster = made.sandbox.cluster
    project = await cluster.project("load", owner=cluster.root)
    await cluster.share(project, cluster.config.all_users)
    requests = [
        await cluster.container_request(f"load {number}", owner=project, by=cluster.root)
        for number in range(count)
    ]
    return requests, [await cluster.run(request) for request in requests]


async def _watch(
    clients: Clients, services: Stack, tokens: list[str], requests: list[Record]
) -> None:
    """Viewer n follows the log of request n."""
    if not requests:
        return
    address = ("127.0.0.1", services.proxy_port)
    await clients.open(address, ["/v1/stream"] * len(requests), protocol=SUBPROTOCOL)
    for number, token in zip(range(len(requests)), itertools.cycle(tokens), strict=False):
        await clients.send([json.dumps({"auth": {"token": token}}).encode()], [number])
    await subscribers.answered(clients, len(requests), b'{"hello"')
    for number, request in enumerate(requests):
        wanted = {"id": "b", "log": {"uuid": request.uuid, "files": [_FILE]}}
        await clients.send([json.dumps({"subscribe": wanted}).encode()], [number])
    await subscribers.answered(clients, len(requests), b'{"subscribed"')


def _pids(made: World, services: Stack) -> dict[str, int]:
    found = {name: one.process.pid for name, one in services.services.items() if one.process}
    return {**found, "nats": made.sandbox.nats.pid, "bench": os.getpid()}


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    per_user = options.sockets // options.users
    async with AsyncExitStack() as exits:
        print("starting a cluster and our services …")
        made = await exits.enter_async_context(world.world(options.users, 0))
        # All come at once from one address, as from behind one NAT.
        unknown = str(options.sockets + options.containers)
        services = await exits.enter_async_context(
            stack.beside(made.sandbox, ARVADOS_NATS_MAX_UNKNOWN_CONNECTIONS=unknown)
        )
        events = await exits.enter_async_context(crowds.clients())
        logs = await exits.enter_async_context(crowds.clients())
        tokens = [user.token for user in made.users]
        requests, containers = await _running(made, options.containers)
        address = ("127.0.0.1", services.proxy_port)
        await world.open_v0(events, address, tokens * per_user)
        load = _Load(made, events, logs, per_user)
        load.follow(containers)
        await _watch(logs, services, tokens, requests)
        samples = _Samples(_pids(made, services))
        await load.run(options.rate, options.lines, options.minutes * 60, samples)
        stack.require(services)
    told = ("sockets", "containers", "rate", "lines", "minutes")
    given = {name: getattr(options, name) for name in told}
    return {**given, **load.figures(), **samples.figures()}


SHORT = {"sockets": 200, "users": 40, "containers": 10, "rate": 50.0, "minutes": 0.5}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options: sockets, users, containers, lines and rows a second, minutes."""
    parser.add_argument("--sockets", type=int, default=5000, help="of protocol v0")
    parser.add_argument("--users", type=int, default=1000, help="who share the sockets")
    parser.add_argument("--containers", type=int, default=200, help="that run and write a log")
    parser.add_argument("--lines", type=float, default=2.0, help="a second, of each log")
    parser.add_argument("--rate", type=float, default=500.0, help="rows a second")
    parser.add_argument("--minutes", type=float, default=10.0, help="of load")
