# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Several proxies and callout services on one machine, against one of each.

`fanout`: bursts of 64 events to `--sockets` readers, spread over the proxies: deliveries a second,
and frames for a second of CPU of all proxies together. `logins`: native logins with known tokens,
which NATS spreads over the callout services. `ratio_…` is that of `--replicas` over that of one.
Clients, NATS and the services share the cores: where there are no more than two, deliveries a
second say how far the rest of the machine carries it, and frames for a second of CPU what a
further core would bring.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from bench import figures, processes
from bench.crowd import clients as crowds
from bench.crowd import native
from bench.figures import Figures
from bench.worlds.cluster import World
from bench.worlds.subscribers import Ours, begun, open_v1
from sandbox import stack
from sandbox.servers import ports
from sandbox.stack import Service, Stack

_BURST = 64


def _pids(services: Stack, name: str) -> list[int]:
    found = [one for key, one in services.services.items() if key.partition("-")[0] == name]
    return [one.process.pid for one in found if one.process]


async def _more(services: Stack, number: int) -> tuple[int, list[Service]]:
    """One more of each; the port of the proxy."""
    port = next(ports.candidates())
    listen = f"127.0.0.1:{port}"
    made = [
        services.add(f"authcallout-{number}", ["authcallout"]),
        services.add(f"wsproxy-{number}", ["wsproxy"], ARVADOS_NATS_LISTEN=listen),
    ]
    for service in made:
        await service.start()
    return port, made


async def _fanout(fans: Sequence[Ours], options: argparse.Namespace) -> Figures:
    """Bursts to all sockets, each at one of these proxies."""
    users, each = fans[0].world.users, options.sockets // len(fans)
    for fan in fans:
        tokens = [users[number % len(users)].token for number in range(each)]
        await open_v1(fan.clients, ("127.0.0.1", fan.stack.proxy_port), tokens)
        await fans[0].until_heard(fan.clients, each)
    pids = _pids(fans[0].stack, "wsproxy")
    frames, took, cpu = 0, 0.0, sum(map(processes.cpu_seconds, pids))
    for _ in range(options.bursts):
        await asyncio.gather(*(fan.keep_alive() for fan in fans))
        began = time.monotonic()
        await fans[0].publish(_BURST, 10)
        told = await asyncio.gather(*(fan.clients.tally(fan.marker, _BURST * each) for fan in fans))
        frames += sum(found for found, _ in told)
        took += max(tally.last for _, tally in told) - began
    used = sum(map(processes.cpu_seconds, pids)) - cpu
    for fan in fans:
        await fan.clients.close()
    return {
        "fanout_missing": options.bursts * _BURST * each * len(fans) - frames,
        "fanout_deliveries_per_second": frames / took,
        "fanout_frames_per_cpu_s": frames / max(used, 0.01),
    }


async def _logins(made: World, services: Stack) -> Figures:
    host, _, port = made.sandbox.nats.url.rpartition("//")[2].rpartition(":")
    hellos = [native.login(user.token, [f"arvados.live.{user.uuid}.>"]) for user in made.users]
    pids = _pids(services, "authcallout")
    async with crowds.clients() as clients:
        for _ in pids:  # each must have met each token
            await clients.login((host, int(port)), hellos * 2)
            await clients.close()
        cpu, began = sum(map(processes.cpu_seconds, pids)), time.monotonic()
        took = await clients.login((host, int(port)), hellos * 10)
        seconds = time.monotonic() - began
        used = sum(map(processes.cpu_seconds, pids)) - cpu
    return {
        "logins_refused": sum(one < 0 for one in took),
        "logins_per_second": len(took) / seconds,
        "logins_cpu_ms": used / len(took) * 1000,
    }


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    async with AsyncExitStack() as exits:
        first = await exits.enter_async_context(begun(options.users))
        made, services = first.world, first.stack
        await first.clients.close()
        fans = [first]
        one = await _fanout(fans, options) | await _logins(made, services)
        for number in range(2, options.replicas + 1):
            port, started = await _more(services, number)
            for service in started:
                exits.push_async_callback(service.stop)
            theirs = dataclasses.replace(services, proxy_port=port)
            clients = await exits.enter_async_context(crowds.clients())
            fans.append(dataclasses.replace(first, stack=theirs, clients=clients))
        more = await _fanout(fans, options) | await _logins(made, services)
        stack.require(services)
    report: dict[str, Any] = {"replicas": options.replicas}
    report |= figures.medians([one], "one_") | figures.medians([more], "more_")
    for name in ("fanout_deliveries_per_second", "fanout_frames_per_cpu_s", "logins_per_second"):
        report[f"ratio_{name}"] = figures.ratio(more[name], one[name])
    return report


SHORT = {"users": 20, "sockets": 200, "bursts": 5}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options: how many, users, sockets, bursts."""
    parser.add_argument("--replicas", type=int, default=2, help="of each of the two services")
    parser.add_argument("--users", type=int, default=200, help="who share the sockets")
    parser.add_argument("--sockets", type=int, default=2000, help="over all proxies")
    parser.add_argument("--bursts", type=int, default=20, help="of 64 events")
