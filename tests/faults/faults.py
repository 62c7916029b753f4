# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What can fail in a storm, by name: each does it, and undoes it where a person would have to."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import shutil
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from arvados_nats.contract import streams
from arvados_nats.errors import ArvadosNatsError
from arvados_nats.nats import client as nats_client
from sandbox.servers.nats_server import NatsServer
from tests.support.fronts.cuttable import Way
from tests.support.worlds.storm import Storm

_STREAMS = (streams.EVENTS, streams.LOGS, streams.QUEUE, streams.CURSORS, streams.SYSTEM_LOGS)


async def _killed(storm: Storm, name: str) -> None:
    service = storm.stack.services[name]
    await service.kill()
    await asyncio.sleep(0.5)
    await service.start()


async def _stopped(storm: Storm, name: str) -> None:
    process = storm.stack.services[name].process
    assert process is not None
    await _stood_still(process.pid)


async def _stood_still(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(5)
    finally:
        os.kill(pid, signal.SIGCONT)


async def _all_killed(storm: Storm) -> None:
    """The power is gone for a moment; the disks are not."""
    for server in storm.servers:
        await server.kill()
    await asyncio.gather(*(server.start() for server in storm.servers))
    await asyncio.gather(*(server.healthy() for server in storm.servers))


async def _both_killed(storm: Storm) -> None:
    await asyncio.gather(*(_killed(storm, name) for name in ("publishers", "publishers-2")))


async def _both_killed_with_a_server(storm: Storm) -> None:
    await asyncio.gather(_nats_killed(storm), _both_killed(storm))


async def _killed_while_it_is_filled(storm: Storm) -> None:
    """All stores are lost, and whoever fills them again dies while it does."""
    await _lose(storm.servers)
    for _ in range(2):
        await _both_killed(storm)


async def _most_stopped(storm: Storm) -> None:
    """No stream has a majority, and clients of the others are not told."""
    pids = [server.pid for server in random.sample(storm.servers, 2)]
    await asyncio.gather(*map(_stood_still, pids))


async def _nats_stopped(storm: Storm) -> None:
    """It answers for its streams as soon as it goes on, and lacks what came meanwhile."""
    await _stood_still(random.choice(storm.servers).pid)


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


def _stores(server: NatsServer) -> list[Path]:
    return [path for path in server.folder.rglob("jetstream") if path.is_dir()][:1]


async def _rolled_back(server: NatsServer) -> None:
    """Its disk is replaced by a copy of some seconds ago."""
    await server.stop()
    (store,) = _stores(server)
    copy = server.folder.parent / f"{server.folder.name}-copy"
    await asyncio.to_thread(_copied, store, copy)
    await server.start()
    await server.healthy()
    await asyncio.sleep(3)
    await server.kill()
    await _put_back(copy, store)
    await server.start()
    await server.healthy()


async def _full(servers: list[NatsServer]) -> None:
    """Nothing can be added to a file for 5 s; then a person makes room and restarts them."""
    before = [resource.prlimit(one.pid, resource.RLIMIT_FSIZE) for one in servers]
    for one, (_, hard) in zip(servers, before, strict=True):
        resource.prlimit(one.pid, resource.RLIMIT_FSIZE, (1, hard))
    await asyncio.sleep(5)
    for one in servers:
        await one.restart()
    # None of them is well before a majority can write again.
    await asyncio.gather(*(one.healthy() for one in servers))


async def _failed_over(storm: Storm) -> None:
    """The host of PostgreSQL is gone without a word, and another one is the primary."""
    dead, alive = storm.database_lines
    dead.silence()
    dead.closed, alive.closed, alive.refusing = True, False, False
    storm.database_lines.reverse()
    await storm.sandbox.postgres.restart()
    await asyncio.sleep(3)


async def _cut_in_two(storm: Storm) -> None:
    """The third NATS server hears no other: who led streams there leads no more after 10 s."""
    for line in storm.route_lines:
        line.silence()
        line.refusing = True
    await asyncio.sleep(15)
    for line in storm.route_lines:
        line.heal()
        line.refusing = False


async def _rows_lost(storm: Storm) -> None:
    """PostgreSQL is back without its last rows, as a standby that was behind; ids come again."""
    postgres = storm.sandbox.postgres
    copy = postgres.folder.with_name("copy")
    async with storm.rights:  # those are as they were
        await postgres.stop()
        await asyncio.to_thread(_copied, postgres.folder, copy)
        await postgres.start()
        await asyncio.sleep(5)
        await postgres.kill()
        await _put_back(copy, postgres.folder)
        await postgres.start()
        await storm.forget_lost()


def _copied(folder: Path, copy: Path) -> None:
    shutil.rmtree(copy, ignore_errors=True)
    subprocess.run(["cp", "--archive", folder, copy], check=True)


async def _put_back(copy: Path, folder: Path) -> None:
    """At no moment is there nothing: a server that finds no folder makes an empty one."""
    former = folder.with_name("former")

    def put_back() -> None:
        folder.rename(former)
        copy.rename(folder)
        shutil.rmtree(former)

    await asyncio.to_thread(put_back)


async def _failed_over_twice(storm: Storm) -> None:
    for _ in range(2):
        await _failed_over(storm)


async def _clocks(storm: Storm) -> None:
    for seconds in (30, -30, 30, 0):
        for name, clock in storm.clocks.items():
            clock.move(-seconds if name == "wsproxy-2" else seconds)
        await asyncio.sleep(2)


async def _postgres_restarted(storm: Storm) -> None:
    await storm.sandbox.postgres.restart()


async def _postgres_silent(storm: Storm, way: Way = Way.BOTH) -> None:
    storm.database_lines[0].silence(way)
    await asyncio.sleep(3)


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


async def _readers_silent(storm: Storm, way: Way = Way.BOTH) -> None:
    storm.proxy_lines[0].silence(way)
    await asyncio.sleep(3)


async def _nats_silent(storm: Storm, way: Way = Way.BOTH) -> None:
    """The machine of a NATS server is gone without a word to those who are connected to it."""
    random.choice(storm.nats_lines[:3]).silence(way)
    await asyncio.sleep(3)


async def _native_silent(storm: Storm) -> None:
    storm.nats_lines[3].silence()
    await asyncio.sleep(3)


async def _slow(storm: Storm) -> None:
    storm.proxy_lines[1].rate = 8_000
    await asyncio.sleep(5)
    storm.proxy_lines[1].rate = None


_PARTS = {
    "NATS": ("NATS", "stream leaders", "stores"),
    "PostgreSQL": ("PostgreSQL",),
    "services": ("publishers", "wsproxy", "authcallout", "clocks"),
    "API": ("API",),
    "readers": ("reader",),
}


def parts(name: str) -> frozenset[str]:
    """What a fault concerns: two that have nothing in common can be played at once."""
    return frozenset(part for part, words in _PARTS.items() if any(word in name for word in words))


FAULTS: dict[str, Callable[[Storm], Awaitable[None]]] = {
    "publishers killed": lambda s: _killed(s, "publishers"),
    "second publishers killed": lambda s: _killed(s, "publishers-2"),
    "publishers stopped for 5 s": lambda s: _stopped(s, "publishers"),
    "wsproxy killed": lambda s: _killed(s, "wsproxy-2"),
    "wsproxy stopped for 5 s": lambda s: _stopped(s, "wsproxy-2"),
    "authcallout killed": lambda s: _killed(s, "authcallout"),
    "a NATS server killed": _nats_killed,
    "a NATS server stopped for 5 s": _nats_stopped,
    "two NATS servers stopped for 5 s": _most_stopped,
    "all NATS servers killed": _all_killed,
    "publishers and a NATS server killed": _both_killed_with_a_server,
    "stream leaders step down": _step_down,
    "NATS cluster cut in two": _cut_in_two,
    "store of one NATS server lost": lambda s: _lose(s.servers[2:]),
    "store of all NATS servers lost": lambda s: _lose(s.servers),
    "publishers killed while stores are filled": _killed_while_it_is_filled,
    "store of one NATS server rolled back": lambda s: _rolled_back(s.servers[1]),
    "disk of one NATS server full": lambda s: _full(s.servers[:1]),
    "disks of all NATS servers full": lambda s: _full(s.servers),
    "PostgreSQL restarted": _postgres_restarted,
    "PostgreSQL silent": _postgres_silent,
    "PostgreSQL silent one way": lambda s: _postgres_silent(s, Way.DOWN),
    "PostgreSQL at another host": _failed_over,
    "PostgreSQL at another host twice": _failed_over_twice,
    "PostgreSQL back without its last rows": _rows_lost,
    "clocks jump by 30 s": _clocks,
    "API hangs for 4 s": _api_hangs,
    "API answers 500 for 4 s": _api_fails,
    "readers cut three times": _readers_cut,
    "readers' line silent": _readers_silent,
    "readers' line silent one way": lambda s: _readers_silent(s, Way.UP),
    "readers' line slow": _slow,
    "services' line to a NATS server silent": _nats_silent,
    "services' line to a NATS server silent one way": lambda s: _nats_silent(s, Way.DOWN),
    "native reader's line silent": _native_silent,
}
