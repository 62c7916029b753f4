# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""From the commit of a permission change to the last frame delivered, and to the cut.

Every user has sockets (v0) and one native NATS connection, and reads one project that is shared
with this user alone by a link. Rows about an object in the project are committed at a steady rate;
then access is taken, and rows go on. `frame`: how long after the commit the user's sockets got
their last event of the object (0 when the last came before). `message`: the same for the native
connection, `cut`: when that was closed. Situations: `unshare` (the link is deleted), `move` (the
project, out of one that the user reads: no native connection is cut for it), `deactivate` (the
user), each of which leaves a log row; `logout`, which leaves none: there `closed` is when the
sockets were closed. (The trash is not among them: arvados-ws goes on to show collections in the
trash, and so does v0.)
A frame that was on its way at the moment of the commit counts as late; nothing is subtracted.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from bench import figures
from bench.crowd import clients as crowds
from bench.crowd import native
from bench.crowd.clients import Clients
from bench.figures import Figures
from bench.worlds import cluster as world
from bench.worlds.cluster import Target, World
from bench.worlds.compared import ROW_ID
from sandbox import stack
from sandbox.model.actors import Actor
from sandbox.model.records import Record
from sandbox.stack import Stack

_BEFORE = 0.3
_RATE = 100.0


@dataclass(frozen=True, slots=True)
class Situation:
    """One way to take access, and how long to look for late frames."""

    name: str
    take: Callable[[Scene, int], Awaitable[object]]
    after: float = 1.0


@dataclass(slots=True)
class Scene:
    """Who reads what, and through which connections."""

    world: World
    sockets: Clients
    natives: Clients
    per_user: int
    parents: list[Record] = field(default_factory=list)
    """What is shared with each user."""
    projects: list[Record] = field(default_factory=list)
    """One in each of them, where the object is."""
    targets: list[Target] = field(default_factory=list)

    def user(self, number: int) -> Actor:
        return self.world.users[number]

    def sockets_of(self, number: int) -> range:
        """The numbers of a user's sockets."""
        return range(number, self.sockets.count, len(self.world.users))


async def _scene(
    made: World, services: Stack, clients: tuple[Clients, Clients], sockets: int
) -> Scene:
    users, cluster = made.users, made.sandbox.cluster
    scene = Scene(made, *clients, sockets // len(users))
    for number, user in enumerate(users):
        async with cluster.transaction() as transaction:
            parent = await transaction.project(f"of user {number}", owner=cluster.root)
            project = await transaction.project(f"inner {number}", owner=parent, by=cluster.root)
            await transaction.share(parent, user)
        scene.parents.append(parent)
        scene.projects.append(project)
        scene.targets.append(Target(world.record(project.uuid), (number,)))
    await world.insert(made.writer, [target.record for target in scene.targets])
    tokens = [users[number % len(users)].token for number in range(sockets)]
    await world.open_v0(scene.sockets, ("127.0.0.1", services.proxy_port), tokens)
    host, _, port = made.sandbox.nats.url.rpartition("//")[2].rpartition(":")
    hellos = [
        native.login(user.token, [f"arvados.live.{parent.uuid}.>"])
        for user, parent in zip(users, scene.parents, strict=True)
    ]
    took = await scene.natives.login((host, int(port)), hellos, 8)
    if refused := sum(seconds < 0 for seconds in took):
        raise ConnectionError(f"{refused} native logins were refused")
    return scene


async def _one(scene: Scene, number: int, situation: Situation) -> Figures:
    """Take one user's access; seconds until all that is over."""
    target = scene.targets[number]
    rows = asyncio.create_task(
        scene.world.stream([target], _RATE, int(_RATE * (_BEFORE + situation.after)))
    )
    await asyncio.sleep(_BEFORE)
    await situation.take(scene, number)
    committed = time.monotonic()
    ids = {row_id for row_id, _, _ in await rows}
    heard = await scene.sockets.take(ROW_ID)
    mine = frozenset(scene.sockets_of(number))
    frames = [
        moment
        for moment, socket, row in zip(heard.times, heard.sockets, heard.numbers, strict=True)
        if socket in mine and row in ids
    ]
    heard = await scene.natives.take(ROW_ID)
    messages = [
        moment
        for moment, socket in zip(heard.times, heard.sockets, strict=True)
        if socket == number
    ]
    found = {"seen": float(len(frames)), "heard": float(len(messages))}
    found["frame"] = max(0.0, max(frames, default=committed) - committed)
    found["message"] = max(0.0, max(messages, default=committed) - committed)
    cut = (await scene.natives.closed())[number]
    if cut:
        found["cut"] = max(0.0, cut - committed)
    closed = await scene.sockets.closed()
    if all(closed[socket] for socket in mine):
        found["closed"] = max(0.0, max(closed[socket] for socket in mine) - committed)
    return found


SITUATIONS = (
    Situation(
        "unshare",
        lambda scene, n: scene.world.sandbox.cluster.unshare(scene.parents[n], scene.user(n)),
    ),
    Situation(
        "move",
        lambda scene, n: scene.world.sandbox.cluster.move(
            scene.projects[n], scene.world.sandbox.cluster.root
        ),
    ),
    Situation("deactivate", lambda scene, n: scene.world.sandbox.cluster.deactivate(scene.user(n))),
    Situation(
        "logout", lambda scene, n: scene.world.sandbox.cluster.logout(scene.user(n)), after=11.0
    ),
)


def _summary(name: str, found: Sequence[Figures], sockets: int) -> dict[str, Any]:
    """Percentiles over the repetitions of one situation."""
    report: dict[str, Any] = {f"{name}_times": len(found)}
    for what in ("frame", "message", "cut", "closed"):
        values = [one[what] for one in found if what in one]
        if values:
            report[f"{name}_{what}s"] = len(values)
            report |= figures.delays(values, f"{name}_{what}_")
    seen = sum(1 for one in found if one["seen"] >= sockets and one["heard"])
    report[f"{name}_heard_before"] = seen
    return report


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures. Each repetition has a user of its own, who loses access for good."""
    report: dict[str, Any] = {"sockets": options.sockets}
    async with AsyncExitStack() as exits:
        made = await exits.enter_async_context(world.world(options.users, 0))
        services = await exits.enter_async_context(stack.beside(made.sandbox))
        clients = (
            await exits.enter_async_context(crowds.clients()),
            await exits.enter_async_context(crowds.clients()),
        )
        scene = await _scene(made, services, clients, options.sockets)
        users = iter(range(options.users))
        every: dict[str, list[Figures]] = {}
        for situation in SITUATIONS:
            times = options.logouts if situation.name == "logout" else options.times
            found = [await _one(scene, next(users), situation) for _ in range(times)]
            every[situation.name] = found
            report |= _summary(situation.name, found, scene.per_user)
        logged = [one for name, found in every.items() if name != "logout" for one in found]
        report |= _summary("logged", logged, scene.per_user)
        stack.require(services)
    return report


SHORT = {"users": 20, "sockets": 100, "times": 4, "logouts": 2}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options: users, sockets, repetitions."""
    parser.add_argument("--users", type=int, default=200, help="each with one native connection")
    parser.add_argument("--sockets", type=int, default=1000, help="of all users together")
    parser.add_argument("--times", type=int, default=40, help="of each situation but logout")
    parser.add_argument("--logouts", type=int, default=5, help="tokens that die without a row")
