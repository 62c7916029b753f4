# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Any bytes, written anyhow while replicas and tunnels come and go, arrive byte-identical."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from publishers.container_logs.pace import Pace
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import PostgresServer
from tests.support.waiting import until
from tests.support.worlds.logs import Job, World, open_world

FILES = ("stdout.txt", "stderr.txt")
Step = tuple[str, bytes] | Literal["wait", "replace", "second", "tunnel", "checkpoint"]
End = Literal["finish", "die", "die saved"]

PIECES = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.sampled_from([b"\n", b"line\n", "é€😀".encode(), b"\xf0\x9f", b"\0", b"x" * 70_000]),
)
WRITES = st.tuples(st.sampled_from(FILES), st.lists(PIECES, min_size=1, max_size=8).map(b"".join))
EVENTS = st.sampled_from(("wait", "wait", "replace", "second", "tunnel", "checkpoint"))
STEPS = st.lists(st.one_of(WRITES, WRITES, EVENTS), min_size=1, max_size=25)
ENDS = st.sampled_from(("finish", "die", "die saved"))


@pytest.fixture(scope="module")
async def world(
    nats_server: NatsServer, keys_folder: Path, postgres_server: PostgresServer
) -> AsyncIterator[World]:
    """One cluster for all examples; each has a container of its own."""
    database = await postgres_server.clone()
    async with open_world(nats_server, keys_folder, database) as opened:
        opened.pace = Pace(fast=0.01, slow=0.02, confirm=0.3)
        opened.scan_seconds = 0.05
        yield opened
    await postgres_server.drop(database)


async def act(
    world: World, job: Job, replicas: list[contextlib.AsyncExitStack], step: Step
) -> None:
    """One thing that happens to a container or to those who publish its log."""
    match step:
        case (str(file), bytes(data)):
            job.write(file, data)
        case "wait":
            await asyncio.sleep(0.03)
        case "replace":
            await replicas.pop(0).aclose()
            await add(world, replicas)
        case "second" if len(replicas) < 2:
            await add(world, replicas)
        case "tunnel":
            world.logs.set_tunnel(job.uuid, up=False)
            await asyncio.sleep(0.03)
            world.logs.set_tunnel(job.uuid, up=True)
        case "checkpoint" if job.written:
            await job.checkpoint()


async def add(world: World, replicas: list[contextlib.AsyncExitStack]) -> None:
    """Start a replica."""
    stack = contextlib.AsyncExitStack()
    await stack.enter_async_context(world.replica())
    replicas.append(stack)


async def close(world: World, job: Job, end: End) -> None:
    """The container ends; a node that dies is found to be dead when all was streamed or saved."""
    if end == "finish":
        await job.finish()
        return
    if end == "die saved":
        await job.checkpoint()
    else:
        await until(lambda: _all_stored(world, job))
    await job.die()


async def _all_stored(world: World, job: Job) -> bool:
    return await world.content(job.uuid) == job.written


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS, end=ENDS)
@pytest.mark.timeout(300)
async def test_any_bytes_arrive_as_they_were_written(
    world: World, steps: list[Step], end: End
) -> None:
    """Every file whole, each byte once, however it was written and whoever carried it."""
    job = await world.job()
    job.write("stdout.txt", b"begun\n")
    replicas: list[contextlib.AsyncExitStack] = []
    try:
        await add(world, replicas)
        for step in steps:
            await act(world, job, replicas, step)
        await close(world, job, end)
        found = await world.until_end(job.uuid)
    finally:
        for stack in replicas:
            await stack.aclose()
    assert await world.content(job.uuid) == job.written
    assert {name: file.size for name, file in found.files.items()} == {
        name: len(data) for name, data in job.written.items()
    }
    if end != "die":
        assert all(file.confirmed for file in found.files.values())
