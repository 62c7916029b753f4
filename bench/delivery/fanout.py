# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One event to 1,000 subscribers: how many deliveries a second, and frames for a second of CPU.

Against arvados-ws (`--peer arvados-ws`, or alone): rows in PostgreSQL about an object that all
can read, `--window` of them under way at most (arvados-ws cuts clients that are 64 behind), for
some seconds; without a peer also with no window, as fast as rows can be committed.
Against Centrifugo and nexus: publications at the server (`subscribers`). `single`: the next when
all have the one before, so each is a write of its own; `burst`: 64 at once, where frames can share
a write. Frames for a second of CPU count the process that holds the sockets; `_all_` also what
brought it there: NATS and the publishers. Deliveries a second are what this machine does with
clients and servers on it; the clients only count bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from bench import figures, processes
from bench.crowd import clients as crowds
from bench.figures import Figures
from bench.peers import centrifugo, nexus
from bench.worlds import cluster as world
from bench.worlds import compared
from bench.worlds.cluster import Target, World
from bench.worlds.compared import Cost, Side
from bench.worlds.subscribers import Fan, OfPeer, begun
from sandbox import stack

PEERS = ("arvados-ws", "centrifugo", "nexus")
_BATCH = 8
_FRAME = b'"msgID":'
TIMES = (("single", 100, 1), ("burst", 20, 64))
"""How often, and how many publications at once."""


async def _saturate(side: Side, target: Target, seconds: float, window: int) -> Figures:
    """Rows as fast as they are delivered, with so many under way; what came."""
    readers = side.crowd.count
    cost = Cost(side)
    cost.begin()
    began = time.monotonic()
    sent = got = 0
    last = began
    while time.monotonic() < began + seconds or got < sent * readers:
        while time.monotonic() < began + seconds and sent * readers - got <= window * readers:
            await side.world.commit([target] * _BATCH)
            sent += _BATCH
        more, tally = await side.crowd.tally(_FRAME)
        got += more
        last = tally.last or last
        if time.monotonic() > began + seconds + 30:
            break
        await asyncio.sleep(0.001)
    return {
        "deliveries_per_second": got / (last - began),
        "deliveries": got,
        "missing": sent * readers - got,
        "events_per_second": sent / (last - began),
        **cost.figures(got, sent),
    }


async def _rows(options: argparse.Namespace, peer: bool) -> dict[str, Any]:
    """Ours, and arvados-ws if wanted, fed by rows."""
    async with AsyncExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory()))
        made = await exits.enter_async_context(world.world(options.users, 0))
        services = await exits.enter_async_context(stack.beside(made.sandbox))
        target = await _for_everybody(made)
        everything = [await exits.enter_async_context(compared.ours(made, services))]
        if peer:
            everything.append(await exits.enter_async_context(compared.theirs(made, folder)))
        await exits.enter_async_context(compared.connected(everything, options.sockets))
        for side in everything:
            with processes.frozen(p for s in everything if s is not side for p in s.pids):
                await compared.warm(side, [target])
        rounds: dict[str, list[Figures]] = {side.name: [] for side in everything}
        for number in range(options.rounds + 1):
            for side in everything:
                async with compared.turn(side, everything):
                    found = await _saturate(side, target, options.seconds, options.window)
                    if not peer:
                        free = await _saturate(side, target, options.seconds, 10_000)
                        found |= {f"free_{name}": value for name, value in free.items()}
                if number:
                    rounds[side.name].append(found)
                print(f"  {side.name}: {found['deliveries_per_second']:.0f}/s")
        stack.require(services)
    return _named({name: figures.medians(found) for name, found in rounds.items()})


async def _for_everybody(made: World) -> Target:
    cluster = made.sandbox.cluster
    project = await cluster.project("for all", owner=cluster.root)
    await cluster.share(project, cluster.config.all_users)
    target = Target(world.record(project.uuid), tuple(range(len(made.users))))
    await world.insert(made.writer, [target.record])
    return target


async def published(fan: Fan, readers: int, size: int) -> Figures:
    """Single publications, then bursts."""
    found: Figures = {}
    for name, times, each in TIMES:
        await fan.keep_alive()
        server, everything = _cpu(fan)
        began = time.monotonic()
        got = bytes_ = 0
        for _ in range(times):
            await fan.publish(each, size)
            more, tally = await fan.clients.tally(fan.marker, each * readers)
            got += more
            bytes_ += tally.bytes
        elapsed = tally.last - began
        server_now, everything_now = _cpu(fan)
        server, everything = server_now - server, everything_now - everything
        found |= {
            f"{name}_frames": got,
            f"{name}_missing": times * each * readers - got,
            f"{name}_frame_bytes": bytes_ / max(got, 1),
            f"{name}_frames_per_cpu_s": got / max(server, 0.01),
            f"{name}_frames_per_all_cpu_s": got / max(everything, 0.01),
            f"{name}_deliveries_per_second": got / elapsed,
        }
    return found | {"rss_mib": processes.resident(fan.server) / 2**20}


def _cpu(fan: Fan) -> tuple[float, float]:
    server = processes.cpu_seconds(fan.server)
    return server, server + sum(map(processes.cpu_seconds, fan.others))


async def _publications(options: argparse.Namespace) -> dict[str, Any]:
    """Ours and one peer that takes publications."""
    async with AsyncExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory()))
        peer = await exits.enter_async_context(
            (centrifugo if options.peer == "centrifugo" else nexus).run(folder)
        )
        ours = await exits.enter_async_context(
            begun(options.users, options.sockets, options.protocol)
        )
        theirs = OfPeer(peer, await exits.enter_async_context(crowds.clients()), options.peer)
        await theirs.connect(options.sockets)
        size = options.bytes
        rounds: dict[str, list[Figures]] = {"ours": [], options.peer: []}
        for number in range(options.rounds + 1):
            found = await published(ours, options.sockets, options.content)
            size += round(found["single_frame_bytes"] - await _frame_size(theirs, size))
            other = await published(theirs, options.sockets, size)
            print(_short("ours", found))
            print(_short(options.peer, other))
            if number:
                rounds["ours"].append(found)
                rounds[options.peer].append(other)
        stack.require(ours.stack)
    return _named({name: figures.medians(found) for name, found in rounds.items()})


async def _frame_size(fan: OfPeer, size: int) -> float:
    """Bytes of a frame around so much content."""
    await fan.keep_alive()
    await fan.publish(1, size)
    got, tally = await fan.clients.tally(fan.marker, fan.clients.count - 1)
    return tally.bytes / max(got, 1)


def _short(name: str, found: Figures) -> str:
    single, burst = found["single_frames_per_cpu_s"], found["burst_frames_per_cpu_s"]
    return f"  {name}: {single:.0f} single, {burst:.0f} burst frames per CPU-s"


_RATIOS = figures.RATIOS | {
    "ratio_single_frames_per_cpu": "single_frames_per_cpu_s",
    "ratio_single_frames_per_all_cpu": "single_frames_per_all_cpu_s",
    "ratio_burst_frames_per_cpu": "burst_frames_per_cpu_s",
    "ratio_burst_deliveries": "burst_deliveries_per_second",
}


def _named(found: dict[str, Figures]) -> dict[str, Any]:
    report: dict[str, Any] = {
        f"{side}_{name}".replace("-", "_"): value
        for side, values in found.items()
        for name, value in values.items()
    }
    ours = found["ours"]
    for side, values in found.items():
        for short, name in _RATIOS.items() if side != "ours" else ():
            if name in values and name in ours:
                report[short] = figures.ratio(ours[name], values[name])
    return report


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    by_rows = options.peer not in ("centrifugo", "nexus")
    found = _rows(options, options.peer == "arvados-ws") if by_rows else _publications(options)
    return {"sockets": options.sockets, **await found}


SHORT = {"rounds": 1, "seconds": 2.0, "sockets": 400}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options: the peer, numbers of users and sockets, rounds, their length, the window."""
    parser.add_argument("--peer", choices=PEERS, help="measure this server in turn with ours")
    parser.add_argument("--users", type=int, default=200, help="who share the sockets")
    parser.add_argument("--sockets", type=int, default=1000, help="subscribers")
    parser.add_argument("--rounds", type=int, default=3, help="counted, after one that is not")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a round fed by rows")
    parser.add_argument("--window", type=int, default=32, help="rows under way at most")
    parser.add_argument("--protocol", choices=("v0", "v1", "wamp"), default="v1", help="of ours")
    parser.add_argument("--content", type=int, default=10, help="bytes of text in our events")
    parser.add_argument("--bytes", type=int, default=200, help=argparse.SUPPRESS)
