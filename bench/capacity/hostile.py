# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Readers, and good logins, while everything hostile goes on at once.

1,000 v0 sockets read `--rate` rows a second, published at the stream: alone, then while in another
process a container sends chunks of 8 MiB, somebody without a token 2 MiB of filters, ten sockets
empty fragments (5 MB/s in all), ten others pings whose pongs they never read, ten v1 sockets their
good token over and over, and `--logins` junk logins come to NATS from the address of all; then
alone once more. Delays are those of `bench slow`. Meanwhile each second one user logs in at NATS
and one at the proxy, in turn with tokens that are known and new: `good_logins` is the share of them
that was in within 2 s. `restarts` counts services whose process ended, and parts of the publishers
that began anew.

The attack itself takes a part of a 2-core machine, which weighs on the delays; so it is also aimed
at a target of its own that does nothing (`bench.peers.sink`) while the same sockets read:
`ratio_floor` is that p99 against none, `ratio_to_floor` ours against it. `cores_…`, alone and at
the floor as well, are parts of a core; `arvados` is this process, which pretends to be that.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from array import array
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import msgspec
from websockets.asyncio.client import connect

from arvados_nats.contract import subjects
from arvados_nats.errors import ArvadosNatsError
from arvados_nats.nats import client as nats_client
from bench import figures, processes
from bench.crowd.attackers import Plan
from bench.delivery import slow
from bench.worlds.subscribers import Ours
from sandbox.model.actors import Actor
from sandbox.stack import Stack

GOOD_SECONDS = 2.0
_REPEATERS = 10
_GOOD = 10
"""Users who log in again and again, every other time with a token of their own."""
_SERVICES = ("publishers", "authcallout", "wsproxy")


async def _plan(fan: Ours, services: Stack, options: argparse.Namespace) -> Plan:
    cluster, users = fan.world.sandbox.cluster, fan.world.users
    request = await cluster.container_request("hostile", owner=users[0])
    container = await cluster.run(request)
    token = (await cluster.container_token(container)).token
    return Plan(
        proxy=f"ws://127.0.0.1:{services.proxy_port}",
        nats=services.sandbox.nats.url,
        container_token=token,
        container_subject=f"{subjects.LOGS}.{container.uuid}.stdout_txt",
        tokens=[users[n % len(users)].token for n in range(_REPEATERS)],
        logins_per_second=options.logins / options.seconds,
        only=options.only,
    )


@asynccontextmanager
async def _sink(plan: Plan) -> AsyncIterator[Plan]:
    """The same plan against a target that does nothing."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.peers.sink", plan.container_token),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    host = f"127.0.0.1:{int(await process.stdout.readline())}"
    try:
        yield msgspec.structs.replace(plan, proxy=f"ws://{host}", nats=f"nats://{host}")
    finally:
        await process.communicate(b"")


@asynccontextmanager
async def _attack(plan: Plan, done: dict[str, Any]) -> AsyncIterator[int]:
    """All attackers as long as the block, in this process; then `done` says what they did."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.crowd.attackers",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(plan) + b"\n")
    try:
        yield process.pid
    finally:
        told, _ = await process.communicate(b"")
        done.update(json.loads(told or b"{}"))


class _GoodLogins:
    """One at NATS and one at the proxy each second, from the attackers' address."""

    def __init__(self, fan: Ours, services: Stack) -> None:
        self._fan = fan
        self._services = services
        self.took = array("d")
        self.enough = False

    async def run(self) -> None:
        """Until there is `enough`, and all are in."""
        users = self._fan.world.users[:_GOOD]
        number = 0
        async with asyncio.TaskGroup() as tasks:
            while not self.enough:
                user = users[number % len(users)]
                if number % 2:
                    user = await self._fan.world.sandbox.cluster.token(user)
                tasks.create_task(self._timed(self._native(user)))
                tasks.create_task(self._timed(self._socket(user)))
                number += 1
                await asyncio.sleep(1.0)

    async def _timed(self, login: Any) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(10 * GOOD_SECONDS):
                await login
        except (ArvadosNatsError, OSError, TimeoutError):
            self.took.append(float("inf"))
            return
        self.took.append(time.monotonic() - began)

    async def _native(self, user: Actor) -> None:
        async with nats_client.connect(
            [self._services.sandbox.nats.url],
            name="good",
            token=user.token,
            inbox_prefix=subjects.inbox_prefix(user.token_uuid or user.uuid),
        ):
            return

    async def _socket(self, user: Actor) -> None:
        async with connect(f"ws://127.0.0.1:{self._services.proxy_port}/v1/stream") as socket:
            await socket.send(json.dumps({"auth": {"token": user.token}}))
            while b'{"hello"' not in (await socket.recv(decode=False)):
                pass


def _ended(services: Stack, before: dict[str, int]) -> int:
    """Services that are not the processes they were, and parts that began anew."""
    count = 0
    for name, pid in before.items():
        process = services.services[name].process
        count += process is None or process.pid != pid or process.exit_code is not None
        count += services.services[name].output.count("publishers.restart")
    return count


def _pids(services: Stack) -> dict[str, int]:
    return {
        name: process.pid
        for name in _SERVICES
        if (process := services.services[name].process) is not None
    }


@contextmanager
def _cores(report: dict[str, Any], pids: Mapping[str, int], prefix: str = "") -> Iterator[None]:
    """What part of a core each process has meanwhile."""
    before = {name: processes.cpu_seconds(pid) for name, pid in pids.items()}
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    for name, pid in pids.items():
        used = processes.cpu_seconds(pid) - before[name]
        report[f"{prefix}cores_{name}"] = round(used / took, 2)


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    report: dict[str, Any] = {"rate": options.rate}
    done: dict[str, Any] = {}
    async with AsyncExitStack() as exits:
        scene = await slow.connected(exits, options)
        services = scene.fan.stack
        pids, memory = _pids(services), {}
        working = {**pids, "nats": services.sandbox.nats.pid, "arvados": os.getpid()}
        with _cores(report, working, "alone_"):
            alone = await slow.watch(scene, options.alone)
        for name, pid in pids.items():
            memory[name] = processes.resident(pid)
        plan = await _plan(scene.fan, services, options)
        good = _GoodLogins(scene.fan, services)
        settle = min(options.settle, options.seconds / 2)
        async with _attack(plan, done) as attackers:
            logins = asyncio.create_task(good.run())
            with _cores(report, {**working, "attackers": attackers}):
                beside = await slow.watch(scene, options.seconds, settle)
            good.enough = True
            await logins
        for name, pid in pids.items():
            grown = (processes.resident(pid) - memory[name]) / 2**20
            report[f"{name}_rss_growth_mib"] = round(grown, 1)
        alone += await slow.watch(scene, options.alone)
        async with _sink(plan) as elsewhere, _attack(elsewhere, {}) as attackers:
            with _cores(report, {**working, "attackers": attackers}, "floor_"):
                floor = await slow.watch(scene, options.alone + settle, settle)
        report["restarts"] = _ended(services, pids)
    report |= figures.medians(alone, "alone_") | figures.medians(beside, "hostile_")
    report |= figures.medians(floor, "floor_")
    report["ratio_p99"] = figures.ratio(report["hostile_p99_ms"], report["alone_p99_ms"])
    report["ratio_floor"] = figures.ratio(report["floor_p99_ms"], report["alone_p99_ms"])
    report["ratio_to_floor"] = figures.ratio(report["hostile_p99_ms"], report["floor_p99_ms"])
    report["good_logins"] = sum(took <= GOOD_SECONDS for took in good.took) / len(good.took)
    report["good_logins_tried"] = len(good.took)
    report["good_logins_slowest_ms"] = round(max(good.took) * 1000, 1)
    report |= {f"attack_{name}": count for name, count in done.items()}
    return report


SHORT = {"alone": 6.0, "seconds": 12.0, "settle": 4.0, "window": 2.0, "normal": 100, "logins": 1000}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options: readers, the rate, how long alone and attacked, how many junk logins."""
    parser.add_argument("--normal", type=int, default=1000, help="sockets that read")
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--rate", type=float, default=100.0, help="rows a second")
    parser.add_argument("--logins", type=int, default=10_000, help="junk logins during the attack")
    parser.add_argument("--only", nargs="*", default=[], help="attacks, by name; else all")
    parser.add_argument("--alone", type=float, default=20.0, help="seconds before, and after")
    parser.add_argument("--seconds", type=float, default=100.0, help="seconds of the attack")
    parser.add_argument("--settle", type=float, default=10.0, help="of them, counted apart")
    parser.add_argument("--window", type=float, default=5.0, help="seconds of each p99")
