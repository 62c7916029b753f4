# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How the cost of a change grows with what many people can read.

`--users` users who can all read one tree of `--projects` projects (the permission table has as many
rows as the two multiplied), one socket (v0) each; 50 rows a second about objects in the users'
homes, which have nothing to do with it. Then, one after the other: nothing (`none`), projects are
made in the tree (`project`), a twentieth of the tree is moved within it (`move`), a project is
shared with the role that everybody has (`share`), a user is deactivated (`deactivate`), ten
projects are made in 3 s (`ten`).
`last`: from the commit to the event at the last of the sockets that must hear of it, p99 where it
is done several times; `other`: the rows that have nothing to do with it, and `ratio_other_p99`
against `none`; `cpu` of each service, and `more_cpu_s` of all than with `none`, for each time;
`nats_kib`: what NATS took in and gave out more than with `none`.
`fill_s`: until all sockets of a proxy that was just started get live rows. `logins`: then all users
log in at NATS at once, with a pattern of the tree, and who was refused again after 2 s, as clients
do: `logins_tries` in all, after which `logins_refused` of them are not in.
`--growth`: the same at ten times the projects, and the ratios of delay and CPU of one project.
`--peer arvados-ws`: the same acts with its sockets, on the same database, after ours.
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
from bench.access.acts import ACTS, SECONDS, TIMES, Act, Scene
from bench.crowd import clients as crowds
from bench.crowd import native
from bench.crowd.crowd_process import Heard
from bench.figures import Figures
from bench.worlds import cluster as world
from bench.worlds import compared
from bench.worlds.cluster import World
from bench.worlds.compared import ROW_ID, Side
from bench.worlds.tree import Tree, plant
from sandbox import stack
from sandbox.model.actors import Actor

_RATE = 50.0
_WITHIN = 60.0
_PAUSE, _TRIES = 2.0, 10
"""Of NATS clients between two attempts, and how many the most hasty make."""
_ROW_OF = "SELECT id FROM logs WHERE object_uuid = $1 ORDER BY id DESC LIMIT 1"

_GROWTH = {
    "delay": "project_last_p50_ms",
    "cpu": "project_cpu_s",
    "fill": "fill_s",
    "logins": "logins_per_second",
}


async def _one(scene: Scene, name: str, act: Act) -> Figures:
    """Do it in the midst of rows that have nothing to do with it."""
    side, made = scene.side, scene.made
    before, bytes_before, count = scene.cpu(), await scene.nats_bytes(), int(_RATE * SECONDS)
    await side.crowd.take()
    rows = asyncio.create_task(made.stream(made.private[: scene.sockets], _RATE, count))
    await asyncio.sleep(SECONDS / 4)
    done = await act(scene)
    wanted = {
        await made.sandbox.cluster.pool.fetchval(_ROW_OF, uuid): moment for uuid, moment in done
    }
    written = await rows
    heard = await side.crowd.until(scene.sockets * len(wanted) + count, ROW_ID, within=_WITHIN)
    now = scene.cpu()
    used = {f"{name}_{service}_cpu_s": now[service] - before[service] for service in now}
    return {
        **figures.delays(compared.delays(heard, written), f"{name}_other_"),
        **_last(heard, wanted, name),
        **used,
        f"{name}_cpu_s": sum(used.values()),
        f"{name}_nats_kib": (await scene.nats_bytes() - bytes_before) / 1024,
    }


def _last(heard: Heard, wanted: dict[int, float], name: str) -> Figures:
    """When the last socket had each of these rows."""
    last: dict[int, float] = {}
    frames = 0
    for moment, number in zip(heard.times, heard.numbers, strict=True):
        if number in wanted:
            frames += 1
            last[number] = max(last.get(number, 0.0), moment)
    if not wanted:
        return {}
    delays = [max(0.0, moment - wanted[number]) for number, moment in last.items()]
    return {f"{name}_heard": float(frames), **figures.delays(delays, f"{name}_last_")}


async def _acts(scene: Scene) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, act in ACTS.items():
        found |= await _one(scene, name, act)
        times = TIMES if name == "project" else 10 if name == "ten" else 1
        alone = found["none_other_p99_ms"]
        found[f"{name}_ratio_other_p99"] = figures.ratio(found[f"{name}_other_p99_ms"], alone)
        for figure in ("cpu_s", "nats_kib"):
            more = max(0.0, found[f"{name}_{figure}"] - found[f"none_{figure}"])
            found[f"{name}_more_{figure}"] = more / times
    for service, pid in scene.pids.items():
        found[f"{service}_rss_mib"] = processes.resident(pid) / 2**20
    return found


async def _filled(made: World, side: Side, users: int, exits: AsyncExitStack) -> float:
    """Seconds until each user's socket has a row that was committed after it was opened."""
    began = time.monotonic()
    await exits.enter_async_context(compared.connected([side], users))
    await side.crowd.send([b'{"method":"subscribe"}'])
    missing, ids = set(range(users)), dict[int, int]()
    while missing:
        written = await made.commit([made.private[n] for n in sorted(missing)])
        ids |= {row_id: target.readers[0] for row_id, target, _ in written}
        heard = await side.crowd.until(len(missing), ROW_ID, within=1.0)
        missing -= {ids[number] for number in heard.numbers if number in ids}
    return time.monotonic() - began


async def _logins(made: World, tree: Tree, users: int) -> Figures:
    """Native logins of all users, whose tokens the callout does not know yet, all at once and again
    after the pause that clients make."""
    host, _, port = made.sandbox.nats.url.rpartition("//")[2].rpartition(":")
    hellos = [
        native.login(user.token, [f"arvados.live.{tree.top.uuid}.>"]) for user in made.users[:users]
    ]
    async with crowds.clients() as natives:
        began = time.monotonic()
        left, tries = hellos, 0
        admitted: list[float] = []
        while left and tries < _TRIES:
            await asyncio.sleep(_PAUSE if tries else 0)
            tries, tried = tries + 1, time.monotonic() - began
            took = await natives.login((host, int(port)), left, len(left))
            admitted += [tried + one for one in took if one >= 0]
            left = [hello for hello, one in zip(left, took, strict=True) if one < 0]
        await natives.close()
    return {
        "logins_refused": len(left),
        "logins_tries": tries,
        "logins_per_second": len(admitted) / max(admitted, default=1.0),
        **figures.delays(admitted, "logins_"),
    }


async def _size(users: int, projects: int, *, peer: bool = False) -> dict[str, Any]:
    """All figures of one size."""
    async with AsyncExitStack() as exits:
        made = await exits.enter_async_context(world.world(users + 2, 0))
        tree = await plant(made, projects)
        services = await exits.enter_async_context(stack.beside(made.sandbox))
        side = await exits.enter_async_context(compared.ours(made, services))
        pids = {n: one.process.pid for n, one in services.services.items() if one.process}
        pids["nats"] = made.sandbox.nats.pid
        leaving = made.users[users:]
        found: dict[str, Any] = {"fill_s": await _filled(made, side, users, exits)}
        found |= await _logins(made, tree, users)
        found |= await _acts(Scene(made, tree, side, pids, leaving))
        stack.require(services)
        if peer:
            found |= await _peer(made, tree, leaving, side, users)
    return {name: figures.rounded(value) if value else value for name, value in found.items()}


async def _peer(
    made: World, tree: Tree, leaving: list[Actor], ours: Side, users: int
) -> dict[str, Any]:
    """The same with arvados-ws, while ours stands still."""
    async with AsyncExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="arvados-ws-")))
        side = await exits.enter_async_context(compared.theirs(made, folder))
        exits.enter_context(processes.frozen(ours.pids))
        found: dict[str, Any] = {"fill_s": await _filled(made, side, users, exits)}
        found |= await _acts(Scene(made, tree, side, {"arvados_ws": side.server}, leaving))
    return {f"peer_{name}": value for name, value in found.items()}


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    users, projects = options.users, options.projects
    report: dict[str, Any] = {"users": users, "projects": projects}
    report |= await _size(users, projects, peer=options.peer is not None)
    if options.growth:
        small = await _size(users, projects // 10)
        report |= {f"small_{name}": value for name, value in small.items()}
        for ratio, name in _GROWTH.items():
            report[f"ratio_growth_{ratio}"] = figures.ratio(report[name], small[name])
    return report


SHORT = {"users": 20, "projects": 200}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options: users, projects, growth, peer."""
    parser.add_argument("--users", type=int, default=500, help="who can all read the tree")
    parser.add_argument("--projects", type=int, default=20_000, help="in the tree")
    parser.add_argument("--growth", action="store_true", help="measure a tenth of the tree first")
    parser.add_argument("--peer", choices=["arvados-ws"], help="the other server, after ours")
