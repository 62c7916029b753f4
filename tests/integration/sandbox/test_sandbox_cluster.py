# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What tests, demo and benchmarks tell the pretend cluster to do, and what a reader then sees.

Most tests look at the log rows and NOTIFYs, because those and the tables are all that the
publishers have; above all at what changes without them (docs/facts/arvados.md 0, 1, 9).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import msgspec
import pytest

from sandbox import bulk
from sandbox.cluster import Cluster
from sandbox.model import records
from sandbox.model.actors import Actor
from sandbox.model.derived import permission_table
from sandbox.model.records import Record
from sandbox.model.refusal import Refusal
from sandbox.servers.postgres import Database


class Channel:
    """What LISTEN logs hears."""

    def __init__(self) -> None:
        self._heard: asyncio.Queue[int] = asyncio.Queue()

    def hear(self, *told: object) -> None:
        """Callback of asyncpg; the last of its arguments is the payload."""
        self._heard.put_nowait(int(str(told[-1])))

    async def next(self, count: int = 1) -> list[int]:
        """The next ids, waiting for them."""
        async with asyncio.timeout(60):
            return [await self._heard.get() for _ in range(count)]

    def silent(self) -> bool:
        """Whether everything that was heard has been taken."""
        return self._heard.empty()


@pytest.fixture
async def channel(database: Database) -> AsyncIterator[Channel]:
    """A listener on the channel of the cluster's database."""
    heard = Channel()
    connection = await asyncpg.connect(database.dsn)
    await connection.add_listener("logs", heard.hear)
    yield heard
    await connection.close()


@pytest.fixture
async def alice(cluster: Cluster) -> Actor:
    """An active user."""
    return await cluster.user("alice")


@pytest.fixture
async def bob(cluster: Cluster) -> Actor:
    """Another active user."""
    return await cluster.user("bob")


async def _logs(cluster: Cluster, after: int) -> list[tuple[str, str]]:
    rows = await cluster.pool.fetch(
        "SELECT event_type, object_uuid FROM logs WHERE id > $1 ORDER BY id", after
    )
    return [(row[0], row[1]) for row in rows]


async def _last(cluster: Cluster) -> int:
    found: int = await cluster.pool.fetchval("SELECT max(id) FROM logs")
    return found


async def _may_read(cluster: Cluster, actor: Actor, record: Record) -> bool:
    async with cluster.unit(actor) as unit:
        return await unit.readable(record.kind.name, record.uuid)


async def test_a_write_is_told_once_when_it_is_committed(
    cluster: Cluster, channel: Channel, alice: Actor, bob: Actor
) -> None:
    """Nothing is heard before the commit; a rollback leaves a gap and is never heard."""
    await channel.next(await _last(cluster) - 16)
    async with cluster.transaction() as late:
        held = await late.project("late", owner=alice)
        soon = await cluster.collection("soon", owner=bob)
        first = await channel.next()
        assert channel.silent()
    second = await channel.next()

    rows = {row["id"]: row["object_uuid"] for row in await cluster.pool.fetch("SELECT * FROM logs")}
    assert [rows[first[0]], rows[second[0]]] == [soon.uuid, held.uuid]
    assert second < first
    with pytest.raises(RuntimeError):
        async with cluster.transaction() as lost:
            await lost.project("lost", owner=alice)
            raise RuntimeError
    await cluster.collection("after", owner=bob)
    assert await channel.next() == [first[0] + 2]


async def test_sharing_and_unsharing_move_one_user(
    cluster: Cluster, alice: Actor, bob: Actor
) -> None:
    """A link gives access to the project and all below it, its removal takes it away."""
    project = await cluster.project("reef", owner=alice)
    inner = await cluster.project("deep", owner=project, by=alice)
    data = await cluster.collection("data", owner=inner, by=alice)
    assert not await _may_read(cluster, bob, data)

    link = await cluster.share(project, bob)
    assert await _may_read(cluster, bob, data)

    last = await _last(cluster)
    await cluster.unshare(project, bob)
    assert not await _may_read(cluster, bob, data)
    assert await _logs(cluster, last) == [("delete", link.uuid)]


async def test_moving_a_project_moves_its_readers(
    cluster: Cluster, alice: Actor, bob: Actor
) -> None:
    """One row for the project, none for what is below."""
    shared = await cluster.project("shared", owner=alice)
    private = await cluster.project("private", owner=alice)
    inner = await cluster.project("inner", owner=private, by=alice)
    await cluster.share(shared, bob)
    last = await _last(cluster)

    await cluster.move(private, shared, by=alice)

    assert await _may_read(cluster, bob, inner)
    assert await _logs(cluster, last) == [("update", private.uuid)]


async def test_a_role_carries_its_members(cluster: Cluster, alice: Actor, bob: Actor) -> None:
    """What is shared with a role is shared with its members, as long as they are."""
    project = await cluster.project("reef", owner=alice)
    role = await cluster.role("analysts", bob)
    await cluster.share(project, role, "can_write", by=alice)
    assert await _may_read(cluster, bob, project)

    await cluster.unshare(role, bob)
    assert not await _may_read(cluster, bob, project)


async def test_a_trash_time_passes_without_a_row(
    cluster: Cluster, alice: Actor, bob: Actor
) -> None:
    """Readers lose it at that instant; the sweep logs the project later."""
    project = await cluster.project("reef", owner=alice)
    await cluster.share(project, bob)
    await cluster.expire(project, records.now() + timedelta(seconds=0.4))
    last = await _last(cluster)
    assert await _may_read(cluster, bob, project)

    await asyncio.sleep(0.45)
    assert not await _may_read(cluster, bob, project)
    assert await _logs(cluster, last) == []

    await cluster.sweep()
    assert await _logs(cluster, last) == [("update", project.uuid)]


async def test_logout_leaves_no_row(cluster: Cluster, channel: Channel, alice: Actor) -> None:
    """The token is refused at once, and nothing was logged or told."""
    last = await _last(cluster)
    assert (await cluster.authenticate(alice.token)).uuid == alice.uuid

    await cluster.logout(alice)

    with pytest.raises(Refusal) as refused:
        await cluster.authenticate(alice.token)
    assert refused.value.status == 401
    assert await _logs(cluster, last) == []


async def test_deactivation_takes_tokens_and_links(
    cluster: Cluster, alice: Actor, bob: Actor
) -> None:
    """Each is logged, then the user; every user goes on seeing them through All users."""
    project = await cluster.project("reef", owner=alice)
    link = await cluster.share(project, bob)
    second = await cluster.token(bob)
    last = await _last(cluster)

    await cluster.deactivate(bob)

    rows = await _logs(cluster, last)
    assert rows[-1] == ("update", bob.uuid)
    gone = {bob.token_uuid, second.token_uuid, link.uuid}
    assert {("delete", uuid) for uuid in gone} <= set(rows)
    with pytest.raises(Refusal):
        await cluster.authenticate(second.token)


async def test_a_request_runs_to_its_end(cluster: Cluster, alice: Actor) -> None:
    """Queued, Locked, Running, checkpoint, Complete; the request Final with output and log."""
    project = await cluster.project("reef", owner=alice)
    request = await cluster.container_request("run", owner=project, by=alice)
    queued = await cluster.container_of(request)
    assert (queued["state"], queued["priority"] > 2**53) == ("Queued", True)

    running = await cluster.run(request)
    assert (running["state"], running["lock_count"]) == ("Running", 1)
    await cluster.write_log(request, "stdout.txt", b"hello\n")
    await cluster.progress(request, 0.5, activity="half way")
    saved = await cluster.checkpoint(request)
    assert (await cluster.reload(request))["log_uuid"]
    await cluster.write_log(request, "stdout.txt", b"world\n")
    done = await cluster.finish(request, exit_code=3, cost=0.25)

    final = await cluster.reload(request)
    assert (done["state"], done["exit_code"], done["auth_uuid"]) == ("Complete", 3, None)
    assert (final["state"], final["cumulative_cost"]) == ("Final", 0.25)
    assert done["log"] != saved["log"]
    log = await cluster.reload(final["log_uuid"])
    assert "0:12:stdout.txt" in log["manifest_text"]
    assert log["owner_uuid"] == project.uuid


async def test_priority_changes_leave_no_container_row(cluster: Cluster, alice: Actor) -> None:
    """The create row shows 0, and a user's cancel only changes the request's row."""
    request = await cluster.container_request("run", owner=alice)
    container = await cluster.container_of(request)
    text = await cluster.pool.fetchval(
        "SELECT properties FROM logs WHERE object_uuid = $1", container.uuid
    )
    assert msgspec.json.decode(text)["new_attributes"]["priority"] == 0
    last = await _last(cluster)

    await cluster.cancel_request(request, by=alice)

    assert (await cluster.container_of(request))["priority"] == 0
    assert await _logs(cluster, last) == [("update", request.uuid)]


async def test_trashing_a_project_stops_its_queue_silently(cluster: Cluster, alice: Actor) -> None:
    """The container's priority falls to 0 and comes back, without a row of the container."""
    project = await cluster.project("reef", owner=alice)
    request = await cluster.container_request("run", owner=project, by=alice)
    before = (await cluster.container_of(request))["priority"]
    last = await _last(cluster)

    await cluster.trash(project, alice)
    assert (await cluster.container_of(request))["priority"] == 0

    await cluster.untrash(project, alice)
    assert (await cluster.container_of(request))["priority"] == before
    assert await _logs(cluster, last) == [("update", project.uuid)] * 2


async def test_a_cancelled_container_is_tried_again(cluster: Cluster, alice: Actor) -> None:
    """Up to container_count_max; the request follows to the new container."""
    request = await cluster.container_request("run", owner=alice, container_count_max=2)
    first = await cluster.run(request)
    await cluster.cancel(request, "node died")

    second = await cluster.container_of(request)
    assert (second.uuid == first.uuid, second["state"]) == (False, "Queued")
    await cluster.run(request)
    await cluster.cancel(request)
    assert (await cluster.reload(request))["state"] == "Final"


async def test_too_many_unlocks_cancel_the_container(cluster: Cluster, alice: Actor) -> None:
    """At MaxDispatchAttempts."""
    request = await cluster.container_request("run", owner=alice, container_count_max=1)
    container = await cluster.container_of(request)
    for _ in range(cluster.config.max_dispatch_attempts):
        assert (await cluster.reload(container))["state"] == "Queued"
        await cluster.lock(container, cluster.root)
        await cluster.unlock(container, cluster.root)

    given_up = await cluster.reload(container)
    assert given_up["state"] == "Cancelled"
    assert "MaxDispatchAttempts" in given_up["runtime_status"]["error"]
    assert (await cluster.reload(request))["state"] == "Final"


async def test_a_running_container_s_own_token(cluster: Cluster, alice: Actor) -> None:
    """It acts as the user while the container runs, its requests are the container's children."""
    request = await cluster.container_request("parent", owner=alice)
    container = await cluster.run(request)
    own = await cluster.container_token(container)
    assert (own.uuid, own.container_uuid) == (alice.uuid, container.uuid)

    child = await cluster.container_request("child", owner=alice, by=own)
    assert child["requesting_container_uuid"] == container.uuid

    await cluster.finish(request)
    with pytest.raises(Refusal):
        await cluster.authenticate(own.token)
    assert (await cluster.reload(child))["state"] == "Final"


async def test_the_same_work_is_done_once(cluster: Cluster, alice: Actor, bob: Actor) -> None:
    """Two requests share a container; the end of it is the end of both."""
    work: dict[str, Any] = {"command": ["same", "work"], "use_existing": True}
    one = await cluster.container_request("one", owner=alice, **work)
    other = await cluster.container_request("other", owner=alice, **work)
    assert one["container_uuid"] == other["container_uuid"]

    await cluster.run(one)
    await cluster.write_log(one, "stdout.txt", b"secret\n")
    await cluster.finish(one)
    assert (await cluster.reload(other))["state"] == "Final"
    again = await cluster.container_request("again", owner=alice, **work)
    assert (again["state"], again["container_uuid"]) == ("Final", one["container_uuid"])
    elsewhere = await cluster.container_request("elsewhere", owner=bob, **work)
    assert elsewhere["container_uuid"] != one["container_uuid"]


async def test_anybody_can_forge_rows(cluster: Cluster, channel: Channel) -> None:
    """Any id, type and object; but not the uuid, and not as another (docs/facts/arvados.md 0.3)."""
    mallory = await cluster.user("mallory", active=False, set_up=False)
    await channel.next(await _last(cluster) - 16)

    await cluster.log(mallory, id=2**63 - 1, event_type="delete", object_uuid="bogus")
    row = await cluster.log(mallory, id=-5)

    assert await channel.next(2) == [2**63 - 1, -5]
    assert (row["event_type"], row["properties"], row["object_uuid"]) == (None, {}, None)
    uuid = cluster.config.uuid("57u5n", "000000000000abc")
    with pytest.raises(Refusal, match="Uuid assignment not permitted"):
        await cluster.log(mallory, uuid=uuid, event_type="x")
    with pytest.raises(Refusal) as refused:
        await cluster.log(mallory, owner_uuid=cluster.config.system_user)
    assert refused.value.status == 403


async def test_a_taken_id_makes_another_s_write_fail(cluster: Cluster, alice: Actor) -> None:
    """422 for the victim, whose whole write is undone."""
    await cluster.log(alice, id=await _last(cluster) + 1, event_type="trap")

    with pytest.raises(Refusal, match="RecordNotUnique") as refused:
        await cluster.project("victim", owner=alice)
    assert refused.value.status == 422
    assert await cluster.pool.fetchval("SELECT true FROM groups WHERE name = 'victim'") is None


async def test_merging_users_leaves_one_row(cluster: Cluster, alice: Actor, bob: Actor) -> None:
    """What the one had is the other's; their token acts as the other."""
    project = await cluster.project("reef", owner=bob)
    last = await _last(cluster)

    await cluster.merge_users(bob, alice, cluster.root, owner=alice, redirect=True)

    assert await _logs(cluster, last) == [("update", bob.uuid)]
    assert (await cluster.reload(project))["owner_uuid"] == alice.uuid
    assert (await cluster.authenticate(bob.token)).uuid == alice.uuid


async def test_a_user_with_belongings_is_not_deleted(cluster: Cluster, alice: Actor) -> None:
    """Not even one who only caused log rows (docs/facts/arvados.md 9)."""
    newcomer = await cluster.create("users", {"email": "new@example.com"}, cluster.root)
    await cluster.delete(newcomer, cluster.root)
    await cluster.log(alice, event_type="note")
    with pytest.raises(Refusal) as refused:
        await cluster.delete(alice.uuid, cluster.root)
    assert refused.value.status == 422


async def test_a_writer_of_the_graph_waits_for_the_other(
    cluster: Cluster, alice: Actor, bob: Actor
) -> None:
    """The permission table is locked until the commit (docs/facts/arvados.md 10)."""
    async with cluster.transaction() as held:
        await held.project("first", owner=alice)
        waiting = asyncio.create_task(cluster.project("second", owner=bob))
        done, _ = await asyncio.wait([waiting], timeout=0.3)
        assert not done
    second = await waiting
    assert second["name"] == "second"


async def test_a_crowd_is_like_users_made_one_by_one(cluster: Cluster, alice: Actor) -> None:
    """They see each other, can be shared with, and their tokens work."""
    crowd = await bulk.users(cluster, 20)
    project = await cluster.project("reef", owner=alice)
    await cluster.share(project, crowd[3])

    assert (await cluster.authenticate(crowd[3].token)).uuid == crowd[3].uuid
    assert await _may_read(cluster, crowd[3], project)
    assert not await _may_read(cluster, crowd[4], project)
    assert await _may_read(cluster, crowd[4], await cluster.reload(alice))


async def test_whoever_is_made_twice_is_two(cluster: Cluster) -> None:
    """A test may be run again in the same cluster: no fixed name is in its way."""
    people = [*await bulk.users(cluster, 2, "many"), *await bulk.users(cluster, 2, "many")]
    people += [await cluster.user("alice"), await cluster.user("alice")]
    roles = [await cluster.role("readers", *people) for _ in range(2)]

    assert len({actor.uuid for actor in people}) == 6
    assert await cluster.pool.fetchval("SELECT count(DISTINCT username) FROM users") >= 6
    assert len({role["name"] for role in roles}) == 2


async def test_a_queue_can_be_filled_at_once(cluster: Cluster, alice: Actor) -> None:
    """Each of the containers can be locked, run and cancelled like any other."""
    like = await cluster.container_request("first", owner=alice)
    pairs = await bulk.requests(cluster, like, 50)

    queued = "SELECT count(*) FROM containers WHERE state = 'Queued' AND priority > 0"
    assert await cluster.pool.fetchval(queued) == 51
    await cluster.run(pairs[7][0])
    await cluster.finish(pairs[7][1])
    assert (await cluster.reload(pairs[7][0]))["state"] == "Final"
    await cluster.cancel_request(pairs[8][0], by=alice)
    assert (await cluster.container_of(pairs[8][0]))["priority"] == 0


async def test_incremental_permissions_are_those_computed_anew(cluster: Cluster) -> None:
    """After many kinds of changes a full refresh of the table changes nothing."""
    people = [await cluster.user(f"user{n}") for n in range(4)]
    projects = [await cluster.project(f"p{n}", owner=people[n]) for n in range(4)]
    inner = await cluster.project("inner", owner=projects[0], by=people[0])
    role, staff = await cluster.role("role", people[0]), await cluster.role("staff", people[1])
    await cluster.share(staff, role)
    await cluster.share(projects[2], staff, "can_manage")
    await cluster.share(inner, cluster.config.all_users)
    await cluster.move(projects[0], projects[2], by=cluster.root)
    await cluster.unshare(role, people[0])
    await cluster.share(projects[3], people[1], "can_write")
    await cluster.share(projects[3], people[1], "can_manage")
    await cluster.move(inner, projects[3], by=cluster.root)
    await cluster.deactivate(people[2])

    query = "SELECT * FROM materialized_permissions"
    before = {tuple(row) for row in await cluster.pool.fetch(query)}
    async with cluster.transaction() as transaction:
        await permission_table.refresh(transaction.connection)
    assert {tuple(row) for row in await cluster.pool.fetch(query)} == before


async def test_a_frozen_project_is_left_alone(cluster: Cluster, alice: Actor) -> None:
    """Nobody writes in it, until its owner thaws it."""
    project = await cluster.project("reef", owner=alice)
    await cluster.update(project, {"frozen_by_uuid": alice.uuid}, alice)

    with pytest.raises(Refusal, match="because new owner is frozen"):
        await cluster.collection("x", owner=project, by=alice)

    await cluster.update(project, {"frozen_by_uuid": None}, alice)
    assert await cluster.collection("x", owner=project, by=alice)


async def test_first_requests_may_be_made_at_once(cluster: Cluster) -> None:
    """The image that they share is made once, whoever comes first."""
    owner = await cluster.user("alice")
    made = await asyncio.gather(
        *(cluster.container_request(f"r{n}", owner=owner) for n in range(6))
    )
    assert len({request["container_image"] for request in made}) == 1
