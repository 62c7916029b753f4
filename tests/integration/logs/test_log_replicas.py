# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Replicas share the containers; one that dies is replaced, and no byte is doubled or missed."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from arvados_nats.arvados import client as arvados_client
from arvados_nats.arvados.tokens import Token
from arvados_nats.contract import log_chunks, streams, subjects
from arvados_nats.contract.log_chunks import Chunk
from arvados_nats.nats import client as nats_client
from arvados_nats.service.ops import Health
from publishers.container_logs import containers
from publishers.container_logs import metrics as log_metrics
from publishers.container_logs.containers import Container
from publishers.container_logs.pace import Pace
from publishers.container_logs.source import LogSource
from publishers.container_logs.tailer import LogTailer, Surroundings
from publishers.container_logs.writer import Fenced, LogWriter
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import Database
from tests.support.waiting import until
from tests.support.worlds.logs import Job, World, open_world


@pytest.fixture
async def world(
    fresh_nats: NatsServer, keys_folder: Path, database: Database
) -> AsyncIterator[World]:
    """A cluster without containers, and a NATS server of its own."""
    async with open_world(fresh_nats, keys_folder, database) as opened:
        yield opened


async def write_for_a_while(jobs: list[Job], seconds: float) -> None:
    """Let all jobs write words, lines and half lines, a little at a time."""
    loop = asyncio.get_running_loop()
    stop = loop.time() + seconds
    count = 0
    while loop.time() < stop:
        for job in jobs:
            count += 1
            line = f"{count} ".encode() * random.randint(1, 20)
            job.write(
                random.choice(("stdout.txt", "stderr.txt")), line + random.choice([b"\n", b""])
            )
        await asyncio.sleep(0.005)


async def finish(world: World, jobs: list[Job]) -> None:
    """End all jobs, and see that every byte is there once and confirmed."""
    for job in jobs:
        await job.finish()
    for job in jobs:
        end = await world.until_end(job.uuid)
        assert await world.content(job.uuid) == job.written
        assert all(file.confirmed for file in end.files.values())


async def test_two_processes_share_and_one_is_killed(world: World) -> None:
    """The other takes over where the stream ends."""
    jobs = [await world.job() for _ in range(10)]
    async with world.process() as one, world.process():
        await asyncio.gather(
            *(until_first_chunk(world, job) for job in jobs), write_for_a_while(jobs, 2)
        )
        one.kill()
        await write_for_a_while(jobs, 2)
        await finish(world, jobs)


async def until_first_chunk(world: World, job: Job) -> None:
    async def there() -> bool:
        return await world.nats.last(streams.LOGS, subjects.logs_of(job.uuid)) is not None

    await until(there, within=60)  # processes have to start


async def test_replicas_that_come_and_go(world: World) -> None:
    """Containers move to whom they belong, in the middle of their logs."""
    jobs = [await world.job() for _ in range(6)]
    async with world.replica():
        writing = asyncio.create_task(write_for_a_while(jobs, 3))
        for _ in range(4):
            async with world.replica(), world.replica():
                await asyncio.sleep(0.5)
        await writing
        await finish(world, jobs)


async def test_two_tailers_that_do_not_know_of_each_other(world: World, keys_folder: Path) -> None:
    """Even if two replicas hold the same container to be theirs, fencing keeps each byte once."""
    job = await world.job()
    fenced = log_metrics.FENCED._value.get()
    async with tailer(world, job), tailer(world, job), tailer(world, job):
        await write_for_a_while([job], 2)
        await job.finish()
        await world.until_end(job.uuid)
    assert await world.content(job.uuid) == job.written
    assert log_metrics.FENCED._value.get() > fenced


@contextlib.asynccontextmanager
async def tailer(world: World, job: Job) -> AsyncIterator[LogTailer]:
    """A tailer of one container with its own connections."""
    async with (
        nats_client.connect([world.nats_url], name="tailer", seed=world.seed) as nats,
        arvados_client.connect(world.api.url) as arvados,
    ):
        token = Token(world.cluster.config.system_root_token)

        async def look(uuid: str) -> Container | None:
            found = await containers.by_uuid(world.cluster.pool, [uuid])
            return found[0] if found else None

        around = Surroundings(
            source=LogSource(arvados, lambda: token, Health(), calls=4),
            look=look,
            watched=lambda _: True,
            tailed=lambda: 1,
            pace=Pace(fast=0.01),
        )
        container = await look(job.uuid)
        assert container is not None
        following = LogTailer(container, LogWriter(nats, job.uuid), around)
        task = asyncio.create_task(_follow(following, look))
        try:
            yield following
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def _follow(following: LogTailer, look: object) -> None:
    async def refresh() -> None:
        while True:
            await asyncio.sleep(0.1)
            found = await look(following.container.uuid)  # type: ignore[operator]
            following.update(found)

    refreshing = asyncio.create_task(refresh())
    try:
        await following.run()
    finally:
        refreshing.cancel()


async def test_nats_restarts_in_the_middle(world: World, fresh_nats: NatsServer) -> None:
    """Killed and started again, twice: writes wait, and nothing is lost or doubled
    (docs/facts/arvados-demand.md G30)."""
    jobs = [await world.job() for _ in range(3)]
    async with world.replica():
        writing = asyncio.create_task(write_for_a_while(jobs, 4))
        for _ in range(2):
            await asyncio.sleep(0.7)
            await fresh_nats.kill()
            await asyncio.sleep(0.5)
            await fresh_nats.restart()
        await writing
        await world.nats.until_connected()
        await finish(world, jobs)


CONTAINER = "zzzzz-dz642-00000000000000w"


def chunk(offset: int, data: bytes) -> Chunk:
    return Chunk(CONTAINER, "stdout.txt", 0, offset, data)


async def test_second_writer_is_told_where_the_file_stands(world: World) -> None:
    """Whoever comes late is fenced, and may go on from there."""
    first, second = LogWriter(world.nats, CONTAINER), LogWriter(world.nats, CONTAINER)
    await second.last("stdout.txt")
    await first.append(chunk(0, b"0123456789"))
    with pytest.raises(Fenced) as fenced:
        await second.append(chunk(0, b"01234"))
    assert (fenced.value.last.offset, fenced.value.last.known) == (10, b"0123456789")
    await second.append(chunk(10, b"more"))
    for offset in (10, 5, 12):
        with pytest.raises(Fenced):
            await LogWriter(world.nats, CONTAINER).append(chunk(offset, b"others"))
    assert await world.content(CONTAINER) == {"stdout.txt": b"0123456789more"}


async def test_write_whose_acknowledgement_was_lost(world: World) -> None:
    """Sent again, it is found to be stored."""
    first = LogWriter(world.nats, CONTAINER)
    await first.append(chunk(0, b"0123456789"))
    again = LogWriter(world.nats, CONTAINER)
    await again.append(chunk(0, b"0123456789"))
    await again.append(chunk(10, b"more"))
    assert await world.content(CONTAINER) == {"stdout.txt": b"0123456789more"}


async def test_write_after_the_last_message_was_removed(world: World) -> None:
    """Messages that grew too old, or were purged, are no reason to stop or to begin anew."""
    writer = LogWriter(world.nats, CONTAINER)
    await writer.append(chunk(0, b"0123456789"))
    await world.nats.js_api(f"STREAM.PURGE.{streams.LOGS}", {})
    await writer.append(chunk(10, b"more"))
    (left,) = await world.chunks(CONTAINER)
    assert left.offset == 10


async def test_same_bytes_again_after_they_were_removed(world: World) -> None:
    """The server remembers the message's id, and yet the bytes are stored."""
    await LogWriter(world.nats, CONTAINER).append(chunk(0, b"0123456789"))
    await world.nats.js_api(f"STREAM.PURGE.{streams.LOGS}", {})
    await LogWriter(world.nats, CONTAINER).append(chunk(0, b"0123456789"))
    assert await world.content(CONTAINER) == {"stdout.txt": b"0123456789"}


async def test_health_says_that_nothing_is_stored(world: World) -> None:
    """As where the disk of the server that leads this stream alone is full; till it is stored."""
    health = Health()
    writer = LogWriter(world.nats, CONTAINER, health=health)
    await writer.append(chunk(0, b"0123456789"))
    config = await world.nats.stream_config(streams.LOGS)
    assert config is not None
    full = {**config, "max_msgs": 1, "discard": "new"}
    await world.nats.js_api(f"STREAM.UPDATE.{streams.LOGS}", full)
    writing = asyncio.create_task(writer.append(chunk(10, b"more")))
    await until(lambda: "maximum messages exceeded" in (health.error or ""))
    await world.nats.js_api(f"STREAM.UPDATE.{streams.LOGS}", config)
    await asyncio.wait_for(writing, 60)
    assert health.error is None


async def test_end_marker_is_stored_once(world: World) -> None:
    """Two replicas that end the same container make one end."""
    end = log_chunks.ContainerEnd(CONTAINER, "Complete", 0, {})
    await asyncio.gather(*(LogWriter(world.nats, CONTAINER).end(end) for _ in range(5)))
    assert await world.end(CONTAINER) == end
