# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which containers have a log to publish, read from a database that Arvados' rules have written."""

from __future__ import annotations

from datetime import timedelta

import pytest

from publishers.container_logs import containers
from publishers.container_logs.containers import Container
from publishers.postgres.database import Database
from sandbox.cluster import Cluster
from sandbox.model.records import Record

HOUR = timedelta(hours=1)


@pytest.fixture
async def request_(cluster: Cluster) -> Record:
    """A committed container request of an ordinary user, with two attempts."""
    alice = await cluster.user("alice")
    return await cluster.container_request("work", owner=alice, container_count_max=2)


async def uuid_of(cluster: Cluster, request: Record) -> str:
    return (await cluster.container_of(request)).uuid


async def only(found: list[Container]) -> Container:
    (container,) = found
    return container


async def test_life_of_a_container(cluster: Cluster, reader: Database, request_: Record) -> None:
    """Queued it is nobody's, running it is alive, then ended with what was saved."""
    uuid = await uuid_of(cluster, request_)
    assert await containers.alive(reader) == []
    await cluster.run(request_)
    running = await only(await containers.alive(reader))
    assert (running.uuid, running.live, running.final) == (uuid, True, False)
    assert (running.request_uuid, running.saved_bytes) == (request_.uuid, None)
    await cluster.write_log(request_, "stdout.txt", b"0123456789")
    await cluster.write_log(request_, "stderr.txt", b"01234")
    await cluster.finish(request_, exit_code=3)
    assert await containers.alive(reader) == []
    ended = await only(await containers.ended(reader, HOUR))
    assert (ended.uuid, ended.final, ended.exit_code) == (uuid, True, 3)
    assert (ended.saved_bytes, ended.started) == (15, True)
    assert ended.log is not None and ended.ended_at is not None


async def test_container_without_gateway_is_not_live(
    cluster: Cluster, reader: Database, request_: Record
) -> None:
    """Its log comes from Keep, at checkpoints."""
    await cluster.run(request_, gateway=None)
    assert not (await only(await containers.alive(reader))).live


async def test_what_ended_long_ago_is_left_alone(
    cluster: Cluster, reader: Database, request_: Record
) -> None:
    """Also when somebody changes its row now."""
    uuid = await uuid_of(cluster, request_)
    await cluster.run(request_)
    await cluster.finish(request_)
    await cluster.pool.execute(
        "UPDATE containers SET finished_at = finished_at - interval '2 hours' WHERE uuid = $1", uuid
    )
    assert await containers.ended(reader, HOUR) == []
    assert [c.uuid for c in await containers.by_uuid(reader, [uuid])] == [uuid]


async def test_unknown_containers_are_left_out(reader: Database) -> None:
    """A forged event may name anything."""
    assert await containers.by_uuid(reader, ["zzzzz-dz642-000000000000000"]) == []


async def retried(cluster: Cluster, request: Record) -> tuple[str, str]:
    """The first container, which was cancelled, and the one in its place."""
    first = await uuid_of(cluster, request)
    await cluster.run(request)
    await cluster.cancel(request)
    second = await uuid_of(cluster, request)
    assert first != second
    return first, second


async def test_request_of_a_retried_container(
    cluster: Cluster, reader: Database, request_: Record
) -> None:
    """It is found in what the API server logged when it moved the request."""
    first, second = await retried(cluster, request_)
    old = await only(await containers.by_uuid(reader, [first]))
    assert old.request_uuid is None
    assert await containers.former_request(reader, old) == request_.uuid
    new = await only(await containers.by_uuid(reader, [second]))
    assert new.request_uuid == request_.uuid


async def test_nobody_can_forge_the_request_of_a_container(
    cluster: Cluster, reader: Database, request_: Record
) -> None:
    """A log row that a user posts is not believed: its log could be anything."""
    mallory = await cluster.user("mallory")
    own = await cluster.container_request("mine", owner=mallory)
    first = await uuid_of(cluster, request_)
    await cluster.run(request_)
    properties = {"old_attributes": {"container_uuid": first}, "new_attributes": {}}
    await cluster.log(mallory, object_uuid=own.uuid, event_type="update", properties=properties)
    await cluster.cancel(request_)
    old = await only(await containers.by_uuid(reader, [first]))
    assert await containers.former_request(reader, old) == request_.uuid


@pytest.mark.parametrize(
    "properties", ["not JSON {}", "[]", '{{"old_attributes": "{}"}}', "null {}"]
)
async def test_rows_that_can_not_be_read(
    cluster: Cluster, reader: Database, request_: Record, properties: str
) -> None:
    """Old YAML and rubbish that names the container are passed over."""
    first, _ = await retried(cluster, request_)
    await cluster.pool.execute(
        "UPDATE logs SET properties = $1 WHERE object_uuid = $2",
        properties.format(first) + " " + first,
        request_.uuid,
    )
    old = await only(await containers.by_uuid(reader, [first]))
    assert await containers.former_request(reader, old) is None


async def test_several_requests_of_one_container(
    cluster: Cluster, reader: Database, request_: Record
) -> None:
    """One that is still committed is taken, so that its log collection is the newest."""
    uuid = await uuid_of(cluster, request_)
    await cluster.run(request_)
    other = await cluster.container_request("same", owner=await cluster.user("bob"))
    await cluster.pool.execute(
        "UPDATE container_requests SET container_uuid = $1 WHERE uuid = $2", uuid, other.uuid
    )
    await cluster.pool.execute(
        "UPDATE container_requests SET state = 'Final' WHERE uuid = $1", request_.uuid
    )
    assert (await only(await containers.alive(reader))).request_uuid == other.uuid
