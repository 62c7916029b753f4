# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Pushed logs: bytes go from a pipe to the stream, and the log publisher only looks after them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from arvados_nats.arvados.tokens import Token
from arvados_nats.contract.log_chunks import Chunk, FileEnd
from publishers.container_logs import push as push_log
from publishers.container_logs.push import Target
from publishers.container_logs.writer import LogWriter
from publishers.pipes.pipe import Pipe
from publishers.pipes.spool import Spool
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import Database
from tests.support.waiting import until
from tests.support.worlds.logs import Job, World, open_world, until_calls

READS = "GET /arvados/v1/container_requests/{uuid}/log"


@pytest.fixture
async def world(
    fresh_nats: NatsServer, keys_folder: Path, database: Database
) -> AsyncIterator[World]:
    """A cluster without containers, and a NATS server of its own."""
    async with open_world(fresh_nats, keys_folder, database) as opened:
        yield opened


class Pusher:
    """A pipe whose other end is pushed as a file of a job's log."""

    def __init__(self, job: Job, spool: Spool, writing: int) -> None:
        self.job = job
        self.spool = spool
        self._writing = writing

    async def write(self, data: bytes) -> None:
        """What the container writes goes to its log and to the pipe."""
        self.job.write("stdout.txt", data)
        await self.pipe_only(data)

    async def pipe_only(self, data: bytes) -> None:
        """A pipe that is full makes the writer wait."""
        await asyncio.to_thread(os.write, self._writing, data)

    def close(self) -> None:
        """The process that wrote has ended."""
        if self._writing >= 0:
            os.close(self._writing)
        self._writing = -1


@contextlib.asynccontextmanager
async def pushing(
    world: World, job: Job, folder: Path, *, max_bytes: int = 1 << 20
) -> AsyncIterator[Pusher]:
    """Push as `push-log` does, on a trusted connection."""
    spool = Spool(folder, max_bytes=max_bytes)
    reading, writing = os.pipe()
    pusher = Pusher(job, spool, writing)
    pipe = Pipe(spool)
    target = Target([world.nats_url], Token(""), job.uuid, "stdout.txt")
    tasks = [
        asyncio.create_task(pipe.fill(reading)),
        asyncio.create_task(push_log.send(world.nats, target, pipe)),
    ]
    try:
        yield pusher
        pusher.close()
        async with asyncio.timeout(60):
            await asyncio.gather(*tasks)
    finally:
        pusher.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        os.close(reading)
        spool.close()


async def test_pushed_bytes_are_in_the_stream_at_once(world: World, tmp_path: Path) -> None:
    """Lines go out when they are written, half lines soon after; each chunk says it was pushed."""
    job = await world.job()
    async with pushing(world, job, tmp_path) as pusher:
        await pusher.write(b"one\ntwo\n--end")
        await world.until_stored(job, "stdout.txt")
        await pusher.write(b"--")
    assert await world.content(job.uuid) == job.written
    assert all(chunk.pushed for chunk in await world.chunks(job.uuid))


async def test_log_publisher_only_verifies_what_is_pushed(world: World, tmp_path: Path) -> None:
    """It reads none of it while it runs, and confirms its end."""
    job = await world.job()
    async with pushing(world, job, tmp_path) as pusher:
        await pusher.write(b"pushed\n")
        await world.until_stored(job, "stdout.txt")
        async with world.replica():
            await until_calls(world, "PROPFIND", 2)
            await pusher.write(b"more of it\n" * 10_000)
            await world.until_stored(job, "stdout.txt")
            assert world.backend.faults.count(READS) == 0
            await job.finish()
            end = await world.until_end(job.uuid)
    assert await world.content(job.uuid) == job.written
    assert end.files == {"stdout.txt": FileEnd(0, 7 + 110_000, confirmed=True)}
    assert all(chunk.pushed for chunk in await world.chunks(job.uuid))
    assert world.backend.faults.count(READS) == 1


async def test_push_that_begins_after_the_log_publisher_has_read(
    world: World, tmp_path: Path
) -> None:
    """What is there already is not sent again, and the publisher leaves the rest to the push."""
    async with world.replica():
        job = await world.job()
        job.write("stdout.txt", b"read by the publisher\n")
        await world.until_stored(job, "stdout.txt")
        async with pushing(world, job, tmp_path) as pusher:
            await pusher.pipe_only(b"read by the publisher\n")
            for _ in range(50):
                await pusher.write(b"by either of them\n")
                await asyncio.sleep(0.01)
        await job.finish()
        end = await world.until_end(job.uuid)
    assert await world.content(job.uuid) == job.written
    assert end.files["stdout.txt"].confirmed


async def test_push_that_stands_still_is_taken_over(world: World, tmp_path: Path) -> None:
    """The publisher reads on where the push stopped, after some patience."""
    job = await world.job()
    async with pushing(world, job, tmp_path) as pusher:
        await pusher.write(b"pushed\n")
        await world.until_stored(job, "stdout.txt")
        async with world.replica():
            job.write("stdout.txt", b"the pipe is broken\n")
            await world.until_stored(job, "stdout.txt")
            await job.finish()
            await world.until_end(job.uuid)
    assert await world.content(job.uuid) == job.written
    assert [chunk.pushed for chunk in await world.chunks(job.uuid)] == [True, False]


async def test_pushed_file_that_ends_short_is_completed_from_keep(
    world: World, tmp_path: Path
) -> None:
    """A node that dies with bytes in its pipe: the saved log has them."""
    job = await world.job()
    async with pushing(world, job, tmp_path) as pusher:
        await pusher.write(b"pushed\n")
    job.write("stdout.txt", b"not pushed\n")
    await job.finish()
    async with world.replica():
        end = await world.until_end(job.uuid)
    assert await world.content(job.uuid) == job.written
    assert end.files["stdout.txt"].confirmed


async def test_pushed_bytes_that_are_not_those_of_the_log(world: World, tmp_path: Path) -> None:
    """The saved log is the truth: it follows in a new epoch."""
    job = await world.job()
    async with pushing(world, job, tmp_path) as pusher:
        await pusher.pipe_only(b"shifted by one\n")
    job.write("stdout.txt", b"hifted by one\n\n")
    await job.finish()
    async with world.replica():
        end = await world.until_end(job.uuid)
    assert [(c.epoch, c.data) for c in await world.chunks(job.uuid)] == [
        (0, b"shifted by one\n"),
        (1, b"hifted by one\n\n"),
    ]
    assert end.files == {"stdout.txt": FileEnd(1, 15, confirmed=True)}


async def test_pushed_file_that_arvados_does_not_know(world: World, tmp_path: Path) -> None:
    """It is listed in the end marker, and not confirmed."""
    async with world.replica():
        job = await world.job()
        writer = LogWriter(world.nats, job.uuid)
        await writer.append(Chunk(job.uuid, "own.log", 0, 0, b"mine\n", pushed=True))
        await job.finish()
        end = await world.until_end(job.uuid)
    assert end.files == {"own.log": FileEnd(0, 5, confirmed=False)}


async def test_next_process_resumes_at_the_right_offset(world: World, tmp_path: Path) -> None:
    """Killed with bytes on disk, while NATS was away; the next one goes on with the same pipe."""
    job = await world.job()
    async with pushing(world, job, tmp_path) as pusher:
        await pusher.write(b"first\n")
        await world.until_stored(job, "stdout.txt")
    spool = Spool(tmp_path, max_bytes=1 << 20)
    spool.append(b"on disk when it was killed\n")
    spool.close()
    job.write("stdout.txt", b"on disk when it was killed\n")
    async with pushing(world, job, tmp_path) as pusher:
        await pusher.write(b"second\n")
    assert await world.content(job.uuid) == job.written


async def test_nats_away_while_bytes_come(
    world: World, fresh_nats: NatsServer, tmp_path: Path
) -> None:
    """They wait on disk and are sent when NATS is back."""
    job = await world.job()
    async with pushing(world, job, tmp_path) as pusher:
        await pusher.write(b"before\n")
        await world.until_stored(job, "stdout.txt")
        await fresh_nats.kill()
        for _ in range(100):
            await pusher.write(b"while NATS is away\n" * 100)
            await asyncio.sleep(0.002)
        await until(lambda: _spooled(pusher, 7 + 190_000))
        await fresh_nats.restart()
        await world.nats.until_connected()
    assert await world.content(job.uuid) == job.written


async def _spooled(pusher: Pusher, end: int) -> bool:
    return pusher.spool.end == end


async def test_no_room_on_disk(world: World, fresh_nats: NatsServer, tmp_path: Path) -> None:
    """What there was no room for is read by the log publisher; then the push goes on."""
    world.pace = dataclasses.replace(world.pace, push=0.2)
    job = await world.job()
    async with world.replica():
        async with pushing(world, job, tmp_path, max_bytes=1000) as pusher:
            await pusher.write(b"before\n")
            await world.until_stored(job, "stdout.txt")
            await fresh_nats.kill()
            for _ in range(100):
                await pusher.write(b"some of this there is no room for\n")
                await asyncio.sleep(0.002)
            await fresh_nats.restart()
            await world.nats.until_connected()
            await pusher.write(b"after\n")
        await job.finish()
        end = await world.until_end(job.uuid)
    assert await world.content(job.uuid) == job.written
    assert end.files["stdout.txt"].confirmed
