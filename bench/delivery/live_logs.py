# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The log of a container that runs: who watches it, what they hear, and how late it comes."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx

from bench import figures, processes
from bench.crowd import clients as crowds
from bench.crowd.clients import Clients
from bench.crowd.crowd_process import Heard
from bench.figures import Figures
from bench.worlds import subscribers
from bench.worlds.cluster import World
from sandbox.logs.log_files import NumberedLines
from sandbox.model.records import Record
from sandbox.stack import Stack

FILE = "stdout.txt"
WIDTH = 100
_TICK = 0.01
_POLL = 2.0
OFFSET = rb'"offset":(\d+)'
_MARKER = b'{"log":{"container"'
Write = Callable[[bytes], Awaitable[None]]


async def write_lines(write: Write, first: int, rate: float, seconds: float) -> array[float]:
    """Write numbered lines at a rate; when each was written."""
    lines, written = NumberedLines(10**9, WIDTH), array("d")
    began = time.monotonic()
    while (elapsed := time.monotonic() - began) < seconds:
        due = int(elapsed * rate) + 1 - len(written)
        if due > 0:
            number = first + len(written)
            now = time.monotonic()
            await write(lines.read(number * WIDTH, (number + due) * WIDTH))
            written.extend([now] * due)
        await asyncio.sleep(_TICK)
    return written


def delays_of(heard: Heard, first: int, written: array[float]) -> list[float]:
    found = []
    for moment, offset in zip(heard.times, heard.numbers, strict=True):
        line = offset // WIDTH - first
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

            await write(NumberedLines(1, WIDTH).line(0))
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

        await write(NumberedLines(1, WIDTH).line(0))
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
            moment - written[offset // WIDTH - 1]
            for moment, offset in seen
            if 0 < offset // WIDTH <= len(written)
        ]
        return {**figures.delays(late), "calls_per_second": calls, "pollers": pollers}
