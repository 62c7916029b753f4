# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Many readers of a long history beside one that is live: whether it waits for them.

`--events` stored events of one project that everybody can read; `--rate` more a second while it is
measured. One v1 client follows them live: `alone`, then beside `--readers` clients that all begin
with the oldest at once (`beside`). `mib_per_second`: what all of these were given meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

from bench import figures
from bench.crowd import clients as crowds
from bench.crowd.clients import Clients
from bench.figures import Figures
from bench.worlds import cluster as world
from bench.worlds.compared import ROW_ID
from bench.worlds.subscribers import Ours, begun, open_v1
from sandbox import stack

_AT_ONCE = 500
_TICK = 0.02
_OLDEST = '{"subscribe":{"id":"bench","events":{"begin":"oldest"}}}'
_EVENT = b'{"event":{'
_OBJECTS = 1000


async def _store(fan: Ours, count: int) -> None:
    """History, of objects that are there."""
    fan.objects = _OBJECTS
    uuids = [f"zzzzz-4zz18-{number:015d}" for number in range(_OBJECTS)]
    records = [world.record(fan.owner) | {"uuid": uuid} for uuid in uuids]
    await world.insert(fan.world.writer, records)
    for start in range(0, count, _AT_ONCE):
        await fan.publish(min(_AT_ONCE, count - start), 200)


async def _follow(fan: Ours, rate: float, seconds: float) -> Figures:
    """Publish for so long, and see when the bystander has each."""
    first, began = len(fan.published), time.monotonic()
    await fan.clients.take()
    while (elapsed := time.monotonic() - began) < seconds:
        if due := int(elapsed * rate) + 1 - (len(fan.published) - first):
            await fan.publish(due, 200)
        await asyncio.sleep(_TICK)
    heard = await fan.clients.until(len(fan.published) - first, ROW_ID, within=30.0)
    delays = [
        moment - fan.published[number - 1]
        for moment, number in zip(heard.times, heard.numbers, strict=True)
        if number > first
    ]
    return figures.delays(delays) | {"heard": float(len(delays))}


async def _beside(
    fan: Ours, readers: Clients, options: argparse.Namespace
) -> tuple[Figures, Figures]:
    users = fan.world.users
    tokens = [users[n % len(users)].token for n in range(options.readers)]
    began = time.monotonic()
    address = ("127.0.0.1", fan.stack.proxy_port)
    await open_v1(readers, address, tokens, _OLDEST, b'{"subscribed"')
    found = await _follow(fan, options.rate, options.seconds)
    _, told = await readers.tally(_EVENT)
    return found, {"mib_per_second": told.bytes / 2**20 / (time.monotonic() - began)}


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    async with AsyncExitStack() as exits:
        fan = await exits.enter_async_context(begun(options.users))
        readers = await exits.enter_async_context(crowds.clients())
        await _store(fan, options.events)
        await fan.clients.tally(fan.marker, options.events, within=60.0)
        alone = await _follow(fan, options.rate, options.seconds)
        beside, of_readers = await _beside(fan, readers, options)
        stack.require(fan.stack)
    return {
        "events": options.events,
        "readers": options.readers,
        **{f"alone_{name}": value for name, value in alone.items()},
        **{f"beside_{name}": value for name, value in beside.items()},
        **{f"readers_{name}": round(value, 1) for name, value in of_readers.items()},
        "ratio_p99": figures.ratio(beside["p99_ms"], alone["p99_ms"]),
    }


SHORT = {"events": 5000, "readers": 40, "seconds": 5.0}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options: events, readers, the rate, how long."""
    parser.add_argument("--events", type=int, default=100_000, help="in the stream")
    parser.add_argument("--readers", type=int, default=200, help="who begin with the oldest")
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--rate", type=float, default=50.0, help="live events a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="alone, and beside them")
