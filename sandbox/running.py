# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Containers that run: started by a dispatcher, writing logs at a pace, ended in order.

Every step is a write of the pretend cluster, so rows, NOTIFYs and log bytes appear as they would.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass

from sandbox.cluster import Cluster
from sandbox.logs import log_lines
from sandbox.logs.container_logs import ContainerLogs
from sandbox.logs.log_lines import Written
from sandbox.model.records import Record
from sandbox.writes import Named


@dataclass(frozen=True, slots=True)
class Pace:
    """How a container writes: `lines` in all, `per_second`, and how often the rest happens.

    `statistics` and `checkpoint` are seconds between two; None for never.
    """

    lines: int = 100
    per_second: float = 20.0
    tick: float = 0.1
    statistics: float | None = 10.0
    checkpoint: float | None = None
    exit_code: int = 0


async def run(cluster: Cluster, what: Named, pace: Pace) -> Record:
    """Run the container of a request (or the container) to its end; returns it as it ended."""
    container = await cluster.run(what)
    _write(cluster.logs, container.uuid, log_lines.opening(container.uuid))
    await write(cluster, container, pace)
    _write(cluster.logs, container.uuid, log_lines.closing(pace.exit_code))
    return await cluster.finish(container, exit_code=pace.exit_code, cost=0.01)


async def write(cluster: Cluster, container: Record, pace: Pace) -> None:
    """Write the lines of the command, at the pace, with progress and checkpoints in between."""
    started = time.monotonic()
    written, rounds, saved = 0, 0, 0
    while written < pace.lines:
        elapsed = time.monotonic() - started
        due = min(int(elapsed * pace.per_second) + 1, pace.lines)
        _write(cluster.logs, container.uuid, log_lines.output(written, due - written))
        written = due
        if _is_due(pace.statistics, elapsed, rounds):
            _write(cluster.logs, container.uuid, log_lines.statistics(rounds))
            await cluster.progress(container, written / pace.lines)
            rounds += 1
        if _is_due(pace.checkpoint, elapsed, saved + 1):
            await cluster.checkpoint(container)
            saved += 1
        await asyncio.sleep(pace.tick)


def _is_due(every: float | None, elapsed: float, times: int) -> bool:
    return every is not None and elapsed >= every * times


def _write(logs: ContainerLogs, container_uuid: str, pieces: Iterable[Written]) -> None:
    for file, data in pieces:
        logs.append(container_uuid, file, data)
