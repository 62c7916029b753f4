# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The dispatch queue as its readers have it: an admin's NATS client, and `watch queue`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats as nats_py
import pytest

from arvados_nats.contract import queue_entries, streams, subjects
from arvados_nats.contract.queue_entries import QueueEntry
from arvados_nats.errors import Unavailable
from sandbox.model.actors import Actor
from sandbox.model.records import random_name
from sandbox.stack import Stack
from tests.support.clients.native import connected
from tests.support.clients.native_answers import eventually
from tests.support.clients.terminal_command import Command, environment, started

QUEUE = streams.QUEUE


@pytest.fixture(scope="module")
def stack(own_stack: Stack) -> Stack:
    """Of this file alone: the whole queue is read, and thousands wait in it."""
    return own_stack


@pytest.fixture
async def admin(stack: Stack) -> Actor:
    return await stack.sandbox.cluster.user("boss", admin=True)


@pytest.fixture
async def alice(stack: Stack) -> Actor:
    return await stack.sandbox.cluster.user("alice")


async def test_a_library_watches_the_bucket(stack: Stack, admin: Actor, alice: Actor) -> None:
    """nats-py as it is: the whole queue, then each state of a container, then its deletion."""
    cluster = stack.sandbox.cluster
    waiting = await cluster.container_request(owner=alice)
    connection = await nats_py.connect(
        stack.sandbox.nats.url,
        token=admin.token,
        inbox_prefix=subjects.inbox_prefix(admin.token_uuid or "").encode(),
    )
    try:
        bucket = await connection.jetstream().key_value("ARVADOS_QUEUE")
        watcher = await bucket.watchall()
        states: dict[str, list[Any]] = {}

        async def follow() -> None:
            async for entry in watcher:
                if entry is None:
                    continue
                found = states.setdefault(entry.key, [])
                found.append(json.loads(entry.value)["state"] if entry.value else entry.operation)

        following = asyncio.create_task(follow())
        await eventually(lambda: _value(states.get(waiting["container_uuid"])))
        request = await cluster.container_request(owner=alice)
        container = await cluster.run(request)
        await eventually(lambda: _value("Running" in states.get(container.uuid, ())))
        await cluster.finish(request)
        await eventually(lambda: _value("DEL" in states.get(container.uuid, ())))
        following.cancel()
        entry = await bucket.get(waiting["container_uuid"])
        assert json.loads(entry.value or b"")["state"] == "Queued"
    finally:
        await connection.close()


async def _value(value: object) -> object:
    return value


@pytest.mark.parametrize(
    "subject",
    [
        "$KV.ARVADOS_QUEUE.zzzzz-dz642-000000000000001",
        f"$JS.API.STREAM.PURGE.{QUEUE}",
        f"$JS.API.STREAM.DELETE.{QUEUE}",
        f"$JS.API.STREAM.UPDATE.{QUEUE}",
        f"$JS.API.STREAM.MSG.DELETE.{QUEUE}",
    ],
)
async def test_an_admin_writes_nothing(
    stack: Stack, admin: Actor, subject: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the keys nor the stream behind them: the server refuses."""
    async with connected(stack, admin) as client:
        with pytest.raises(Unavailable):
            await client.nats.request(subject, b"{}", timeout=0.5)
    assert "permissions violation" in " ".join(
        str(getattr(record, "error", "")).lower() for record in caplog.records
    )


async def test_users_see_no_queue(stack: Stack, alice: Actor) -> None:
    """In their account there is neither the bucket nor what it republishes."""
    async with connected(stack, alice) as client:
        await client.listen(f"{subjects.STORED_QUEUE}.>")
        with pytest.raises(Unavailable):
            await client.nats.request(f"$JS.API.STREAM.INFO.{QUEUE}", timeout=0.5)
        await stack.sandbox.cluster.container_request(owner=alice)
        async with connected(stack, alice):
            assert not client.heard


def records(command: Command) -> list[dict[str, Any]]:
    """The JSON lines that a command has printed, as far as they are whole."""
    whole = bytes(command.out).rpartition(b"\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


async def test_watch_queue(stack: Stack, admin: Actor, alice: Actor, tmp_path: Path) -> None:
    """What is there first, then every change, also over a restart of the NATS server."""
    cluster = stack.sandbox.cluster
    first = await cluster.container_request(owner=alice, runtime_constraints={"vcpus": 3, "ram": 5})
    env = environment(stack, admin, tmp_path)
    arguments = ("watch", "queue", "--json", "--nats", stack.sandbox.nats.url)
    async with started(*arguments, env=env) as command, _lines(stack, env) as lines:
        await command.shows(first["container_uuid"].encode())
        second = await cluster.container_request(owner=alice)
        for watcher in (command, lines):  # who never saw it is not told that it is gone
            await watcher.shows(second["container_uuid"].encode())
        container = await cluster.run(second)
        await eventually(lambda: _value(_last(command, container.uuid).get("state") == "Running"))
        await stack.sandbox.nats.restart()
        await cluster.finish(second)
        await eventually(lambda: _value(_last(command, container.uuid).get("gone")), within=60)
        await lines.shows(f"{container.uuid}  gone".encode())
    assert f"{first['container_uuid']}  Queued   priority 500  vcpus=3 ram=5" in lines.out.decode()
    assert _last(command, first["container_uuid"])["runtime_constraints"]["vcpus"] == 3
    states = [one.get("state") for one in records(command) if one["uuid"] == container.uuid]
    assert states == sorted(states, key=["Queued", "Locked", "Running", None].index)


def _last(command: Command, uuid: str) -> dict[str, Any]:
    return next((one for one in reversed(records(command)) if one["uuid"] == uuid), {})


def _lines(stack: Stack, env: dict[str, str]) -> Any:
    return started("watch", "queue", "--nats", stack.sandbox.nats.url, env=env)


async def test_watch_queue_is_for_administrators(
    stack: Stack, alice: Actor, tmp_path: Path
) -> None:
    """Others are told so."""
    env = environment(stack, alice, tmp_path)
    async with _lines(stack, env) as command:
        assert await command.end() == 1
    assert "only administrators" in command.said


@pytest.fixture
async def entries(stack: Stack, admin: Actor) -> AsyncIterator[Any]:
    """Reads the bucket as it is now."""
    async with connected(stack, admin) as client:

        async def read() -> dict[str, QueueEntry]:
            found = {}
            async for message in client.nats.history(QUEUE, f"{subjects.QUEUE}.>"):
                entry = queue_entries.decode(message.headers, message.data)
                if entry is not None:
                    found[entry.uuid] = entry
            return found

        yield read


_MANY = """
INSERT INTO containers (uuid, owner_uuid, created_at, modified_at, updated_at, state, priority,
    runtime_constraints, scheduling_parameters, lock_count)
SELECT 'zzzzz-dz642-' || $1 || lpad(n::text, 11, '0'), 'zzzzz-tpzed-000000000000000', now(), now(),
    now(), 'Queued', n * (1::bigint << 42), '{"vcpus": 1, "ram": 1000000}', '{}', 0
FROM generate_series(1, 3000) AS n
"""
_SOME_CANCELLED = """
UPDATE containers SET state = 'Cancelled', modified_at = clock_timestamp() WHERE uuid IN (SELECT
    uuid FROM containers WHERE uuid LIKE 'zzzzz-dz642-' || $1 || '%' AND state = 'Queued' LIMIT 150)
"""


async def test_thousands_with_the_publisher_killed_twice(stack: Stack, entries: Any) -> None:
    """Queued and cancelled while the process is killed and started again: none is left over."""
    publishers = stack.services["publishers"]
    pool, name = stack.sandbox.cluster.pool, random_name(4)

    async def count() -> int:
        return sum(f"-{name}" in uuid for uuid in await entries())

    async def at_least(least: int) -> bool:
        return await count() >= least

    before = await entries()
    await pool.execute(_MANY, name)
    await eventually(lambda: at_least(1), within=60)
    await publishers.kill()
    await publishers.start()
    await eventually(lambda: at_least(3000), within=60)
    for number in range(20):
        await pool.execute(_SOME_CANCELLED, name)
        if number == 8:
            await publishers.kill()
            await publishers.start()

    async def none_left() -> bool:
        return await count() == 0

    await eventually(none_left, within=60)
    assert await entries() == before
