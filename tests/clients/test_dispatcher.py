# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`live dispatch`, the dispatcher in Go: it runs what Arvados gives it, whatever befalls."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from arvados_nats.contract import streams
from arvados_nats.nats import client as nats_client
from sandbox.model.actors import Actor
from sandbox.model.records import Record
from sandbox.stack import Stack
from tests.clients import programs
from tests.clients.programs import Program, running

WITHIN = 120.0
_RUNNER = """#!/bin/sh
# As crunch-run does: Running, then the work, then the end. It ends where it is told to.
put() {
    curl -sf -o /dev/null -X PUT -H "Authorization: Bearer $ARVADOS_API_TOKEN" \
        -H "Content-Type: application/json" -d "{\\"container\\": $2}" \
        "$ARVADOS_API/arvados/v1/containers/$1"
}
echo "$1"
put "$1" '{"state": "Running"}'
while [ ! -e "$HOLD/all" ] && [ ! -e "$HOLD/$1" ]; do sleep 0.1; done
put "$1" '{"state": "Complete", "exit_code": 0}'
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Sequence[str]:
    folder = tmp_path_factory.mktemp("dispatch")
    try:
        programs.tool("curl")
        program = programs.ready("go", folder)
    except programs.Missing as reason:
        pytest.skip(f"go: {reason}")
    runner = folder / "run"
    runner.write_text(_RUNNER)
    runner.chmod(0o755)
    return [*program, "dispatch", str(runner)]


@dataclass(frozen=True, slots=True)
class World:
    """Requests of alice, a dispatcher's token, and where a file lets a container go on."""

    stack: Stack
    command: Sequence[str]
    alice: Actor
    boss: Actor
    hold: Path

    def dispatcher(self) -> AbstractAsyncContextManager[Program]:
        """One slot."""
        sandbox = self.stack.sandbox
        environment = {
            "NATS_URL": sandbox.nats.url,
            "ARVADOS_API_TOKEN": self.boss.token,
            "ARVADOS_API": sandbox.api.url,
            "RECONCILE_SECONDS": "3",
            "SLOTS": "1",
            "HOLD": str(self.hold),
        }
        return running(self.command, environment=environment)

    async def wanted(self, priority: int) -> Record:
        return await self.stack.sandbox.cluster.container_request(
            owner=self.alice, priority=priority
        )

    def go(self, *requests: Record) -> None:
        for request in requests:
            (self.hold / str(request["container_uuid"])).touch()

    async def reaches(self, request: Record, *states: str) -> str:
        """The container comes into one of these states, as Arvados has it."""
        query, state = "SELECT state FROM containers WHERE uuid = $1", ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WITHIN):
                while state not in states:
                    found = self.stack.sandbox.cluster.pool
                    state = await found.fetchval(query, request["container_uuid"])
                    await asyncio.sleep(0.1)
        assert state in states
        return state


@pytest.fixture
async def world(own_stack: Stack, command: Sequence[str], tmp_path: Path) -> AsyncIterator[World]:
    cluster = own_stack.sandbox.cluster
    alice, boss = await cluster.user("alice"), await cluster.user("boss", admin=True)
    yield World(own_stack, command, alice, boss, tmp_path)
    (tmp_path / "all").touch()


def ran(program: Program) -> list[str]:
    """The containers whose process was started, in order."""
    return [line.decode() for line in program.lines]


def uuids(*requests: Record) -> list[str]:
    return [str(request["container_uuid"]) for request in requests]


async def test_by_priority_and_what_is_on_hold_waits(world: World) -> None:
    """The most urgent first, one at a time; a hold keeps it back, and is lifted; a cancellation
    ends the process and the container."""
    cluster = world.stack.sandbox.cluster
    low, held, high = await world.wanted(1), await world.wanted(0), await world.wanted(900)
    async with world.dispatcher() as program:
        await world.reaches(high, "Running")
        urgent = await world.wanted(999)
        await program.says(f"next: {urgent['container_uuid']}", within=WITHIN)
        world.go(high)
        await world.reaches(urgent, "Running")
        assert ran(program) == uuids(high, urgent)
        await cluster.update(urgent, {"priority": 0}, world.alice)
        await program.says("stop: ", within=WITHIN)
        await world.reaches(urgent, "Cancelled")
        await world.reaches(low, "Running")
        await cluster.update(held, {"priority": 5}, world.alice)
        world.go(low, held)
        await world.reaches(held, "Complete")
        assert ran(program) == uuids(high, urgent, low, held)
    assert await world.reaches(high, "Complete") and await world.reaches(low, "Complete")


async def test_a_lost_queue_and_another_leader_end_nothing(world: World) -> None:
    """NATS restarts, the bucket is gone for a while, the publishers begin anew: what runs goes on,
    and what waits is run once."""
    first, second = await world.wanted(5), await world.wanted(4)
    sandbox, publishers = world.stack.sandbox, world.stack.services["publishers"]
    async with world.dispatcher() as program:
        await world.reaches(first, "Running")
        await sandbox.nats.restart()
        await publishers.stop()
        seed = sandbox.seed("publisher")
        async with nats_client.connect([sandbox.nats.url], name="test", seed=seed) as nats:
            await nats.js_api(f"STREAM.DELETE.{streams.QUEUE}", {})
        caught = program.times("queue: ")
        await program.says("queue: ", caught + 1, WITHIN)
        await publishers.start()
        world.go(first)
        await world.reaches(first, "Complete")
        await world.reaches(second, "Running")
        world.go(second)
        await world.reaches(second, "Complete")
        assert ran(program) == uuids(first, second)


async def test_it_begins_anew_where_it_was(world: World) -> None:
    """Killed: what it had locked is its own again; what ran without it is cancelled."""
    cluster = world.stack.sandbox.cluster
    lost = await world.wanted(5)
    async with world.dispatcher() as program:
        await world.reaches(lost, "Running")
        program.process.kill()
        locked = await world.wanted(4)
        await cluster.lock(locked["container_uuid"], world.boss)
        try:
            async with world.dispatcher() as again:
                await world.reaches(lost, "Cancelled")
                # Its request gets another container, which may have the slot first.
                (world.hold / "all").touch()
                await world.reaches(locked, "Complete")
                assert ran(again).count(locked["container_uuid"]) == 1
                assert lost["container_uuid"] not in ran(again)
        finally:  # a process outlives its dispatcher
            (world.hold / "all").touch()
