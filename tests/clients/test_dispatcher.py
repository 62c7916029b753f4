# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`live dispatch`, the dispatcher in Go: it runs what Arvados gives it, whatever befalls."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from arvados_nats.contract import streams, subjects
from arvados_nats.nats import client as nats_client
from sandbox.model.actors import Actor
from sandbox.model.records import Record
from sandbox.stack import Stack
from tests.clients import programs
from tests.clients.programs import Program, running

WITHIN = 40.0
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

    def dispatcher(self, **more: str) -> AbstractAsyncContextManager[Program]:
        """One slot."""
        sandbox = self.stack.sandbox
        environment = {
            "NATS_URL": sandbox.nats.url,
            "ARVADOS_API_TOKEN": self.boss.token,
            "ARVADOS_API": sandbox.api.url,
            "RECONCILE_SECONDS": "3",
            "SLOTS": "1",
            "HOLD": str(self.hold),
            **more,
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


@contextlib.asynccontextmanager
async def front(api: str, after: Callable[[str], Awaitable[None]]) -> AsyncIterator[str]:
    """Arvados behind a front that does something when it has answered, before the answer is told;
    a ConnectionError loses it."""
    async with httpx.AsyncClient(base_url=api) as http:

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            first, *rest = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            given = {
                name.lower(): value for name, _, value in (one.partition(": ") for one in rest)
            }
            method, path, _ = first.split()
            names = ("authorization", "content-type")
            body = await reader.readexactly(int(given.get("content-length", 0)))
            headers = {name: given[name] for name in names}
            answer = await http.request(method, path, content=body, headers=headers)
            with contextlib.suppress(ConnectionError):
                await after(path)
                head = f"HTTP/1.1 {answer.status_code} -\r\nContent-Length: {len(answer.content)}"
                writer.write(f"{head}\r\nConnection: close\r\n\r\n".encode() + answer.content)
                await writer.drain()
            writer.close()

        async with await asyncio.start_server(carry, "127.0.0.1", 0) as server:
            yield "http://{}:{}".format(*server.sockets[0].getsockname())


async def test_what_happens_while_it_locks(world: World) -> None:
    """Cancelled before the answer to the lock is there: it is not kept. The answer is lost: it is
    run all the same, once."""
    cluster = world.stack.sandbox.cluster
    cancelled, lost = await world.wanted(900), await world.wanted(800)
    left = {f"{uuid}/lock" for uuid in uuids(cancelled, lost)}

    async def after(path: str) -> None:
        locked = path.removeprefix("/arvados/v1/containers/")
        if locked not in left:
            return
        left.remove(locked)
        if locked.startswith(uuids(lost)[0]):
            raise ConnectionError
        await cluster.update(cancelled, {"priority": 0}, world.alice)

    async with (
        front(world.stack.sandbox.api.url, after) as api,
        world.dispatcher(ARVADOS_API=api) as program,
    ):
        await world.reaches(lost, "Running")
        world.go(lost)
        await world.reaches(lost, "Complete")
        await world.reaches(cancelled, "Cancelled", "Queued")
        assert ran(program).count(*uuids(lost)) == 1
        assert ran(program).count(*uuids(cancelled)) <= 1
    assert not left


async def test_two_dispatchers_share_a_queue(world: World) -> None:
    """Each with a token of its own: every container is run by one of them."""
    (world.hold / "all").touch()
    other = await world.stack.sandbox.cluster.token(world.boss)
    async with (
        world.dispatcher() as first,
        world.dispatcher(ARVADOS_API_TOKEN=other.token) as second,
    ):
        await first.says("caught up", within=WITHIN)
        await second.says("caught up", within=WITHIN)
        wanted = [await world.wanted(priority) for priority in range(1, 9)]
        for request in wanted:
            await world.reaches(request, "Complete")
        told = [uuid for uuid in ran(first) + ran(second) if uuid in uuids(*wanted)]
        assert sorted(told) == sorted(uuids(*wanted))


async def test_its_token_is_renewed(world: World, tmp_path: Path) -> None:
    """What was locked with the former one runs on with it, the next is locked with the new one; and
    the connection comes back with that when the former one ends."""
    cluster, file = world.stack.sandbox.cluster, tmp_path / "token"
    first, second = [await cluster.token(world.boss) for _ in range(2)]
    file.write_text(first.token)
    runs, waits = await world.wanted(900), await world.wanted(800)
    async with world.dispatcher(
        ARVADOS_API_TOKEN_FILE=str(file), ARVADOS_USER_UUID=world.boss.uuid
    ) as program:
        await world.reaches(runs, "Running")
        file.write_text(second.token)
        world.go(runs)
        await world.reaches(runs, "Complete")
        await world.reaches(waits, "Running")
        await cluster.logout(first)
        await program.says("connected", 2, WITHIN)
        last = await world.wanted(700)
        world.go(waits, last)
        await world.reaches(last, "Complete")
        assert await world.reaches(waits, "Complete")
        assert ran(program) == uuids(runs, waits, last)


async def test_a_value_that_is_not_understood_stops_no_other(world: World) -> None:
    """Neither one that is broken, nor one of a state that a later Arvados may have."""
    sandbox, uuid = world.stack.sandbox, "zzzzz-dz642-{:015d}".format
    paused = {"uuid": uuid(4), "state": "Paused", "priority": f"{2**70}"}
    broken = [b"{", b'{"uuid": 1}', b'{"state": "Queued", "priority": "high"}']
    async with (
        world.dispatcher() as program,
        nats_client.connect(
            [sandbox.nats.url], name="test", seed=sandbox.seed("publisher")
        ) as nats,
    ):
        await program.says("caught up", within=WITHIN)
        for number, value in enumerate([*broken, json.dumps(paused).encode()], 1):
            await nats.publish(f"{subjects.QUEUE}.{uuid(number)}", value)
        await program.says("left out", len(broken), WITHIN)
        wanted = await world.wanted(700)
        world.go(wanted)
        await world.reaches(wanted, "Complete")
        assert not program.times(f"not locked: {uuid(4)}")
        await program.until(lambda: ran(program) == uuids(wanted), "runs it")


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
