# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What an idle socket costs, and what an event costs when nearly all sockets are not its readers.

Ours: 10,000 v0 sockets of 200 users with 10 subscriptions each at one wsproxy; memory before and
after; then rows about an object that two users can read, so 100 sockets, and what each costs in
wsproxy's CPU. The same with a tenth of the sockets, of which as many are readers, says whether the
cost follows the readers or the sockets. The peer: as many clients with 10 channels or topics each.
RSS is the server's; the kernel keeps some 4 KiB more for each socket.
The open-file limit must hold twice the sockets in one process; it is raised as far as allowed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

from bench import figures, processes
from bench.crowd import clients as crowds
from bench.crowd.clients import Clients
from bench.figures import Figures
from bench.peers import centrifugo, nexus
from bench.peers.centrifugo import Centrifugo
from bench.peers.nexus import Nexus
from bench.worlds import cluster as world
from bench.worlds import subscribers
from bench.worlds.cluster import Target, World
from sandbox import stack
from sandbox.stack import Stack

PEERS: dict[str, Callable[[Path], AbstractAsyncContextManager[Centrifugo | Nexus]]] = {
    "centrifugo": centrifugo.run,
    "nexus": nexus.run,
}
_FRAME = b'"msgID":'
_AT_ONCE = 100
_EVENTS = 100


def _subscriptions(count: int) -> list[bytes]:
    """All but the first want what never comes, so that an event is sent once."""
    wanted: list[object] = [[]]
    wanted += [[["event_type", "in", [f"never {number}"]]] for number in range(1, count)]
    return [json.dumps({"method": "subscribe", "filters": filters}).encode() for filters in wanted]


async def _fill(clients: Clients, made: World, services: Stack, count: int, each: int) -> Figures:
    """Connect and subscribe; what it took."""
    process = services.services["wsproxy"].process
    pid = process.pid if process else 0
    before, cpu, began = processes.resident(pid), processes.cpu_seconds(pid), time.monotonic()
    users = made.users
    tokens = [users[number % len(users)].token for number in range(count)]
    paths = world.v0_paths(tokens)
    took = await clients.open(("127.0.0.1", services.proxy_port), paths, _AT_ONCE)
    connected = time.monotonic()
    await clients.send(_subscriptions(each))
    heard, _ = await clients.tally(b'"status":200', count * each, within=120)
    if heard < count * each:
        raise ConnectionError(f"{heard} of {count * each} subscriptions were confirmed")
    await asyncio.sleep(3)
    return {
        "connects_per_second": count / (connected - began),
        "connect_cpu_us": (processes.cpu_seconds(pid) - cpu) / count * 1e6,
        **figures.delays(took, "connect_"),
        "rss_mib": processes.resident(pid) / 2**20,
        "rss_per_socket_kib": (processes.resident(pid) - before) / count / 1024,
    }


async def _events(clients: Clients, made: World, services: Stack, target: Target) -> Figures:
    """Rows one by one; CPU of wsproxy for each, and from COMMIT to the last frame."""
    process = services.services["wsproxy"].process
    pid = process.pid if process else 0
    readers = len([n for n in range(clients.count) if n % len(made.users) in target.readers])
    await clients.tally(_FRAME)
    await made.commit([target])
    await clients.tally(_FRAME, readers)
    seconds = []
    idle = await _idle_cpu(pid)
    cpu, began = processes.cpu_seconds(pid), time.monotonic()
    for _ in range(_EVENTS):
        ((_, _, committed),) = await made.commit([target])
        heard, tally = await clients.tally(_FRAME, readers)
        if heard != readers:
            raise ConnectionError(f"{heard} frames for {readers} readers")
        seconds.append(tally.last - committed)
    used = processes.cpu_seconds(pid) - cpu - idle * (time.monotonic() - began)
    return {
        "readers": readers,
        "event_cpu_us": used / _EVENTS * 1e6,
        "idle_cpu_percent": idle * 100,
        **figures.delays(seconds, "event_"),
    }


async def _idle_cpu(pid: int) -> float:
    cpu, began = processes.cpu_seconds(pid), time.monotonic()
    await asyncio.sleep(3.0)
    return (processes.cpu_seconds(pid) - cpu) / (time.monotonic() - began)


async def _ours(options: argparse.Namespace, sockets: int, readers: tuple[int, ...]) -> Figures:
    async with AsyncExitStack() as exits:
        made = await exits.enter_async_context(world.world(options.users, 0))
        services = await exits.enter_async_context(stack.beside(made.sandbox))
        clients = await exits.enter_async_context(crowds.clients())
        target = await world.share(made, readers)
        found = await _fill(clients, made, services, sockets, options.subscriptions)
        print(f"  {sockets} sockets: {found['rss_per_socket_kib']:.1f} KiB each")
        found |= await _events(clients, made, services, target)
        stack.require(services)
        return found


async def _peer(options: argparse.Namespace) -> Figures:
    async with AsyncExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory()))
        peer = await exits.enter_async_context(PEERS[options.peer](folder))
        clients = await exits.enter_async_context(crowds.clients())
        pid, count = peer.process.pid, options.sockets
        before, began = processes.resident(pid), time.monotonic()
        await clients.open(peer.address, [peer.path] * count, _AT_ONCE, peer.protocol)
        took = time.monotonic() - began
        hello = peer.hello([f"channel.{number}" for number in range(options.subscriptions)])
        await clients.send(hello[:1])
        await subscribers.answered(clients, count, peer.welcome)
        await clients.send(hello[1:])
        await subscribers.answered(clients, count * options.subscriptions, peer.subscribed)
        await asyncio.sleep(3)
        return {
            "connects_per_second": count / took,
            "rss_mib": processes.resident(pid) / 2**20,
            "rss_per_socket_kib": (processes.resident(pid) - before) / count / 1024,
        }


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    report = {"sockets": options.sockets, "subscriptions": options.subscriptions}
    ours = await _ours(options, options.sockets, (3, 4))
    few = await _ours(options, options.sockets // 10, tuple(range(20)))
    report |= figures.medians([ours], "ours_") | figures.medians([few], "ours_few_")
    report["ratio_event_cpu_of_ten_times_the_sockets"] = figures.ratio(
        ours["event_cpu_us"], few["event_cpu_us"]
    )
    if options.peer:
        theirs = await _peer(options)
        report |= figures.medians([theirs], f"{options.peer}_")
        name = "rss_per_socket_kib"
        report["ratio_memory"] = figures.ratio(ours[name], theirs[name])
    return report


SHORT = {"sockets": 1000}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options: sockets, subscriptions of each, users, the peer."""
    parser.add_argument("--peer", choices=PEERS, help="measure this server as well")
    parser.add_argument("--sockets", type=int, default=10_000, help="at once")
    parser.add_argument("--subscriptions", type=int, default=10, help="of each socket")
    parser.add_argument("--users", type=int, default=200, help="who share the sockets")
