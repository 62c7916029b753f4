# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""From COMMIT in PostgreSQL to a dispatcher's decision, with 1,000 containers waiting.

The watcher is the Go program of tests/clients/go, its decisions read from a pipe. `logged`: a
container is locked and unlocked, so an event wakes the publisher. `unlogged`: a priority is written
by raw SQL as Arvados does it, so only the look at all containers finds it, once a second. `list`:
from the start of the watcher to its having the whole queue. `dispatch`: from the start of the
dispatcher, with 50 slots, to the first container that it has locked, and to the fiftieth;
`dispatch_most_urgent`: they were the most urgent ones, in their order.
What it does not show: a network, TLS, a database with other load.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench import figures
from bench.figures import Figures
from sandbox import sandbox, stack
from sandbox.cluster import Cluster

_PROGRAM = Path(__file__).parents[2] / "tests" / "clients" / "go"
_WAITING = """
INSERT INTO containers (uuid, owner_uuid, created_at, modified_at, updated_at, state, priority,
    runtime_constraints, scheduling_parameters, lock_count)
SELECT 'zzzzz-dz642-wait' || lpad(n::text, 11, '0'), 'zzzzz-tpzed-000000000000000', now(), now(),
    now(), 'Queued', n * (1::bigint << 42), '{"vcpus": 1, "ram": 1000000}', '{}', 0
FROM generate_series(1, $1::int) AS n
"""
_PRIORITY = "UPDATE containers SET priority = $2 WHERE uuid = $1"
_LOCKED = 10
_SLOTS = 50


class Decisions:
    """What the watcher has said about each container, as soon as it does."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._last: dict[str, str] = {}
        self._news = asyncio.Condition()

    async def read(self) -> None:
        """Take decisions until the program ends."""
        assert self._process.stdout
        async for line in self._process.stdout:
            said = json.loads(line)
            async with self._news:
                self._last[said["uuid"]] = said["do"]
                self._news.notify_all()

    async def until(self, uuid: str, what: str) -> float:
        """The moment when it says so."""
        async with asyncio.timeout(60), self._news:
            await self._news.wait_for(lambda: self._last.get(uuid) == what)
        return time.monotonic()


@asynccontextmanager
async def _watching(folder: Path, url: str, token: str) -> AsyncIterator[tuple[Decisions, float]]:
    """The watcher having the whole queue, and the seconds that took."""
    environment = {"NATS_URL": url, "ARVADOS_API_TOKEN": token, "PATH": "/usr/bin:/bin"}
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        str(folder / "live"),
        "queue",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    assert process.stderr
    decisions = Decisions(process)
    reading = asyncio.create_task(decisions.read())
    try:
        while b"caught up" not in (line := await process.stderr.readline()):
            assert line, "the watcher has ended"
        listed = time.monotonic() - began
        rest = asyncio.create_task(process.stderr.read())
        yield decisions, listed
        process.terminate()
        await asyncio.gather(reading, rest)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _dispatched(folder: Path, cluster: Cluster, url: str, api: str, token: str) -> Figures:
    """Fifty containers locked and begun by the dispatcher, whose commands only wait."""
    query = "SELECT uuid FROM containers WHERE state = 'Queued' ORDER BY priority DESC LIMIT $1"
    urgent = [row["uuid"] for row in await cluster.pool.fetch(query, _SLOTS)]
    environment = {
        "NATS_URL": url,
        "ARVADOS_API_TOKEN": token,
        "ARVADOS_API": api,
        "SLOTS": str(_SLOTS),
        "PATH": "/usr/bin:/bin",
    }
    began, moments, locked = time.monotonic(), list[float](), list[str]()
    process = await asyncio.create_subprocess_exec(
        *(str(folder / "live"), "dispatch", "sh", "-c", "exec sleep 60"),
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    assert process.stderr
    try:
        async with asyncio.timeout(60):
            while len(locked) < _SLOTS:
                word, _, uuid = (await process.stderr.readline()).decode().strip().partition(": ")
                if word == "* start":
                    locked.append(uuid)
                    moments.append(time.monotonic() - began)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the containers' processes, too
        await process.wait()
    return {
        "dispatch_first_ms": round(moments[0] * 1000, 1),
        "dispatch_fifty_ms": round(moments[-1] * 1000, 1),
        "dispatch_most_urgent": float(locked == urgent),
    }


async def _measured(
    decisions: Decisions,
    count: int,
    change: Callable[[int], Awaitable[tuple[str, str]]],
    longest_pause: float,
) -> Figures:
    """Delays of `count` changes; each gives the container and the decision that shows it."""
    seconds = []
    for number in range(count):
        uuid, what = await change(number)
        committed = time.monotonic()
        seconds.append(await decisions.until(uuid, what) - committed)
        await asyncio.sleep(random.uniform(0.02, longest_pause))
    return figures.delays(seconds)


async def _round(cluster: Cluster, decisions: Decisions, count: int) -> dict[str, Figures]:
    alice = await cluster.user("alice")
    requests = [await cluster.container_request(owner=alice) for _ in range(_LOCKED)]
    uuids = [str(request["container_uuid"]) for request in requests]
    for uuid in uuids:
        await decisions.until(uuid, "lock")

    async def locked(number: int) -> tuple[str, str]:
        uuid = uuids[number // 2 % _LOCKED]
        if number % 2:
            await cluster.unlock(uuid, cluster.root)
            return uuid, "lock"
        await cluster.lock(uuid, cluster.root)
        return uuid, "start"

    async def moved(number: int) -> tuple[str, str]:
        priority = 0 if number % 2 == 0 else 5
        await cluster.pool.execute(_PRIORITY, uuids[0], priority)
        return uuids[0], "lock" if priority else "hold"

    # An unlocked container is cancelled after so many attempts, so each is locked a few times.
    logged = await _measured(decisions, min(count, _LOCKED * 4) // 2 * 2, locked, 0.1)
    return {"logged": logged, "unlogged": await _measured(decisions, count // 2 * 2, moved, 1.0)}


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Medians over the rounds; `skipped` says why there are none."""
    if shutil.which("go") is None:
        return {"skipped": "go is not installed"}
    with tempfile.TemporaryDirectory(prefix="arvados-nats-bench-") as place:
        folder = Path(place)
        build = ("go", "build", "-o", str(folder / "live"), ".")
        await asyncio.to_thread(subprocess.run, build, cwd=_PROGRAM, check=True)
        async with sandbox.run() as world, stack.beside(world):
            cluster = world.cluster
            await cluster.pool.execute(_WAITING, options.waiting)
            admin = await cluster.user("boss", admin=True)
            await asyncio.sleep(3 + options.waiting / 1000)
            listed, rounds = [], []
            for _ in range(options.rounds):
                async with _watching(folder, world.nats.url, admin.token) as (decisions, seconds):
                    listed.append({"list_ms": round(seconds * 1000, 1)})
                    found = await _round(cluster, decisions, options.count)
                    rounds.append(found)
                    print(f"  {found}")
            api, url = world.api.url, world.nats.url
            dispatched = await _dispatched(folder, cluster, url, api, admin.token)
    return {
        "waiting": options.waiting,
        **figures.medians(listed),
        **dispatched,
        **figures.medians([found["logged"] for found in rounds], "logged_"),
        **figures.medians([found["unlogged"] for found in rounds], "unlogged_"),
    }


SHORT = {"waiting": 100, "count": 5, "rounds": 1}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options: how many wait, and how many change."""
    parser.add_argument("--waiting", type=int, default=1000, help="containers in the queue")
    parser.add_argument("--count", type=int, default=40, help="changes of each kind in a round")
    parser.add_argument("--rounds", type=int, default=3, help="whose medians are told")
