# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""From COMMIT in PostgreSQL to the frame in the client: v0, many sockets, a steady rate of rows.

Three situations, each in several rounds, ours and the peer in turn. `shared`: rows about objects in
projects that 2 to 20 users can read, so 10 to 100 of 1,000 sockets. `private`: rows about objects
in somebody's home, so 5 sockets. `fresh`: rows about objects that nobody was told of before; a few
only, since arvados-ws then asks Arvados once for each socket, and the sandbox's API is no match for
the real one: of that, look at the calls, not at the delay. For the other two arvados-ws was warmed
up: all it needs is in its cache, which is the best that can happen to it. That takes a call of the
pretend API for each socket and object, some 300 a second: the objects are few, or it never ends.
What it does not show: a network, TLS, a database with other load.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import figures, processes
from bench.figures import Figures
from bench.worlds import cluster as world
from bench.worlds import compared, fresh
from bench.worlds.cluster import Target, World
from bench.worlds.compared import Cost, Side
from sandbox import stack

PEERS = ("arvados-ws",)
_FRESH = 3


async def _round(side: Side, targets: Sequence[Target], rate: float, seconds: float) -> Figures:
    """One side's turn of one situation."""
    count = int(rate * seconds)
    cost = Cost(side)
    cost.begin()
    written = await side.world.stream(targets, rate, count)
    expected = sum(side.readers(target) for _, target, _ in written)
    heard = await side.crowd.until(expected, compared.ROW_ID, within=20.0)
    took = max(heard.times, default=math.inf) - written[0][2]
    used = cost.figures(len(heard.times), count)
    return {
        **figures.delays(compared.delays(heard, written)),
        "deliveries": len(heard.times),
        "deliveries_per_second": len(heard.times) / took,
        "missing": expected - len(heard.times),
        **used,
    }


async def _situation(
    everything: Sequence[Side], targets: Sequence[Target], options: argparse.Namespace
) -> dict[str, Figures]:
    """Warm-up, then rounds in turn; medians of each side."""
    rounds: dict[str, list[Figures]] = {side.name: [] for side in everything}
    for number in range(options.rounds + 1):
        for side in everything:
            seconds = options.seconds if number else min(3.0, options.seconds)
            async with compared.turn(side, everything):
                found = await _round(side, targets, options.rate, seconds)
            if number:
                rounds[side.name].append(found)
                print(f"  {side.name}: p50 {found['p50_ms']} ms, p99 {found['p99_ms']} ms")
    return {name: figures.medians(found) for name, found in rounds.items()}


async def _all(everything: Sequence[Side], options: argparse.Namespace) -> dict[str, Any]:
    w = everything[0].world
    private = w.private[1 : 1 + options.private]
    report: dict[str, Any] = {}
    for side in everything:
        with processes.frozen(p for s in everything if s is not side for p in s.pids):
            warmed = await compared.warm(side, [*w.shared, *private])
        report |= {f"{side.name}_{name}": value for name, value in warmed.items()}
        print(f"{side.name}: warm: {warmed}")
    for name, targets in (("shared", w.shared), ("private", private)):
        print(name)
        found = await _situation(everything, targets, options)
        report |= _named(found, name)
    found = {side.name: await fresh.turn(side, everything, _FRESH) for side in everything}
    return report | _named(found, "fresh")


def _named(found: dict[str, Figures], situation: str) -> dict[str, Any]:
    """Figures of all sides in one flat dict, with ratios where there is a peer."""
    report: dict[str, Any] = {
        f"{side}_{situation}_{name}": value
        for side, values in found.items()
        for name, value in values.items()
    }
    ours = found["ours"]
    for side, values in found.items():
        if side == "ours":
            continue
        for short, name in figures.RATIOS.items():
            if name in values and name in ours:
                key = short if situation == "shared" else f"{situation}_{short}"
                report[key] = figures.ratio(ours[name], values[name])
    return report


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    print("starting a cluster and our services …")
    async with contextlib.AsyncExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory()))
        w: World = await exits.enter_async_context(world.world(options.users, options.projects))
        services = await exits.enter_async_context(stack.beside(w.sandbox))
        everything = [await exits.enter_async_context(compared.ours(w, services))]
        if options.peer:
            everything.append(await exits.enter_async_context(compared.theirs(w, folder)))
        connected = await exits.enter_async_context(compared.connected(everything, options.sockets))
        report: dict[str, Any] = {"rate": options.rate}
        report |= {f"{s}_{n}": round(v, 1) for s, f in connected.items() for n, v in f.items()}
        report |= await _all(everything, options)
        stack.require(services)
    return report


SHORT = {"rounds": 1, "seconds": 3.0, "sockets": 200, "users": 40}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options: the peer, numbers of users and sockets, the rate, rounds and their length."""
    parser.add_argument("--peer", choices=PEERS, help="measure this server in turn with ours")
    parser.add_argument("--users", type=int, default=200, help="who share the sockets")
    parser.add_argument("--sockets", type=int, default=1000, help="of each side")
    parser.add_argument("--projects", type=int, default=4, help="that are shared")
    parser.add_argument(
        "--private", type=int, default=2, help="private objects that rows are about"
    )
    parser.add_argument("--rate", type=float, default=100.0, help="rows a second")
    parser.add_argument("--rounds", type=int, default=3, help="counted, after one that is not")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a round")
