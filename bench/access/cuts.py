# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whose native connections are cut by what others do below what they can read.

`--readers` native clients can read one tree by its share with the role that everybody has. Somebody
else makes, renames, moves, trashes, untrashes, freezes and deletes projects in it, `--operations`
in all: `cuts_of_others` counts the connections that end meanwhile. Then the share is taken away:
`taken_cut` is how long after the commit each of them was cut.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from bench import figures
from bench.crowd import clients as crowds
from bench.crowd import native
from bench.worlds import cluster as world
from bench.worlds.cluster import World
from bench.worlds.tree import plant
from sandbox import stack
from sandbox.model.records import Record


async def _operations(made: World, tree: Record, count: int) -> None:
    """What a lab does all day, each in a transaction of its own."""
    cluster, root = made.sandbox.cluster, made.sandbox.cluster.root
    home = await cluster.project("home", owner=tree, by=root)
    for number in itertools.count():
        project = await cluster.project(f"p{number}", owner=tree, by=root)
        change = partial(cluster.update, project)
        acts: tuple[Callable[[], Awaitable[object]], ...] = (
            partial(change, {"name": f"renamed {number}"}, root),
            partial(cluster.move, project, home, by=root),
            partial(cluster.trash, project, root),
            partial(cluster.untrash, project, root),
            partial(cluster.collection, "c", owner=project, by=root),
            partial(change, {"description": "final"}, root),
            partial(change, {"frozen_by_uuid": root.uuid}, root),
            partial(change, {"frozen_by_uuid": None}, root),
            partial(cluster.delete, project.uuid, root),
        )
        for act in acts:
            await act()
        if number * (len(acts) + 1) >= count:
            return


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    async with AsyncExitStack() as exits:
        made = await exits.enter_async_context(world.world(options.readers, 0))
        tree = (await plant(made, options.projects)).top
        services = await exits.enter_async_context(stack.beside(made.sandbox))
        natives = await exits.enter_async_context(crowds.clients())
        host, _, port = made.sandbox.nats.url.rpartition("//")[2].rpartition(":")
        hellos = [native.login(user.token, [f"arvados.live.{tree.uuid}.>"]) for user in made.users]
        took = await natives.login((host, int(port)), hellos, 8)
        report = {name: getattr(options, name) for name in ("readers", "projects", "operations")}
        report["refused"] = sum(seconds < 0 for seconds in took)
        began = time.monotonic()
        await _operations(made, tree, options.operations)
        report["operations_s"] = round(time.monotonic() - began, 2)
        await asyncio.sleep(3.0)
        report["cuts_of_others"] = sum(1 for at in await natives.closed() if at)
        await made.sandbox.cluster.unshare(tree, made.sandbox.cluster.config.all_users)
        taken = time.monotonic()
        await asyncio.sleep(3.0)
        cuts = [max(0.0, at - taken) for at in await natives.closed() if at]
        report |= {"taken_cuts": len(cuts), **figures.delays(cuts, "taken_cut_")}
        stack.require(services)
    return report


SHORT = {"readers": 10, "projects": 100, "operations": 40}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options: readers, projects, operations."""
    parser.add_argument("--readers", type=int, default=50, help="native clients of one tree")
    parser.add_argument("--projects", type=int, default=2000, help="in the tree")
    parser.add_argument("--operations", type=int, default=200, help="of somebody else in it")
