# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One fault after the other on everything together; a checker reads what came of it.

Short by default: each fault once. `ARVADOS_NATS_FAULTS_MINUTES` goes on after that for so long with
faults by chance; `ARVADOS_NATS_FAULTS_TABLE` names a file for the table (docs/reliability.md).
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import pytest

from arvados_nats.contract import streams
from arvados_nats.errors import ArvadosNatsError
from arvados_nats.nats import client as nats_client
from sandbox.nats_server import NatsServer
from tests.faults import checker
from tests.faults.checker import Bounds, Verdict
from tests.support.worlds import storm as storms
from tests.support.worlds.storm import Storm

pytestmark = pytest.mark.storm

_QUIET, _AFTER = 30.0, 45.0
_STREAMS = (streams.EVENTS, streams.LOGS, streams.QUEUE, streams.CURSORS, streams.SYSTEM_LOGS)


async def _killed(storm: Storm, name: str) -> None:
    service = storm.stack.services[name]
    await service.kill()
    await asyncio.sleep(0.5)
    await service.start()


async def _stopped(storm: Storm, name: str) -> None:
    process = storm.stack.services[name].process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    await asyncio.sleep(5)
    os.kill(process.pid, signal.SIGCONT)


async def _nats_killed(storm: Storm) -> None:
    server = random.choice(storm.servers)
    await server.kill()
    await asyncio.sleep(1)
    await server.start()


async def _step_down(storm: Storm) -> None:
    seed = storm.sandbox.seed("publisher")
    urls = [server.url for server in storm.servers]
    async with nats_client.connect(urls, name="test", seed=seed) as nats:
        for _ in range(4):
            for stream in _STREAMS:
                try:
                    await nats.js_api(f"STREAM.LEADER.STEPDOWN.{stream}")
                except ArvadosNatsError:
                    continue  # it has none just now
            await asyncio.sleep(1)


async def _lose(servers: Iterable[NatsServer]) -> None:
    servers = list(servers)
    for server in servers:
        await server.kill()
    for server in servers:
        for found in list(server.folder.rglob("jetstream")):
            shutil.rmtree(found, ignore_errors=True)
    await asyncio.gather(*(server.start() for server in servers))
    await asyncio.gather(*(server.healthy() for server in servers))


async def _postgres_restarted(storm: Storm) -> None:
    await storm.sandbox.postgres.restart()


async def _postgres_silent(storm: Storm) -> None:
    storm.database_line.silence()


async def _api_hangs(storm: Storm) -> None:
    with storm.sandbox.backend.faults.hanging():
        await asyncio.sleep(4)


async def _api_fails(storm: Storm) -> None:
    with storm.sandbox.backend.faults.failing():
        await asyncio.sleep(4)


async def _readers_cut(storm: Storm) -> None:
    for _ in range(3):
        for line in storm.proxy_lines:
            line.cut()
        await asyncio.sleep(0.7)


async def _readers_silent(storm: Storm) -> None:
    storm.proxy_lines[0].silence()
    await asyncio.sleep(1)


async def _slow(storm: Storm) -> None:
    storm.proxy_lines[1].rate = 8_000
    await asyncio.sleep(5)
    storm.proxy_lines[1].rate = None


FAULTS: dict[str, Callable[[Storm], Awaitable[None]]] = {
    "publishers killed": lambda s: _killed(s, "publishers"),
    "second publishers killed": lambda s: _killed(s, "publishers-2"),
    "publishers stopped for 5 s": lambda s: _stopped(s, "publishers"),
    "wsproxy killed": lambda s: _killed(s, "wsproxy-2"),
    "wsproxy stopped for 5 s": lambda s: _stopped(s, "wsproxy-2"),
    "authcallout killed": lambda s: _killed(s, "authcallout"),
    "a NATS server killed": _nats_killed,
    "stream leaders step down": _step_down,
    "store of one NATS server lost": lambda s: _lose(s.servers[2:]),
    "store of all NATS servers lost": lambda s: _lose(s.servers),
    "PostgreSQL restarted": _postgres_restarted,
    "PostgreSQL silent": _postgres_silent,
    "API hangs for 4 s": _api_hangs,
    "API answers 500 for 4 s": _api_fails,
    "readers cut three times": _readers_cut,
    "readers' line silent": _readers_silent,
    "readers' line slow": _slow,
}
_MINUTES = float(os.environ.get("ARVADOS_NATS_FAULTS_MINUTES", "0"))


async def _one(storm: Storm, name: str) -> Verdict:
    storm.begin()
    await asyncio.sleep(1)
    storm.note("begin", fault=name)
    await FAULTS[name](storm)
    storm.note("end", fault=name)
    await asyncio.sleep(1)
    await storm.settled(_AFTER)
    storm.note("over")
    history = checker.read(storm.history())
    last = max(step.t for step in history if step.do == "end")
    wanted = [s for s in history if s.do != "write" or s.t <= last + 1]
    return checker.check(wanted, Bounds(late=_AFTER))


def _added(to: Verdict, more: Verdict) -> Verdict:
    for column in checker.COLUMNS:
        setattr(to, column, getattr(to, column) + getattr(more, column))
    to.recovery = max(to.recovery, more.recovery)
    to.examples += more.examples
    return to


@pytest.mark.timeout(600 + 60 * _MINUTES)
async def test_nothing_is_lost_whatever_fails(keys_folder: Path, tmp_path: Path) -> None:
    """Nothing lost, doubled, reordered or leaked, unless the reader was told; no long silence."""
    found: dict[str, Verdict] = {}
    async with storms.running(keys_folder, tmp_path) as storm:
        assert await storm.reading(_QUIET), "readers do not read at all"
        chance, until = random.Random(), time.monotonic() + 60 * _MINUTES
        names = list(FAULTS)
        while names or time.monotonic() < until:
            name = names.pop(0) if names else chance.choice(list(FAULTS))
            verdict = await _one(storm, name)
            found[name] = _added(found[name], verdict) if name in found else verdict
    table = checker.table(found)
    print(table)  # noqa: T201  (what the run was for)
    if path := os.environ.get("ARVADOS_NATS_FAULTS_TABLE"):
        await asyncio.to_thread(Path(path).write_text, table)
    bad = {name: verdict.examples for name, verdict in found.items() if not verdict.good}
    assert not bad, f"{table}\n{bad}"
