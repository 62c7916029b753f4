# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Clients that never read beside normal ones: what they cost the others, and in memory.

100 normal v0 clients get every event of `--rate` a second, published at the stream: alone, then
beside 1,000 clients that subscribe and never read again, then alone once more, so that a machine
that grows busier or quieter weighs on both. Delays are from publishing to the sockets of ten of
the normal clients, which have a process of their own: the frames of the others are only counted,
since taking frames apart would itself be the delay. p50 and p99 are medians of those of each
`--window` seconds. Memory is wsproxy's. A client that does not read is given some data before that
shows, a million frames a second for 1,000 of them, which is load and not slowness: these first
seconds count apart (`settling`).
"""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from bench import figures, processes
from bench.crowd import clients as crowds
from bench.crowd import publisher as publishers
from bench.crowd.clients import Clients, Far
from bench.crowd.crowd_process import Heard
from bench.figures import Figures
from bench.worlds import cluster as world
from bench.worlds.compared import ROW_ID
from bench.worlds.subscribers import Ours, begun
from sandbox import stack

_LOOK = 0.05
_TIMED = 10
"""Normal clients whose frames are timed."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Those who are there, and how it is measured."""

    fan: Ours
    """Its clients are those who are timed."""
    publisher: Far
    counted: Clients
    rate: float
    window: float

    @property
    def readers(self) -> int:
        return self.fan.clients.count + self.counted.count


async def _publish(scene: Scene, seconds: float) -> None:
    published = scene.fan.published
    published.extend(await scene.publisher.tell("publish", len(published) + 1, scene.rate, seconds))


async def watch(scene: Scene, seconds: float, settle: float = 0.0) -> list[Figures]:
    """Publish for so long; figures of each window after `settle` seconds, and of the whole."""
    fan = scene.fan
    first = len(fan.published)
    cpu, began = processes.cpu_seconds(fan.server), time.monotonic()
    publishing = asyncio.create_task(_publish(scene, seconds))
    timed, counted, memory = Heard(), 0, list[float]()

    def missing() -> int:
        return (len(fan.published) - first) * scene.readers - counted - len(timed.times)

    while not publishing.done() or missing() > 0:
        await asyncio.sleep(_LOOK)
        timed.add(await fan.clients.take(ROW_ID))
        counted += (await scene.counted.tally(b'"msgID":'))[0]
        memory.append(processes.resident(fan.server) / 2**20)
        if time.monotonic() > began + seconds + 30:
            break
    await publishing
    used = processes.cpu_seconds(fan.server) - cpu
    settled = memory[int(settle / (time.monotonic() - began) * len(memory)) :]
    whole = {
        "missing": missing(),
        "proxy_cpu_percent": used / (time.monotonic() - began) * 100,
        "rss_first_mib": settled[0],
        "rss_last_mib": settled[-1],
        "rss_most_mib": max(memory),
    }
    return _windows(fan, timed, began, settle, scene.window, whole)


def _windows(
    fan: Ours, timed: Heard, began: float, settle: float, window: float, whole: Figures
) -> list[Figures]:
    late: dict[int, list[float]] = {}
    settling: list[float] = []
    for moment, number in zip(timed.times, timed.numbers, strict=True):
        published = fan.published[number - 1]
        since = published - began - settle
        if since >= 0:
            late.setdefault(int(since / window), []).append(moment - published)
        elif since >= -settle:
            settling.append(moment - published)
    whole |= figures.delays(settling, "settling_")
    return [figures.delays(delays) | whole for delays in late.values()]


async def connected(exits: AsyncExitStack, options: argparse.Namespace) -> Scene:
    fan = await exits.enter_async_context(
        begun(options.users, min(_TIMED, options.normal), version="v0")
    )
    made, timed = fan.world, fan.clients
    counted = await exits.enter_async_context(crowds.clients())
    await world.open_v0(
        counted,
        ("127.0.0.1", fan.stack.proxy_port),
        [made.users[n % len(made.users)].token for n in range(timed.count, options.normal)],
    )
    await fan.until_heard(counted, counted.count)
    await timed.take()
    publisher = await exits.enter_async_context(
        publishers.publisher(
            made.sandbox.nats.url, made.sandbox.seed("publisher"), fan.owner, fan.above
        )
    )
    return Scene(fan, publisher, counted, options.rate, options.window)


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    report: dict[str, Any] = {"rate": options.rate, "slow": options.slow}
    async with AsyncExitStack() as exits:
        scene = await connected(exits, options)
        services = scene.fan.stack
        alone = await watch(scene, options.alone)
        slow = await exits.enter_async_context(crowds.clients())
        users = scene.fan.world.users
        tokens = [users[n % len(users)].token for n in range(options.slow)]
        await world.open_v0(slow, ("127.0.0.1", services.proxy_port), tokens)
        await slow.pause(range(options.slow))
        beside = await watch(scene, options.seconds, min(options.settle, options.seconds / 2))
        cut = sum(1 for moment in await slow.closed() if moment)
        await slow.close()
        alone += await watch(scene, options.alone)
        stack.require(services)
    report |= figures.medians(alone, "alone_") | figures.medians(beside, "beside_")
    report["slow_cut"] = cut
    report["ratio_p99"] = figures.ratio(report["beside_p99_ms"], report["alone_p99_ms"])
    growth = report["beside_rss_last_mib"] - report["beside_rss_first_mib"]
    report["rss_growth_mib"] = round(growth, 1)
    return report


SHORT = {"alone": 6.0, "seconds": 12.0, "settle": 6.0, "window": 2.0}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options: normal and slow clients, the rate, how long alone and together."""
    parser.add_argument("--normal", type=int, default=100, help="clients that read")
    parser.add_argument("--slow", type=int, default=1000, help="clients that never read")
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--rate", type=float, default=1000.0, help="events a second")
    parser.add_argument("--alone", type=float, default=20.0, help="seconds before, and after")
    parser.add_argument("--seconds", type=float, default=60.0, help="seconds together")
    parser.add_argument("--settle", type=float, default=10.0, help="of them, counted apart")
    parser.add_argument("--window", type=float, default=5.0, help="seconds of each p99")
