# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How often logs are looked at, and what that costs the controller."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from arvados_nats.arvados import client as arvados_client
from arvados_nats.arvados.tokens import Token
from arvados_nats.contract import log_chunks, subjects
from arvados_nats.contract.log_chunks import Chunk
from arvados_nats.nats.client import Message
from arvados_nats.service.ops import Health
from publishers.container_logs import containers
from publishers.container_logs import metrics as log_metrics
from publishers.container_logs.interest import Interest
from publishers.container_logs.pace import Pace
from publishers.container_logs.source import LogSource
from sandbox.servers.api_server import ApiServer
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import Database
from tests.support.waiting import until
from tests.support.worlds.logs import Job, World, open_world, until_calls

SIZES = "PROPFIND /arvados/v1/container_requests/{uuid}/log"
READS = "GET /arvados/v1/container_requests/{uuid}/log"
LAZY = Pace(fast=0.05, slow=30.0)


@pytest.fixture
async def world(
    fresh_nats: NatsServer, keys_folder: Path, database: Database
) -> AsyncIterator[World]:
    """A cluster without containers, and a NATS server of its own."""
    async with open_world(fresh_nats, keys_folder, database) as opened:
        yield opened


async def first_look(world: World) -> Job:
    """A job that the replica has just looked at."""
    job = await world.job()
    job.write("stdout.txt", b"first\n")
    await world.until_stored(job, "stdout.txt")
    return job


async def test_log_that_nobody_watches_is_left_alone(world: World) -> None:
    """One look at the start; the next one is due much later."""
    world.pace = LAZY
    async with world.replica():
        job = await first_look(world)
        job.write("stdout.txt", b"nobody looks\n")
        await asyncio.sleep(0.5)
    assert world.backend.faults.count(SIZES) == 1
    assert await world.content(job.uuid) == {"stdout.txt": b"first\n"}


async def test_first_watcher_hurries_the_log(world: World) -> None:
    """What has gathered since the last look is there at once, and more comes fast."""
    world.pace = LAZY
    async with world.replica():
        job = await first_look(world)
        job.write("stdout.txt", b"before anybody watched\n")
        await world.watch(job.uuid)
        await world.until_stored(job, "stdout.txt", within=0.9 * LAZY.slow)
        job.write("stdout.txt", b"and after\n")
        await world.until_stored(job, "stdout.txt", within=0.9 * LAZY.slow)


async def test_thousand_watchers_cost_what_one_does(world: World) -> None:
    """Looks depend on the container, not on who watches (docs/facts/arvados-demand.md A31)."""
    world.pace = Pace(fast=0.1, slow=30.0)
    async with world.replica():
        job = await first_look(world)
        counts = []
        for watchers in (1, 1000):
            for _ in range(watchers):
                await world.watch(job.uuid)
            before = world.backend.faults.count(SIZES)
            await asyncio.sleep(1)
            counts.append(world.backend.faults.count(SIZES) - before)
    assert all(1 <= count <= 13 for count in counts)


async def test_end_is_seen_at_once_though_nobody_watches(world: World) -> None:
    """The last lines do not wait for the slow pace (A33)."""
    world.pace = LAZY
    async with world.replica():
        job = await first_look(world)
        job.write("stdout.txt", b"last words\n")
        started = time.monotonic()
        await job.finish()
        await world.until_end(job.uuid)
        assert time.monotonic() - started < 0.9 * LAZY.slow
    assert await world.content(job.uuid) == job.written


async def test_event_of_a_container_is_acted_on_before_the_scan(world: World) -> None:
    """A stored event names the container that began, and then the one that ended."""
    world.pace = LAZY
    world.scan_seconds = 3600
    async with world.replica():
        await asyncio.sleep(0.5)
        job = await world.job()
        await said(world, job)
        await until_calls(world, SIZES, 1)
        job.write("stdout.txt", b"short\n")
        await job.finish()
        await said(world, job)
        await world.until_end(job.uuid)
    assert await world.content(job.uuid) == job.written


async def said(world: World, job: Job) -> None:
    """What the server republishes of an event; the publisher believes no more than the uuid."""
    event = subjects.stored(subjects.event(job.uuid, "update"))
    await world.nats.publish(event, b"{}")
    await world.nats.publish(f"{subjects.STORED_EVENTS}.container.none.other", b"")


async def test_interest_ends(world: World) -> None:
    """When nothing is announced for a while; every first announcement is told."""
    began: list[str] = []
    interest = Interest(expire=0.1)
    interest.on_begin(began.append)
    for _ in range(3):
        interest.announced("a")
    assert interest.watched("a")
    await asyncio.sleep(0.15)
    assert not interest.watched("a")
    interest.announced("a")
    interest.announced("b")
    assert began == ["a", "a", "b"]
    interest.sweep()
    assert log_metrics.WATCHED._value.get() == 2


async def test_calls_at_a_time_are_limited(world: World) -> None:
    """Twenty containers, and no more calls than allowed, while the controller hangs; those that
    nobody watches leave half of the calls to the others."""
    async with world.replica():
        with world.backend.faults.hanging(SIZES):
            await first_looks(world, 20, watched=False)
            assert await most_calls(world) == 4
            await first_looks(world, 20, watched=True)
            assert await most_calls(world) == 8


async def test_who_begins_to_be_watched_waits_no_more_with_the_others(world: World) -> None:
    """Logs that nobody watches have one turn, one after the other; whoever opens one of them need
    not wait for all those before it."""
    jobs = await first_looks(world, 3, watched=False)
    found = await containers.by_uuid(world.cluster.pool, [job.uuid for job in jobs])
    token, watched = Token(world.cluster.config.system_root_token), set[str]()
    async with arvados_client.connect(world.api.url) as arvados:
        source = LogSource(arvados, lambda: token, Health(), calls=2)
        source.prefer(watched.__contains__)
        with world.backend.faults.hanging(SIZES):
            looks = [asyncio.create_task(source.sizes(container)) for container in found]
            await until_calls(world, SIZES, 1)
            assert await most_calls(world) == 1
            watched.add(found[-1].uuid)
            source.hurry(found[-1].uuid)
            await until_calls(world, SIZES, 1)
        await asyncio.gather(*looks)
        await asyncio.gather(*map(source.sizes, found))  # all turns were given back


async def test_a_look_at_a_log_that_grows_is_one_call(world: World) -> None:
    """Nobody asks how large a file is before it is read on; other files are found all the same."""
    world.pace = LAZY
    async with world.replica():
        job = await first_look(world)
        await world.watch(job.uuid)
        world.backend.faults.reset()
        for number in range(20):
            await world.watch(job.uuid)
            job.write("stdout.txt", b"line %d\n" % number)
            await world.until_stored(job, "stdout.txt")
        sizes, reads = map(world.backend.faults.count, (SIZES, READS))
        assert 0 < sizes < 0.7 * reads
        job.write("stderr.txt", b"and another\n")
        await world.until_stored(job, "stderr.txt")
    assert await world.content(job.uuid) == job.written


async def first_looks(world: World, count: int, *, watched: bool) -> list[Job]:
    """Let containers begin to run, so that the publisher wants to look at each."""
    jobs = [await world.job(start=False) for _ in range(count)]
    for job in jobs:
        if watched:
            await world.watch(job.uuid)
        await job.start()
    return jobs


async def most_calls(world: World) -> int:
    """How many calls have come when no more come for half a second."""
    count = -1
    while (now := world.backend.faults.count(SIZES)) > count:
        count = now
        await asyncio.sleep(0.5)
    return count


class Counting:
    """A TCP proxy in front of the API server that counts connections."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api
        self.accepted = 0
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.open += 1
        back = await asyncio.open_connection("127.0.0.1", self._api.port)
        try:
            await asyncio.gather(self._pump(reader, back[1]), self._pump(back[0], writer))
        finally:
            self.open -= 1

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()


async def test_one_connection_carries_all_looks(world: World) -> None:
    """However long a log is followed, it takes one connection that is kept (A39)."""
    counting = Counting(world.api)
    server = await asyncio.start_server(counting.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    job = await world.job()
    async with world.replica(api_url=f"http://127.0.0.1:{port}"):
        for turn in range(20):
            job.write("stdout.txt", b"line %d\n" % turn)
            await world.until_stored(job, "stdout.txt")
    assert counting.accepted == 1
    await until(lambda: _is_closed(counting))
    server.close()


async def _is_closed(counting: Counting) -> bool:
    return counting.open == 0


async def test_ten_thousand_lines_a_second(world: World) -> None:
    """For some seconds, with one unterminated line in between: every byte, in order (A32)."""
    world.pace = Pace(fast=0.25, slow=30.0)
    async with world.replica():
        job = await first_look(world)
        await world.watch(job.uuid)
        loop = asyncio.get_running_loop()
        started = loop.time()
        written = 0
        while written < 30_000:
            due = min(int((loop.time() - started) * 10_000) + 1, 30_000)
            job.write("stdout.txt", b"".join(line(n) for n in range(written, due)))
            written = due
            await asyncio.sleep(0.01)
        await job.finish()
        await world.until_end(job.uuid)
    assert await world.content(job.uuid) == job.written


def line(number: int) -> bytes:
    """A line of about 100 bytes, or a piece of one."""
    text = b"2026-11-25T01:02:03.%09dZ line %d %s" % (number, number, b"." * 60)
    return text if number == 12_345 else text + b"\n"


async def test_delay_of_a_line_is_within_the_pace(world: World) -> None:
    """From write to stored, watched: within the fast pace and what a look takes."""
    world.pace = Pace(fast=0.1, slow=30.0)
    delays: list[float] = []
    written: dict[int, float] = {}

    async def stored(message: Message) -> None:
        chunk = log_chunks.parse(message.subject, message.headers, message.data)
        assert isinstance(chunk, Chunk)
        now = time.monotonic()
        delays.extend(now - written[int(number)] for number in chunk.data.split())

    async with world.replica():
        job = await first_look(world)
        await world.nats.subscribe(subjects.stored(subjects.log(job.uuid, "stdout.txt")), stored)
        await world.watch(job.uuid)
        for number in range(60):
            written[number] = time.monotonic()
            job.write("stdout.txt", b"%d\n" % number)
            await asyncio.sleep(0.03)
        await until(lambda: _count(delays, 60))
    delays.sort()
    assert delays[30] < 0.15
    assert delays[-1] < 1


async def _count(found: list[float], count: int) -> bool:
    return len(found) >= count
