# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Many updates of one object in a second, at v1 `object` subscribers.

One collection in a project that all users may read; each user subscribes to its state. A round
commits `--updates` updates, one a transaction, paced to take `--seconds`. Delays are from the last
COMMIT to each subscriber's frame with the final state. `frames`: what a subscriber was sent for one
round. `reads`: calls of Arvados' API about the object, `first_reads` until all had the state and
`round_reads` in a round. `pace_s`: what the updates took in truth. `wrong`: subscribers without the
final state, or with a state older than one they were sent before.
What it does not show: a network, TLS, browsers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from bench import figures
from bench.crowd import clients as crowds
from bench.crowd.clients import Clients
from bench.crowd.crowd_process import Heard
from bench.figures import Figures
from bench.worlds import cluster as world
from bench.worlds import subscribers as fans
from bench.worlds.cluster import Target, World
from sandbox import raw_rows, stack
from sandbox.raw_rows import change, row

_NAME = rb'"name":"n(\d+)"'
_READS = "GET /arvados/v1/collections"
_UPDATE = """
UPDATE collections SET name = $2, modified_at = $3, portable_data_hash = $4 WHERE uuid = $1
"""
_LOOK = 0.02


class _Scene:
    """Subscribers of one object, and its writer."""

    def __init__(self, made: World, target: Target, clients: Clients) -> None:
        self._made = made
        self._target = target
        self._clients = clients
        self._number = 0

    @property
    def reads(self) -> int:
        return self._made.sandbox.backend.faults.count(_READS)

    async def subscribe(self, address: tuple[str, int]) -> None:
        """Each user once; all have the first state."""
        await self._commit()
        target = {"id": "a", "object": {"uuid": self._target.uuid}}
        tokens = [user.token for user in self._made.users]
        subscribe = json.dumps({"subscribe": target})
        await fans.open_v1(self._clients, address, tokens, subscribe, b'{"object"')

    async def round(self, updates: int, seconds: float) -> tuple[Figures, list[float]]:
        """Figures of one round, and how long after the last commit each had the final state."""
        heard, before, began = Heard(), self.reads, time.monotonic()
        for number in range(updates):
            await asyncio.sleep(max(0.0, began + number * seconds / updates - time.monotonic()))
            await self._commit()
        committed = time.monotonic()
        finals = await self._until_final(heard, committed)
        found = {
            "pace_s": committed - began,
            "frames": len(heard.numbers) / self._clients.count,
            "round_reads": self.reads - before,
            "wrong": self._clients.count - len(finals) + _backwards(heard),
        }
        return found, [moment - committed for moment in finals.values()]

    async def _until_final(self, heard: Heard, since: float) -> dict[int, float]:
        """The moment at which each subscriber had the state that is the last one."""
        finals: dict[int, float] = {}
        while len(finals) < self._clients.count and time.monotonic() < since + 30:
            await asyncio.sleep(_LOOK)
            more = await self._clients.take(_NAME)
            heard.add(more)
            for moment, socket, number in zip(more.times, more.sockets, more.numbers, strict=True):
                if number == self._number:
                    finals.setdefault(socket, moment)
        return finals

    async def _commit(self) -> None:
        """One more update, as Arvados writes it: the row, its log row and NOTIFY."""
        self._number += 1
        now = raw_rows.utc_now()
        old = self._target.record
        new = {
            **old,
            "name": f"n{self._number}",
            "modified_at": f"{now.isoformat(timespec='microseconds')}000Z",
        }
        writer = self._made.writer
        async with writer.transaction():
            written = self._target.uuid, new["name"], now, new["portable_data_hash"]
            await writer.execute(_UPDATE, *written)
            told = row(
                self._target.uuid,
                properties=change(old, new),
                object_owner_uuid=old["owner_uuid"],
            )
            await raw_rows.insert(writer, [told])
        old.update(new)


def _backwards(heard: Heard) -> int:
    """Subscribers that were sent an older state after a newer one."""
    last: dict[int, int] = {}
    wrong = set()
    for socket, number in zip(heard.sockets, heard.numbers, strict=True):
        if number >= 0:
            if number < last.get(socket, 0):
                wrong.add(socket)
            last[socket] = number
    return len(wrong)


@asynccontextmanager
async def _scene(subscribers: int) -> AsyncIterator[tuple[_Scene, Figures]]:
    async with AsyncExitStack() as exits:
        made = await exits.enter_async_context(world.world(subscribers, 0))
        services = await exits.enter_async_context(stack.beside(made.sandbox))
        clients = await exits.enter_async_context(crowds.clients())
        target = await world.share(made, tuple(range(subscribers)))
        scene = _Scene(made, target, clients)
        await scene.subscribe(("127.0.0.1", services.proxy_port))
        yield scene, {"first_reads": scene.reads}
        stack.require(services)


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    report: dict[str, Any] = {"subscribers": options.subscribers, "updates": options.updates}
    late, rounds = list[float](), list[Figures]()
    async with _scene(options.subscribers) as (scene, first):
        await scene.round(options.updates, options.seconds)
        for _ in range(options.rounds):
            found, delays = await scene.round(options.updates, options.seconds)
            rounds.append({**found, **figures.delays(delays)})
            late += delays
    report |= first | figures.medians(rounds) | figures.delays(late, "all_")
    report["wrong"] = sum(found["wrong"] for found in rounds)
    return report


SHORT = {"subscribers": 10, "rounds": 2}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Medians over the rounds, after one that is not counted; `all_` is of all rounds together."""
    parser.add_argument("--subscribers", type=int, default=50, help="users, each with a socket")
    parser.add_argument("--updates", type=int, default=500, help="of the object, in a round")
    parser.add_argument("--seconds", type=float, default=1.0, help="in which they are committed")
    parser.add_argument("--rounds", type=int, default=10)
