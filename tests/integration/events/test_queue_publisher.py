# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The bucket ARVADOS_QUEUE holds what the database says, whatever happens on the way."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from arvados_nats.contract import queue_entries, streams, subjects
from arvados_nats.contract.queue_entries import QueueEntry
from arvados_nats.nats.acks import JetStreamError
from arvados_nats.nats.client import Message
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import Database
from tests.support.worlds.queue import QueueWorld, eventually, world


@pytest.fixture
async def here(
    database: Database, fresh_nats: NatsServer, keys_folder: Path
) -> AsyncIterator[QueueWorld]:
    async with world(database, fresh_nats, keys_folder) as made:
        yield made


async def test_the_life_of_a_container(here: QueueWorld) -> None:
    """Queued, Locked, Running, and gone: each seen by a watcher in order, with all fields."""
    cluster = here.cluster
    seen: list[QueueEntry | None] = []

    async def hear(message: Message) -> None:
        seen.append(queue_entries.decode(message.headers, message.data))

    async with here.publishing():
        await eventually(here.equal, "the empty queue is there")
        await here.nats.subscribe(f"{subjects.STORED_QUEUE}.>", hear)
        request, uuid = await here.request(priority=7, runtime_constraints={"vcpus": 2, "ram": 9})
        await eventually(lambda: here.entry(uuid), "it is queued")
        container = await cluster.run(request)
        await eventually(lambda: _is(here, uuid, "Running"), "it runs")
        await cluster.finish(request)
        await eventually(lambda: _is(here, uuid, None), "it is gone")
        assert await here.equal()
    states = [entry.state if entry else None for entry in seen]
    assert states[0] == "Queued" and states[-1] is None
    assert [s for s in ("Queued", "Locked", "Running", None) if s in states] == sorted(
        dict.fromkeys(states), key=lambda s: ["Queued", "Locked", "Running", None].index(s)
    )
    entry = next(entry for entry in seen if entry and entry.state == "Running")
    assert entry.uuid == container.uuid
    assert int(entry.priority) > 2**52
    assert entry.runtime_constraints["vcpus"] == 2
    assert entry.lock_count == 1
    assert entry.locked_by_uuid and entry.auth_uuid and entry.started_at and entry.modified_at


async def _is(here: QueueWorld, uuid: str, state: str | None) -> bool:
    entry = await here.entry(uuid)
    return (entry.state if entry else None) == state


async def test_what_leaves_no_row_is_found_by_looking(here: QueueWorld) -> None:
    """A priority written by raw SQL, with no event and no new modified_at, within the scan."""
    _, uuid = await here.request()
    async with here.publishing(scan=0.3, hints=False):
        await eventually(here.equal, "it is queued")
        async with here.cluster.pool.acquire() as connection:
            await connection.execute(
                "UPDATE containers SET priority = $2 WHERE uuid = $1", uuid, 2**61 + 1
            )
        await eventually(here.equal, "the priority is there")
        entry = await here.entry(uuid)
        assert entry is not None
        assert entry.priority == str(2**61 + 1)


async def test_an_event_is_acted_on_at_once(here: QueueWorld) -> None:
    """The scan is far away; the event of the lock names the container."""
    request, uuid = await here.request()
    async with here.publishing(scan=60):
        await eventually(here.equal, "it is queued")
        await here.cluster.run(request)
        await eventually(lambda: _is(here, uuid, "Running"), "it runs", within=60)


async def test_forged_rows_change_nothing(here: QueueWorld) -> None:
    """A posted row about a container that claims another state, or that it is gone."""
    _, uuid = await here.request()
    mallory = await here.cluster.user("mallory")
    async with here.publishing(scan=0.2):
        await eventually(here.equal, "it is queued")
        before = await here.bucket()
        for event_type in ("update", "delete", "create"):
            properties = {"new_attributes": {"uuid": uuid, "state": "Complete", "priority": 0}}
            await here.cluster.log(
                mallory, object_uuid=uuid, event_type=event_type, properties=properties
            )
        await here.cluster.log(
            mallory, object_uuid="zzzzz-dz642-000000000000001", event_type="create", properties={}
        )
        _, second = await here.request()
        await eventually(lambda: here.entry(second), "the next one is there")
        after = await here.bucket()
        assert after.pop(second)
        assert after == before


async def test_a_bucket_that_somebody_changed_is_mended(here: QueueWorld) -> None:
    """Keys that were put, deleted or are no container: the publisher makes them right."""
    _, first = await here.request()
    await here.request()
    async with here.publishing():
        await eventually(here.equal, "both are queued")
        await here.nats.publish(queue_entries.subject(first), b"", headers={"KV-Operation": "DEL"})
        await here.nats.publish(queue_entries.subject("zzzzz-dz642-000000000000001"), b"{}")
        await eventually(here.equal, "it is as the database says", within=60)
        await here.nats.js_api(f"STREAM.PURGE.{streams.QUEUE}", {})
        await here.request()  # the next write shows it sooner
        await eventually(here.equal, "it is as the database says again", within=60)


async def test_two_publishers_and_one_queue(here: QueueWorld) -> None:
    """One leads; when it ends the other goes on, and no key is written twice for nothing."""
    async with here.publishing():
        await eventually(here.equal, "the empty queue is there")
        async with here.publishing(hints=False):
            await here.request()
            await eventually(here.equal, "it is queued")
    async with here.publishing(hints=False):
        await here.request()
        await eventually(here.equal, "so is the next")
        info = await here.nats.stream_info(streams.QUEUE)
        assert info is not None
        assert info["state"]["last_seq"] <= 4


async def test_nats_and_postgresql_go_and_come_back(here: QueueWorld) -> None:
    """What changed while NATS was away is there when it is back; a restart of either is no end."""
    request, uuid = await here.request()
    async with here.publishing():
        await eventually(here.equal, "it is queued")
        await here.server.stop()
        await here.cluster.run(request)
        _, later = await here.request()
        await here.server.start()
        await eventually(here.equal, "the queue has caught up", within=60)
        assert await _is(here, uuid, "Running")
        assert await _is(here, later, "Queued")


async def test_deletions_do_not_stay_for_ever(here: QueueWorld) -> None:
    """A deleted key is a message that expires, so the bucket does not grow with each container."""
    request, uuid = await here.request()
    async with here.publishing():
        await eventually(here.equal, "it is queued")
        await here.cluster.cancel_request(request, by=here.alice)
        await here.cluster.cancel(request)
        await eventually(lambda: _is(here, uuid, None), "it is gone")
        stored = await here.nats.last(streams.QUEUE, queue_entries.subject(uuid))
        assert stored is not None
        assert stored.headers["KV-Operation"] == "DEL"
        assert stored.headers["Nats-TTL"] == "1h"


async def test_the_bucket_refuses_what_no_client_may_do(here: QueueWorld) -> None:
    """It is a bucket as clients know it: one value a key, and messages cannot be deleted."""
    async with here.publishing():
        await eventually(here.equal, "the empty queue is there")
    info = await here.nats.stream_info(streams.QUEUE)
    assert info is not None
    config = info["config"]
    assert (config["max_msgs_per_subject"], config["discard"]) == (1, "new")
    with pytest.raises(JetStreamError):
        await here.nats.js_api(f"STREAM.MSG.DELETE.{streams.QUEUE}", {"seq": 1})
    assert json.dumps(config["republish"]).count("arvados.stored.queue") == 1
