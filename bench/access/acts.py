# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What people do to a tree that many can read: each act once, and what must be heard of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx

from bench import processes
from bench.figures import Figures
from bench.worlds.cluster import World
from bench.worlds.compared import Side
from bench.worlds.tree import Tree, move_branch
from sandbox.model.actors import Actor

SECONDS = 4.0
TIMES = 8
"""Projects that are made, or moves, in one act, each alone."""

Done = tuple[str, float]
"""An object whose last row everybody must hear of, and when it was committed."""


@dataclass(slots=True)
class Scene:
    """The world with a tree, and one server with a socket for each user but the last."""

    made: World
    tree: Tree
    side: Side
    pids: dict[str, int]
    leaving: list[Actor]
    """Users without a socket, to be deactivated."""
    number: int = 0

    @property
    def sockets(self) -> int:
        return self.side.crowd.count

    async def project(self) -> Done:
        """A new one in the tree."""
        self.number += 1
        cluster = self.made.sandbox.cluster
        name = f"{self.side.name} {self.number}"
        made = await cluster.project(name, owner=self.tree.top, by=cluster.root)
        return made.uuid, time.monotonic()

    def cpu(self) -> Figures:
        """Seconds of CPU of each service so far."""
        return {name: processes.cpu_seconds(pid) for name, pid in self.pids.items()}

    async def nats_bytes(self) -> float:
        """What the server of NATS took in and gave out so far."""
        async with httpx.AsyncClient(trust_env=False) as client:
            told = await client.get(f"http://{self.made.sandbox.nats.config.monitor}/varz")
        return float(told.json()["in_bytes"] + told.json()["out_bytes"])


Act = Callable[[Scene], Awaitable[list[Done]]]


async def _none(_: Scene) -> list[Done]:
    return []


async def _project(scene: Scene) -> list[Done]:
    found = []
    for _ in range(TIMES):
        found.append(await scene.project())
        await asyncio.sleep(SECONDS / 2 / TIMES)
    return found


async def _move(scene: Scene) -> list[Done]:
    return [await move_branch(scene.made, scene.tree)]


async def _share(scene: Scene) -> list[Done]:
    cluster = scene.made.sandbox.cluster
    apart = await cluster.project(f"apart {time.monotonic_ns()}", owner=cluster.root)
    await cluster.share(apart, cluster.config.all_users)
    await cluster.update(apart, {"description": "seen by all"}, cluster.root)
    return [(apart.uuid, time.monotonic())]


async def _deactivate(scene: Scene) -> list[Done]:
    await scene.made.sandbox.cluster.deactivate(scene.leaving.pop())
    return []


async def _ten(scene: Scene) -> list[Done]:
    found = []
    for _ in range(10):
        found.append(await scene.project())
        await asyncio.sleep(0.3)
    return found


ACTS: dict[str, Act] = {
    "none": _none,
    "project": _project,
    "move": _move,
    "share": _share,
    "deactivate": _deactivate,
    "ten": _ten,
}
