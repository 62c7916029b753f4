# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How the cost of a change grows with what many people can read.

`--users` users who can all read one tree of `--projects` projects (the permission table has as many
rows as the two multiplied), one socket (v0) each; 50 rows a second about objects in the users'
homes, which have nothing to do with it. Then, one after the other: nothing (`none`), a project is
made in the tree (`project`), a project is shared with the role that everybody has (`share`), a user
is deactivated (`deactivate`), ten projects are made in 3 s (`ten`).
`last`: from the commit to the event at the last of the sockets that must hear of it; `other`: the
rows that have nothing to do with it, and `ratio_other_p99` against `none`; `cpu` of each service,
and `more_cpu_s` of all than with `none`.
`--growth`: the same at ten times the projects, and the ratios of delay and CPU of one project.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from bench import cluster as world
from bench import command, compared, figures, processes
from bench.cluster import World
from bench.compared import ROW_ID, Side
from bench.figures import Figures
from sandbox import bulk, stack
from sandbox.model.records import Record
from sandbox.raw_rows import new_uuid
from sandbox.stack import Stack

_RATE = 50.0
_SECONDS = 4.0
_WIDTH = 20
_PROJECTS = """
INSERT INTO groups (uuid, owner_uuid, name, group_class, created_at, updated_at, modified_at)
SELECT uuid, owner, uuid, 'project', now(), now(), now()
FROM unnest($1::varchar[], $2::varchar[]) AS given(uuid, owner)
"""
_ROWS = """
INSERT INTO materialized_permissions
SELECT users.uuid, target, 1, true FROM users, unnest($1::varchar[]) AS target
WHERE users.uuid = ANY($2::varchar[]) ON CONFLICT DO NOTHING
"""
_ROW_OF = "SELECT id FROM logs WHERE object_uuid = $1 ORDER BY id DESC LIMIT 1"


async def plant(made: World, projects: int) -> Record:
    """A tree that everybody can read, put in by SQL as a restored database has it."""
    cluster = made.sandbox.cluster
    tree = await cluster.project("tree", owner=cluster.root)
    uuids = [new_uuid("j7d0g") for _ in range(projects)]
    owners = [tree.uuid if n < _WIDTH else uuids[n // _WIDTH - 1] for n in range(projects)]
    await made.writer.execute(_PROJECTS, uuids, owners)
    await cluster.share(tree, cluster.config.all_users)
    readers = [user.uuid for user in made.users]
    await made.writer.execute(_ROWS, [tree.uuid, *uuids], readers)
    await made.writer.execute("ANALYZE")
    return tree


class Scene:
    """The world, the services beside it, and a socket for each user."""

    def __init__(self, made: World, services: Stack, side: Side, tree: Record) -> None:
        self.made = made
        self.services = services
        self.side = side
        self.tree = tree
        self.number = 0

    async def project(self, owner: Record | None = None) -> str:
        """A new one in the tree."""
        self.number += 1
        cluster = self.made.sandbox.cluster
        made = await cluster.project(
            f"new {self.number}", owner=owner or self.tree, by=cluster.root
        )
        return made.uuid

    def cpu(self) -> Figures:
        """Seconds of CPU of each service so far."""
        running = {n: one.process for n, one in self.services.services.items() if one.process}
        found = {name: processes.cpu_seconds(process.pid) for name, process in running.items()}
        return {**found, "nats": processes.cpu_seconds(self.made.sandbox.nats.pid)}

    def rss(self) -> Figures:
        """MiB of each service now."""
        running = {n: one.process for n, one in self.services.services.items() if one.process}
        return {
            f"{name}_rss_mib": processes.resident(process.pid) / 2**20
            for name, process in running.items()
        }


Act = Callable[[Scene], Awaitable[list[str]]]
"""Does something; the objects whose last row everybody must hear of."""


async def _none(_: Scene) -> list[str]:
    return []


async def _project(scene: Scene) -> list[str]:
    return [await scene.project()]


async def _share(scene: Scene) -> list[str]:
    cluster = scene.made.sandbox.cluster
    apart = await cluster.project(f"apart {time.monotonic_ns()}", owner=cluster.root)
    await cluster.share(apart, cluster.config.all_users)
    await cluster.update(apart, {"description": "seen by all"}, cluster.root)
    return [apart.uuid]


async def _deactivate(scene: Scene) -> list[str]:
    cluster = scene.made.sandbox.cluster
    (gone,) = await bulk.users(cluster, 1, prefix=f"gone{time.monotonic_ns()}")
    await cluster.deactivate(gone)
    return []


async def _ten(scene: Scene) -> list[str]:
    found = []
    for _ in range(10):
        found.append(await scene.project())
        await asyncio.sleep(0.3)
    return found


ACTS: dict[str, Act] = {
    "none": _none,
    "project": _project,
    "share": _share,
    "deactivate": _deactivate,
    "ten": _ten,
}


async def _one(scene: Scene, name: str, act: Act) -> Figures:
    """Do it in the midst of rows that have nothing to do with it."""
    side, made = scene.side, scene.made
    before, count = scene.cpu(), int(_RATE * _SECONDS)
    rows = asyncio.create_task(made.stream(made.private, _RATE, count))
    await asyncio.sleep(_SECONDS / 4)
    objects = await act(scene)
    done = time.monotonic()
    wanted = [await made.sandbox.cluster.pool.fetchval(_ROW_OF, uuid) for uuid in objects]
    written = await rows
    frames = len(made.users) * len(wanted) + count
    heard = await side.crowd.until(frames, ROW_ID, within=20.0)
    found: Figures = figures.delays(compared.delays(heard, written), f"{name}_other_")
    moments = [
        moment
        for moment, number in zip(heard.times, heard.numbers, strict=True)
        if wanted and number == wanted[-1]
    ]
    found[f"{name}_heard"] = float(len(moments))
    if moments:
        found[f"{name}_last_ms"] = round(max(0.0, max(moments) - done) * 1000, 2)
    now = scene.cpu()
    used = {f"{name}_{service}_cpu_s": now[service] - before[service] for service in now}
    return found | used | {f"{name}_cpu_s": sum(used.values())}


async def measure(users: int, projects: int) -> dict[str, Any]:
    """All figures of one size."""
    async with AsyncExitStack() as exits:
        made = await exits.enter_async_context(world.world(users, 0))
        tree = await plant(made, projects)
        services = await exits.enter_async_context(stack.beside(made.sandbox))
        side = await exits.enter_async_context(compared.ours(made, services))
        began = time.monotonic()
        await exits.enter_async_context(compared.connected([side], users))
        await side.crowd.send([b'{"method":"subscribe"}'])
        await side.crowd.until(users)
        scene = Scene(made, services, side, tree)
        found: dict[str, Any] = {"fill_s": time.monotonic() - began}
        for name, act in ACTS.items():
            found |= await _one(scene, name, act)
            alone = found["none_other_p99_ms"]
            found[f"{name}_ratio_other_p99"] = figures.ratio(found[f"{name}_other_p99_ms"], alone)
            found[f"{name}_more_cpu_s"] = max(0.0, found[f"{name}_cpu_s"] - found["none_cpu_s"])
        stack.require(services)
        found |= scene.rss()
    return {name: figures.rounded(value) if value else value for name, value in found.items()}


def main(arguments: list[str]) -> dict[str, Any]:
    """Options: users, projects, growth."""
    parser = command.parser("scale", __doc__, users=20, projects=200)
    parser.add_argument("--users", type=int, default=500, help="who can all read the tree")
    parser.add_argument("--projects", type=int, default=20_000, help="in the tree")
    parser.add_argument("--growth", action="store_true", help="measure a tenth of the tree first")
    options: argparse.Namespace = parser.parse_args(arguments)
    report: dict[str, Any] = {
        "bench": "scale",
        "users": options.users,
        "projects": options.projects,
        **asyncio.run(measure(options.users, options.projects)),
    }
    if options.growth:
        small = asyncio.run(measure(options.users, options.projects // 10))
        report |= {f"small_{name}": value for name, value in small.items()}
        for ratio, name in (("delay", "project_last_ms"), ("cpu", "project_cpu_s")):
            report[f"ratio_growth_{ratio}"] = figures.ratio(report[name], small[name])
    report["load"] = processes.load()
    for line in figures.lines(report):
        print(line)
    return report
