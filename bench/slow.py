# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Clients that never read beside normal ones: what they cost the others, and in memory.

100 normal v0 clients get every event of `--rate` a second, published at the stream; first alone,
then together with 1,000 clients that subscribe and never read again. Delays are from publishing to
the normal clients' sockets; memory is wsproxy's. What a client that does
not read has waiting is bounded by a high-water mark, so memory grows at first by that much for each
and must then stay. The first twenty seconds count apart (`settling`): the kernel's buffers of those
who never read fill up then, a million frames a second, which is load and not slowness.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

from arvados_nats import nats_client
from bench import crowds, figures, processes, world
from bench.crowd import Heard
from bench.crowds import Clients
from bench.fans import Ours
from bench.figures import Figures
from bench.sides import ROW_ID
from sandbox import stack

_TICK = 0.02
_LOOK = 0.05
"""Seconds of frames that the clients' process takes apart at once: it reads nothing meanwhile."""
_SETTLE = 20.0
"""Seconds in which the buffers of those who do not read fill up."""


async def _publish(fan: Ours, rate: float, seconds: float) -> None:
    began, done = time.monotonic(), 0
    while (elapsed := time.monotonic() - began) < seconds:
        if due := int(elapsed * rate) + 1 - done:
            await fan.publish(due, 10)
            done += due
        await asyncio.sleep(_TICK)


async def _watch(fan: Ours, normal: Clients, rate: float, seconds: float) -> Figures:
    """Publish for so long; delays of the normal clients, and memory second by second."""
    first = len(fan.published)
    cpu, began = processes.cpu_seconds(fan.server), time.monotonic()
    publishing = asyncio.create_task(_publish(fan, rate, seconds))
    every = Heard()
    memory: list[float] = []
    while not publishing.done() or len(every.times) < (len(fan.published) - first) * normal.count:
        await asyncio.sleep(_LOOK)
        every.add(await normal.take(ROW_ID))
        memory.append(processes.resident(fan.server) / 2**20)
        if time.monotonic() > began + seconds + 30:
            break
    await publishing
    late: list[float] = []
    settling: list[float] = []
    for moment, number in zip(every.times, every.numbers, strict=True):
        if number > first:
            published = fan.published[number - 1]
            when = late if published > began + _SETTLE else settling
            when.append(moment - published)
    frames = len(late) + len(settling)
    settled = memory[int(_SETTLE / _LOOK) :] or memory
    return {
        **figures.delays(late),
        **figures.delays(settling, "settling_"),
        "frames": frames,
        "missing": (len(fan.published) - first) * normal.count - frames,
        "proxy_cpu_percent": (processes.cpu_seconds(fan.server) - cpu)
        / (time.monotonic() - began)
        * 100,
        "rss_first_mib": settled[0],
        "rss_last_mib": settled[-1],
        "rss_most_mib": max(memory),
    }


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    report: dict[str, Any] = {"bench": "slow", "rate": options.rate, "slow": options.slow}
    async with AsyncExitStack() as exits:
        made = await exits.enter_async_context(world.world(options.users, 0))
        services = await exits.enter_async_context(stack.beside(made.sandbox))
        nats = await exits.enter_async_context(
            nats_client.connect(
                [made.sandbox.nats.url], name="bench", seed=made.sandbox.seed("publisher")
            )
        )
        normal = await exits.enter_async_context(crowds.clients())
        slow = await exits.enter_async_context(crowds.clients())
        fan = Ours(made, services, nats, normal, version="v0")
        await fan.connect(options.normal)
        await normal.take()
        alone = await _watch(fan, normal, options.rate, options.alone)
        print(f"  alone: p99 {alone['p99_ms']} ms")
        tokens = [made.users[n % len(made.users)].token for n in range(options.slow)]
        await world.open_v0(slow, ("127.0.0.1", services.proxy_port), tokens)
        await slow.pause(range(options.slow))
        beside = await _watch(fan, normal, options.rate, options.seconds)
        print(f"  beside {options.slow} that never read: p99 {beside['p99_ms']} ms")
        cut = sum(1 for moment in await slow.closed() if moment)
        stack.require(services)
    report |= figures.medians([alone], "alone_") | figures.medians([beside], "beside_")
    report["slow_cut"] = cut
    report["ratio_p99"] = figures.ratio(beside["p99_ms"], alone["p99_ms"])
    report["rss_growth_mib"] = round(beside["rss_last_mib"] - beside["rss_first_mib"], 1)
    report["load"] = processes.load()
    for line in figures.lines(report):
        print(line)
    return report


def main(arguments: list[str]) -> dict[str, Any]:
    """Options: normal and slow clients, the rate, how long alone and together."""
    parser = argparse.ArgumentParser(prog="python -m bench slow", description=__doc__)
    parser.add_argument("--normal", type=int, default=100)
    parser.add_argument("--slow", type=int, default=1000)
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--alone", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    return asyncio.run(measure(parser.parse_args(arguments)))
