# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Container logs: one container that writes 1,000 lines a second, 500 viewers, and a log of 1 GB.

`tailed`: the log publisher reads from the controller's log API. `pushed`: `push-log` publishes what
the container writes. Delays are from the write to the viewer's socket, of the first line of each
frame, which has waited longest. `calls_per_second` at Arvados' API with one viewer and with all.
`polled`: what Workbench does today, `--pollers` clients that ask for more every 2 s; there each new
line waits for the next poll. `replay`: one viewer reads a log of `--replay-mb` from its beginning,
which only Arvados has any more, and what wsproxy grows by meanwhile; `replay_stored`: one of
`--stored-mb` that is in the stream. `exact`: count and SHA-256 of what came are those of the log.
`find`: a line in the middle of the same, looked for at the server.
"""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from bench import figures
from bench.delivery import saved_logs
from bench.delivery.live_logs import Bench
from bench.figures import Figures
from bench.worlds import cluster as world
from sandbox import stack


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    report: dict[str, Any] = {"viewers": options.viewers, "rate": options.rate}
    async with AsyncExitStack() as exits:
        made = await exits.enter_async_context(world.world(options.users, 0))
        services = await exits.enter_async_context(stack.beside(made.sandbox))
        bench = Bench(made, services, options)
        parts: dict[str, Callable[[], Awaitable[Figures]]] = {
            "tailed_one": lambda: bench.live(1, False),
            "tailed": lambda: bench.live(options.viewers, False),
            "pushed": lambda: bench.live(options.viewers, True),
            "polled": lambda: bench.polled(options.pollers),
            "replay": lambda: saved_logs.replay(bench, options.replay_mb, False),
            "replay_stored": lambda: saved_logs.replay(bench, options.stored_mb, True),
            "find": lambda: saved_logs.find(bench, options.replay_mb),
        }
        for name, work in parts.items():
            if name in options.only.split(","):
                report |= figures.medians([await work()], f"{name}_")
        stack.require(services)
    return report


SHORT = {"viewers": 20, "users": 5, "seconds": 2.0, "pollers": 5, "replay_mb": 10, "stored_mb": 5}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options: viewers, rate, length, pollers, size of the replay, which parts."""
    parser.add_argument("--viewers", type=int, default=500)
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--pollers", type=int, default=100)
    parser.add_argument("--replay-mb", type=int, default=1000)
    parser.add_argument("--stored-mb", type=int, default=200)
    parser.add_argument(
        "--only", default="tailed_one,tailed,pushed,polled,replay,replay_stored,find"
    )
