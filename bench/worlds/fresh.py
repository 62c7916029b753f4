# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Rows about objects that nobody was told of before: what a permission costs that is not known yet.

arvados-ws asks Arvados' API once for each socket and object; ours has the users' grants already.
The sandbox's API is no match for the real one, so of arvados-ws look at the calls, not the delay.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from bench import figures
from bench.figures import Figures
from bench.worlds import cluster as world
from bench.worlds import compared
from bench.worlds.compared import Cost, Side
from sandbox import stack


async def turn(side: Side, everything: Sequence[Side], count: int) -> Figures:
    """So many objects, one after the other; the next when nobody asks Arvados any more."""
    delays: list[float] = []
    seconds = missing = 0.0
    async with compared.turn(side, everything):
        cost = Cost(side)
        cost.begin()
        for target in await world.more(side.world, count):
            began = time.monotonic()
            written = await side.world.commit([target])
            heard = await side.crowd.until(side.readers(target), compared.ROW_ID, within=60.0)
            seconds += max(heard.times, default=began + 60.0) - began
            missing += side.readers(target) - len(heard.times)
            delays += compared.delays(heard, written)
            await compared.quiet(side.world)
        used = cost.figures(len(delays), count)
    return {
        **figures.delays(delays),
        "deliveries_per_second": len(delays) / seconds,
        "missing": missing,
        **used,
    }


async def against_arvados_ws(
    users: int, sockets: int, objects: int, rounds: int
) -> dict[str, Figures]:
    """Medians of both sides on one database and one API, after a round that is not counted."""
    async with AsyncExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory()))
        made = await exits.enter_async_context(world.world(users, len(world.READERS)))
        services = await exits.enter_async_context(stack.beside(made.sandbox))
        everything = [
            await exits.enter_async_context(compared.ours(made, services)),
            await exits.enter_async_context(compared.theirs(made, folder)),
        ]
        await exits.enter_async_context(compared.connected(everything, sockets))
        found: dict[str, list[Figures]] = {side.name: [] for side in everything}
        for number in range(rounds + 1):
            for side in everything:
                one = await turn(side, everything, objects)
                print(f"  {side.name}: {one['api_calls_per_event']} calls of Arvados for an event")
                if number:
                    found[side.name].append(one)
        stack.require(services)
    return {name: figures.medians(rounds_) for name, rounds_ in found.items()}
