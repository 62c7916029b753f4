# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Container logs: one container that writes 1,000 lines a second, 500 viewers, and a log of 1 GB.

`tailed`: the log publisher reads from the controller's log API. `pushed`: `push-log` publishes what
the container writes. Delays are from the write to the viewer's socket, of the first line of each
frame, which has waited longest. `calls_per_second` at Arvados' API with one viewer and with all.
`polled`: what Workbench does today, `--pollers` clients that ask for more every 2 s; there each new
line waits for the next poll. `replay`: one viewer reads a log of `--replay-mb` from its beginning,
which only Arvados has any more, and what wsproxy grows by meanwhile; `replay_stored`: one of
`--stored-mb` that is in the stream. `exact`: count and SHA-256 of what came are those of the log.
`find`: a line in the middle of the same, looked for at the server.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import sys
import tempfile
import time
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from arvados_nats.contract import streams, subjects
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Message
from bench import figures, processes
from bench.crowd import clients as crowds
from bench.crowd.clients import Clients
from bench.crowd.crowd_process import Heard
from bench.figures import Figures
from bench.worlds import cluster as world
from bench.worlds import subscribers
from bench.worlds.cluster import World
from sandbox import stack
from sandbox.logs.log_files import NumberedLines
from sandbox.model.records import Record
from sandbox.stack import Stack

FILE = "stdout.txt"
_WIDTH = 100
_TICK = 0.01
_POLL = 2.0
OFFSET = rb'"offset":(\d+)'
_LONG_AGO = "UPDATE containers SET finished_at = finished_at - interval '3 h' WHERE uuid = $1"
_MARKER = b'{"log":{"container"'
Write = Callable[[bytes], Awaitable[None]]


async def write_lines(write: Write, first: int, rate: float, seconds: float) -> array[float]:
    """Write numbered lines at a rate; when each was written."""
    lines, written = NumberedLines(10**9, _WIDTH), array("d")
    began = time.monotonic()
    while (elapsed := time.monotonic() - began) < seconds:
        due = int(elapsed * rate) + 1 - len(written)
        if due > 0:
            number = first + len(written)
            now = time.monotonic()
            await write(lines.read(number * _WIDTH, (number + due) * _WIDTH))
            written.extend([now] * due)
        await asyncio.sleep(_TICK)
    return written


def delays_of(heard: Heard, first: int, written: array[float]) -> list[float]:
    found = []
    for moment, offset in zip(heard.times, heard.numbers, strict=True):
        line = offset // _WIDTH - first
        if offset >= 0 and 0 <= line < len(written):
            found.append(moment - written[line])
    return found


async def watch(
    clients: Clients, services: Stack, request: Record, logins: int, tokens: list[str]
) -> None:
    await subscribers.open_v1(
        clients,
        ("127.0.0.1", services.proxy_port),
        [tokens[number % len(tokens)] for number in range(logins)],
        json.dumps({"subscribe": {"id": "b", "log": {"uuid": request.uuid, "files": [FILE]}}}),
        b'{"subscribed"',
    )


class Bench:
    def __init__(self, made: World, services: Stack, options: argparse.Namespace) -> None:
        self.made = made
        self.services = services
        self.options = options
        process = services.services["wsproxy"].process
        self.proxy = process.pid if process else 0
        self.tokens = [user.token for user in made.users]
        self.authority: Path | None = None
        """Of the TLS in front of the proxy, if there is any."""

    async def container(self, name: str) -> tuple[Record, Record]:
        """A request that all users can read, and its running container."""
        cluster = self.made.sandbox.cluster
        project = await cluster.project(name, owner=cluster.root)
        await cluster.share(project, cluster.config.all_users)
        request = await cluster.container_request(name, owner=project, by=cluster.root)
        return request, await cluster.run(request)

    async def live(self, logins: int, pushed: bool) -> Figures:
        """One container, so many viewers."""
        request, container = await self.container(f"{logins} {pushed}")
        logs = self.made.sandbox.cluster.logs
        faults = self.made.sandbox.backend.faults
        options = self.options
        async with AsyncExitStack() as exits:
            clients = await exits.enter_async_context(crowds.clients())
            if self.authority:
                await clients.trust(self.authority)
            push = None
            if pushed:
                push = await exits.enter_async_context(self.pushing(container))

            async def write(data: bytes) -> None:
                logs.append(container.uuid, FILE, data)
                if push:
                    push.write(data)

            await write(NumberedLines(1, _WIDTH).line(0))
            await watch(clients, self.services, request, logins, self.tokens)
            await clients.tally(_MARKER, logins)
            warm = await write_lines(write, 1, options.rate, 3.0)
            await clients.take()
            first = 1 + len(warm)
            faults.reset()
            cpu, began = processes.cpu_seconds(self.proxy), time.monotonic()
            written = await write_lines(write, first, options.rate, options.seconds)
            elapsed = time.monotonic() - began
            calls, used = faults.count(), processes.cpu_seconds(self.proxy) - cpu
            await asyncio.sleep(2)
            heard = await clients.take(OFFSET)
            await clients.close()
        await self.made.sandbox.cluster.finish(container)
        return {
            **figures.delays(delays_of(heard, first, written)),
            "frames": len(heard.times),
            "proxy_cpu_percent": used / elapsed * 100,
            "calls_per_second": calls / elapsed,
            "lines_per_second": len(written) / elapsed,
        }

    @asynccontextmanager
    async def pushing(self, container: Record) -> AsyncIterator[asyncio.StreamWriter]:
        """The push-log command, with a pipe to it."""
        actor = await self.made.sandbox.cluster.container_token(container)
        with tempfile.TemporaryDirectory() as spool:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "arvados_nats", "publishers", "push-log"),
                *("-c", container.uuid, "-f", FILE),
                stdin=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={
                    **{key: value for key, value in os.environ.items() if "ARVADOS" not in key},
                    "ARVADOS_API_TOKEN": actor.token,
                    "ARVADOS_NATS_NATS_URL": self.made.sandbox.nats.url,
                    "ARVADOS_NATS_PUSH_SPOOL": spool,
                },
            )
            assert process.stdin
            try:
                yield process.stdin
            finally:
                if process.returncode is None:
                    process.kill()
                await process.wait()

    async def polled(self, pollers: int) -> Figures:
        """Clients that poll the log API."""
        request, container = await self.container("polled")
        sandbox = self.made.sandbox
        options = self.options
        path = f"/arvados/v1/container_requests/{request.uuid}/log/{container.uuid}/{FILE}"
        seen: list[tuple[float, int]] = []

        async def poll(api: httpx.AsyncClient, number: int) -> None:
            offset = 0
            await asyncio.sleep(number / pollers * _POLL)
            while True:
                began = time.monotonic()
                headers = {
                    "Authorization": f"Bearer {self.tokens[number % len(self.tokens)]}",
                    "Range": f"bytes={offset}-",
                }
                answer = await api.get(path, headers=headers)
                if answer.status_code == 206 and answer.content:
                    seen.append((time.monotonic(), offset))
                    offset += len(answer.content)
                await asyncio.sleep(max(0.0, began + _POLL - time.monotonic()))

        async def write(data: bytes) -> None:
            sandbox.cluster.logs.append(container.uuid, FILE, data)

        await write(NumberedLines(1, _WIDTH).line(0))
        limits = httpx.Limits(max_connections=pollers)
        async with httpx.AsyncClient(base_url=sandbox.api.url, limits=limits, timeout=30) as api:
            tasks = [asyncio.create_task(poll(api, number)) for number in range(pollers)]
            sandbox.backend.faults.reset()
            began = time.monotonic()
            written = await write_lines(write, 1, options.rate, options.seconds)
            calls = sandbox.backend.faults.count() / (time.monotonic() - began)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        late = [
            moment - written[offset // _WIDTH - 1]
            for moment, offset in seen
            if 0 < offset // _WIDTH <= len(written)
        ]
        return {**figures.delays(late), "calls_per_second": calls, "pollers": pollers}

    async def replay(self, megabytes: int, stored: bool) -> Figures:
        """One viewer, from the first byte of a log to its end: from the stream, or from Arvados."""
        source = NumberedLines(megabytes * 10_000, _WIDTH)
        publishers = self.services.services["publishers"]
        if not stored:
            await publishers.stop()
        request, container = await self.container(f"replay {stored}")
        cluster = self.made.sandbox.cluster
        cluster.logs.put(container.uuid, FILE, source)
        await cluster.finish(container)
        if stored:
            await self.until_stored(container)
        else:
            await self.made.sandbox.backend.rows(_LONG_AGO, container.uuid)
            await publishers.start()
        before, cpu = processes.resident(self.proxy), processes.cpu_seconds(self.proxy)
        reader = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.crowd.replay"),
            *(self.services.stream_url, request.uuid, FILE),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        ending = asyncio.create_task(reader.communicate(f"{self.tokens[0]}\n".encode()))
        most = before
        while not ending.done():
            most = max(most, processes.resident(self.proxy))
            await asyncio.sleep(0.05)
        read = json.loads((await ending)[0])
        whole = await asyncio.to_thread(_sha256, source)
        return {
            "mb": read["bytes"] / 1e6,
            "exact": float(read["bytes"] == source.size and read["sha256"] == whole),
            "mb_per_second": read["bytes"] / 1e6 / read["seconds"],
            "proxy_cpu_s": processes.cpu_seconds(self.proxy) - cpu,
            "proxy_before_mib": before / 2**20,
            "proxy_growth_mib": (most - before) / 2**20,
        }

    async def find(self, megabytes: int) -> Figures:
        """A line in the middle of a log that only Arvados has, looked for at the server."""
        source = NumberedLines(megabytes * 10_000, _WIDTH)
        request, container = await self.container("find")
        cluster = self.made.sandbox.cluster
        cluster.logs.put(container.uuid, FILE, source)
        await cluster.finish(container)
        query = {"container": container.uuid, "file": FILE, "request": request.uuid}
        query |= {"text": f"{source.lines // 2:010d}", "from": "0", "to": str(source.size)}
        headers = {"Authorization": f"Bearer {self.tokens[0]}"}
        cpu, began, found, at = processes.cpu_seconds(self.proxy), time.monotonic(), 0.0, 0
        async with httpx.AsyncClient(base_url=self.services.page_url, timeout=60) as client:
            url = "/v1/search"
            async with client.stream("GET", url, params=query, headers=headers) as answer:
                async for line in answer.aiter_lines():
                    step = json.loads(line)
                    at = step["at"]
                    if step["count"] and not found:
                        found = time.monotonic() - began
        seconds = time.monotonic() - began
        return {
            "exact": float(at == source.size and found > 0),
            "seconds_to_the_line": found,
            "mb_per_second": source.size / 1e6 / seconds,
            "proxy_cpu_s": processes.cpu_seconds(self.proxy) - cpu,
        }

    async def until_stored(self, container: Record) -> None:
        """Wait until all of its log and its end are in the stream."""
        sandbox = self.made.sandbox
        seed = sandbox.seed("publisher")
        ended = asyncio.Event()

        async def end(_: Message) -> None:
            ended.set()

        async with nats_client.connect([sandbox.nats.url], name="bench", seed=seed) as nats:
            subject = subjects.log(container.uuid, "end")
            await nats.subscribe(subjects.stored(subject), end)
            if await nats.last(streams.LOGS, subject) is None:
                await ended.wait()


def _sha256(source: NumberedLines) -> str:
    found, portion = hashlib.sha256(), 1_000_000
    for start in range(0, source.size, portion):
        found.update(source.read(start, start + portion))
    return found.hexdigest()


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    report: dict[str, Any] = {"viewers": options.viewers, "rate": options.rate}
    async with AsyncExitStack() as exits:
        made = await exits.enter_async_context(world.world(options.users, 0))
        services = await exits.enter_async_context(stack.beside(made.sandbox))
        bench = Bench(made, services, options)
        parts: dict[str, Callable[[], Awaitable[Figures]]] = {
            "tailed_one": lambda: bench.live(1, False),
            "tailed": lambda: bench.live(options.viewers, False),
            "pushed": lambda: bench.live(options.viewers, True),
            "polled": lambda: bench.polled(options.pollers),
            "replay": lambda: bench.replay(options.replay_mb, False),
            "replay_stored": lambda: bench.replay(options.stored_mb, True),
            "find": lambda: bench.find(options.replay_mb),
        }
        for name, work in parts.items():
            if name in options.only.split(","):
                report |= figures.medians([await work()], f"{name}_")
        stack.require(services)
    return report


SHORT = {"viewers": 20, "users": 5, "seconds": 2.0, "pollers": 5, "replay_mb": 10, "stored_mb": 5}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options: viewers, rate, length, pollers, size of the replay, which parts."""
    parser.add_argument("--viewers", type=int, default=500)
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--pollers", type=int, default=100)
    parser.add_argument("--replay-mb", type=int, default=1000)
    parser.add_argument("--stored-mb", type=int, default=200)
    parser.add_argument(
        "--only", default="tailed_one,tailed,pushed,polled,replay,replay_stored,find"
    )
