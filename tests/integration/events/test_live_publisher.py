# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The live tree of USERS: under which owners and objects a change or a log line is shown."""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from arvados_nats.contract import events, streams, subjects
from arvados_nats.contract.events import Event
from arvados_nats.contract.log_chunks import Chunk, ContainerEnd
from arvados_nats.nats.client import Message
from publishers.live import audience as live_audience
from publishers.live.cursor import Options
from publishers.postgres import object_tables
from sandbox import raw_rows
from sandbox.cluster import Cluster
from sandbox.raw_rows import new_uuid
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import Database
from tests.support.waiting import until
from tests.support.worlds.events import EventWorld, world
from tests.support.worlds.live import LiveWorld, live_publishing


@pytest.fixture
async def scene(
    cluster: Cluster, database: Database, fresh_nats: NatsServer, keys_folder: Path
) -> AsyncIterator[EventWorld]:
    """A world on the database of `cluster`, with both streams."""
    async with world(database, fresh_nats, keys_folder) as made:
        await streams.ensure(made.nats, streams.log_stream())
        await streams.ensure(made.nats, streams.event_stream())
        yield made


@pytest.fixture
async def shown(scene: EventWorld) -> AsyncIterator[LiveWorld]:
    """Both publishers at work."""
    listening = LiveWorld(scene)
    await scene.nats.subscribe(f"{subjects.LIVE}.>", listening.hear)
    async with scene.publishing(), live_publishing(scene):
        await listening.all_shown()
        yield listening


def _event(message: Message) -> Event:
    return events.decode(message.data)


async def test_a_change_is_shown_under_its_owner_and_itself(
    cluster: Cluster, shown: LiveWorld
) -> None:
    """Once, with what joins it to the stream, and nothing of the inside."""
    alice = await cluster.user("alice")
    project = await cluster.project("p", owner=alice)
    collection = await cluster.collection("c", owner=project, by=alice)
    await shown.all_shown()
    pair = f"{alice.uuid}.{project.uuid}.{collection.uuid}"
    subject = f"{pair}.event.collection.{collection.uuid}.create"
    assert shown.shown(collection.uuid) == [subject]
    (message,) = [one for one in shown.heard if one.subject.endswith(subject)]
    event = _event(message)
    assert (event.verified, event.audience, event.facts) == (
        True,
        [(project.uuid, collection.uuid)],
        {},
    )
    assert message.headers["Nats-Msg-Id"] == event.uuid
    stored = await shown.scene.nats.last(streams.EVENTS, subjects.events_of(collection.uuid))
    assert stored is not None
    assert message.headers["Nats-Sequence"] == str(stored.sequence)


async def test_only_kinds_with_a_plain_rule_are_shown(cluster: Cluster, shown: LiveWorld) -> None:
    """Users, links and tokens never; projects, requests and their containers."""
    alice = await cluster.user("alice")
    project = await cluster.project("p", owner=alice)
    await cluster.share(project, await cluster.user("bob"))
    request = await cluster.container_request("r", owner=project, by=alice)
    await cluster.run(request)
    await shown.all_shown()
    live_events = [message for message in shown.heard if ".event." in message.subject]
    kinds = {message.subject.split(".")[6] for message in live_events}
    assert kinds == {"collection", "container", "container_request", "group"}
    stored = {event.object_kind for event in await shown.scene.stored()}
    assert stored >= {"arvados#user", "arvados#link", "arvados#apiClientAuthorization"}


async def test_a_container_of_many_requests_is_shown_under_the_first_of_them(
    cluster: Cluster, shown: LiveWorld
) -> None:
    """Whoever submits the same again while it runs has one more, and each piece of its log would be
    published for each."""
    alice = await cluster.user("alice")
    first = await cluster.container_request("first", owner=alice)
    container = await cluster.container_of(first)
    await cluster.pool.execute(
        """
        INSERT INTO container_requests
        SELECT (jsonb_populate_record(first, jsonb_build_object(
            'id', nextval('container_requests_id_seq'),
            'uuid', 'zzzzz-xvhdp-' || lpad(n::text, 15, '0'),
            'created_at', first.created_at + interval '1 second'))).*
        FROM container_requests AS first, generate_series(1, 1500) AS n WHERE first.uuid = $1
        """,
        first.uuid,
    )
    await cluster.run(first)
    await shown.store(Chunk(container.uuid, "stdout.txt", 0, 0, b"line\n"))
    await shown.all_shown()
    for what in (".update", ".stdout_txt"):
        places = [
            m for m in shown.heard if container.uuid in m.subject and m.subject.endswith(what)
        ]
        assert 0 < len({message.subject for message in places}) <= live_audience.MOST_SHOWN
        assert any(first.uuid in message.subject for message in places)
    (event,) = [
        e
        for e in await shown.scene.stored()
        if e.object_uuid == container.uuid
        and (e.properties.get("new_attributes") or {}).get("state") == "Running"
    ]
    assert len(event.audience) == object_tables.MOST_REQUESTS


async def test_a_container_is_shown_under_each_of_its_requests(
    cluster: Cluster, shown: LiveWorld
) -> None:
    """Two requests of two people share a container; neither reader learns of the other."""
    alice, bob = await cluster.user("alice"), await cluster.user("bob")
    one = await cluster.container_request("one", owner=alice)
    two = await cluster.container_request("two", owner=bob)
    container = await cluster.container_of(one)
    await _point_to(shown, two.uuid, container.uuid)
    await cluster.run(one)
    await shown.all_shown()
    running = f".event.container.{container.uuid}.update"
    assert shown.places(running) == {(alice.uuid, one.uuid), (bob.uuid, two.uuid)}
    for message in shown.heard:
        if message.subject.endswith(running):
            owner, request = message.subject.split(".")[3:5]
            others = {alice.uuid, bob.uuid, one.uuid, two.uuid} - {owner, request}
            assert not [uuid for uuid in others if uuid in message.data.decode()]


async def _point_to(shown: LiveWorld, request: str, container: str) -> None:
    """Let a request be answered by a container that is there, as reuse does."""
    await shown.scene.admin.execute(
        "UPDATE container_requests SET container_uuid = $1 WHERE uuid = $2", container, request
    )


async def test_log_lines_are_shown_under_the_request_and_follow_it(
    cluster: Cluster, shown: LiveWorld
) -> None:
    """After the request has moved, its lines are shown under the new owner and not the old one."""
    alice = await cluster.user("alice")
    first, second = [await cluster.project(name, owner=alice) for name in ("a", "b")]
    request = await cluster.container_request("r", owner=first, by=alice)
    container = await cluster.run(request)
    chunk = Chunk(container.uuid, "stdout.txt", 0, 0, b"one\n")
    await shown.store(chunk)
    await shown.all_shown()
    tail = f".log.{container.uuid}.stdout_txt"
    assert shown.places(tail) == {(first.uuid, request.uuid)}
    (message,) = [one for one in shown.heard if one.subject.endswith(tail)]
    assert message.data == b"one\n"
    assert {**chunk.headers}.items() <= dict(message.headers).items()

    shown.heard.clear()
    await cluster.move(request, second)
    await shown.all_shown()
    await shown.store(Chunk(container.uuid, "stdout.txt", 0, 4, b"two\n"))
    await shown.all_shown()
    assert shown.places(tail) == {(second.uuid, request.uuid)}


async def test_a_retry_ends_what_is_shown_of_the_old_container(
    cluster: Cluster, shown: LiveWorld
) -> None:
    """The request points to the new container then; the old one belongs to nobody."""
    alice = await cluster.user("alice")
    request = await cluster.container_request("r", owner=alice, container_count_max=3, priority=500)
    old = await cluster.run(request)
    await shown.store(Chunk(old.uuid, "stdout.txt", 0, 0, b"old\n"))
    await shown.all_shown()
    assert shown.places(f".log.{old.uuid}.stdout_txt") == {(alice.uuid, request.uuid)}
    await cluster.cancel(request)
    new = await cluster.container_of(request)
    assert new.uuid != old.uuid
    shown.heard.clear()
    await shown.all_shown()
    await shown.store(
        Chunk(old.uuid, "stdout.txt", 0, 4, b"late\n"),
        Chunk(new.uuid, "stdout.txt", 0, 0, b"new\n"),
        ContainerEnd(new.uuid, "Complete", 0, {}),
    )
    await shown.all_shown()
    assert shown.places(f".log.{old.uuid}.stdout_txt") == set()
    assert shown.places(f".log.{new.uuid}.stdout_txt") == {(alice.uuid, request.uuid)}
    assert shown.places(f".log.{new.uuid}.end") == {(alice.uuid, request.uuid)}


async def test_a_project_in_the_trash_hides_its_requests(
    cluster: Cluster, shown: LiveWorld
) -> None:
    """Requests, containers and logs are hidden, collections are not; untrash brings them back."""
    alice = await cluster.user("alice")
    project = await cluster.project("p", owner=alice)
    request = await cluster.container_request("r", owner=project, by=alice)
    collection = await cluster.collection("c", owner=project, by=alice)
    container = await cluster.run(request)
    await cluster.trash(project, alice)
    await shown.all_shown()
    shown.heard.clear()
    await cluster.progress(request, 0.5)
    await shown.store(Chunk(container.uuid, "stdout.txt", 0, 0, b"hidden\n"))
    await shown.scene.insert(raw_rows.row(collection.uuid), raw_rows.row(request.uuid))
    await shown.all_shown()
    assert not shown.shown(container.uuid)
    assert not shown.shown(request.uuid)
    assert shown.places(f".{collection.uuid}.update") == {(project.uuid, collection.uuid)}
    await cluster.untrash(project, alice)
    await shown.all_shown()
    await cluster.progress(request, 0.7)
    await shown.all_shown()
    assert shown.places(f".{container.uuid}.update") == {(project.uuid, request.uuid)}


@pytest.mark.parametrize(
    "owner", ["a.b", ">", "*", "zzzzz-tpzed-aaaaaaaaaaaaaaa.>", " ", "ö", None]
)
async def test_a_posted_owner_that_is_none_opens_no_subject(
    shown: LiveWorld, owner: str | None
) -> None:
    """A delete of an object that never was, with an owner that is a piece of a subject."""
    gone = new_uuid("4zz18")
    await shown.scene.insert(raw_rows.row(gone, event_type="delete", object_owner_uuid=owner))
    await shown.all_shown()
    assert not shown.shown(gone)
    assert shown.scene.health.error is None


async def test_what_a_user_posted_is_shown_and_marked(cluster: Cluster, shown: LiveWorld) -> None:
    """To the readers of the object that the database names, whatever owner the row claims."""
    alice, mallory = await cluster.user("alice"), await cluster.user("mallory")
    collection = await cluster.collection("c", owner=alice)
    posted = raw_rows.row(
        collection.uuid,
        properties=json.dumps({"new_attributes": {"name": "forged"}}),
        object_owner_uuid=mallory.uuid,
    )
    await shown.scene.insert(posted)
    await shown.all_shown()
    (message,) = [one for one in shown.heard if one.headers.get("Nats-Msg-Id") == posted.uuid]
    assert message.subject.startswith(f"arvados.live.{alice.uuid}.{alice.uuid}.{collection.uuid}.")
    assert not _event(message).verified


async def test_bytes_that_are_no_log_are_left_out(cluster: Cluster, shown: LiveWorld) -> None:
    """A container may publish what it likes below its own subject."""
    alice = await cluster.user("alice")
    request = await cluster.container_request("r", owner=alice)
    container = await cluster.run(request)
    subject = subjects.log(container.uuid, "stdout.txt")
    await (await shown.scene.nats.publish_stored(subject, b"no headers", {}))
    await shown.all_shown()
    assert not [one for one in shown.heard if one.data == b"no headers"]
    assert shown.scene.health.error is None


async def _insert(scene: EventWorld, count: int) -> list[str]:
    """Deletes of collections that never were: shown under the system user."""
    rows = [raw_rows.row(new_uuid("4zz18"), event_type="delete") for _ in range(count)]
    for start in range(0, count, 20):
        await scene.insert(*rows[start : start + 20])
    return [str(row.uuid) for row in rows]


async def _heard(listening: LiveWorld, row_uuid: str) -> bool:
    return row_uuid in _ids(listening.heard)


def _ids(heard: Sequence[Message]) -> list[str]:
    return [message.headers["Nats-Msg-Id"] for message in heard]


def _shown_of(wanted: list[str], listening: LiveWorld) -> list[str]:
    """Those of `wanted` that were shown, each where it was shown first."""
    return [uuid for uuid in dict.fromkeys(_ids(listening.heard)) if uuid in set(wanted)]


async def test_the_next_live_publisher_goes_on_where_the_last_one_stopped(
    scene: EventWorld,
) -> None:
    """What was stored while none was there follows; the order is that of the stream."""
    listening = LiveWorld(scene)
    await scene.nats.subscribe(f"{subjects.LIVE}.>", listening.hear)
    wanted: list[str] = []
    async with scene.publishing():
        for _ in range(3):
            async with live_publishing(scene):
                wanted += await _insert(scene, 100)
                await until(functools.partial(_heard, listening, wanted[-80]), "live messages")
            wanted += await _insert(scene, 50)
        async with live_publishing(scene):

            async def everything() -> bool:
                return set(wanted) <= set(_ids(listening.heard))

            await until(everything, "everything is shown")
    assert _shown_of(wanted, listening) == wanted


async def test_a_long_interruption_is_not_replayed(scene: EventWorld) -> None:
    """What is older than the limit is left to the history request."""
    listening = LiveWorld(scene)
    await scene.nats.subscribe(f"{subjects.LIVE}.>", listening.hear)
    options = Options(catch_up=timedelta(0))
    async with scene.publishing():
        async with live_publishing(scene, options):
            first = await _insert(scene, 1)
            await until(functools.partial(_heard, listening, first[0]), "the first")
        missed = await _insert(scene, 10)
        await until(functools.partial(_is_stored, scene, missed[-1]), "all are stored")
        async with live_publishing(scene, options):
            later: list[str] = []

            async def a_later_one_is_heard() -> bool:
                later.extend(await _insert(scene, 1))
                return bool(set(later) & set(_ids(listening.heard)))

            await until(a_later_one_is_heard, "a later one")
    assert not set(missed) & set(_ids(listening.heard))


async def _is_stored(scene: EventWorld, row_uuid: str) -> bool:
    return row_uuid in await scene.stored_uuids()


async def test_a_stream_that_is_not_there_yet_is_waited_for(
    cluster: Cluster, scene: EventWorld
) -> None:
    """Events are shown where nobody publishes logs, and logs as soon as somebody does."""
    await scene.nats.js_api(f"STREAM.DELETE.{streams.LOGS}")
    listening = LiveWorld(scene)
    await scene.nats.subscribe(f"{subjects.LIVE}.>", listening.hear)
    request = await cluster.container_request("r", owner=await cluster.user("alice"))
    container = await cluster.run(request)
    async with scene.publishing(), live_publishing(scene):
        (row,) = await _insert(scene, 1)
        await until(functools.partial(_heard, listening, row), "the event")
        await streams.ensure(scene.nats, streams.log_stream())
        await listening.store(chunk := Chunk(container.uuid, "stdout.txt", 0, 0, b"one\n"))
        await until(functools.partial(_heard, listening, chunk.headers["Nats-Msg-Id"]), "the line")
        assert scene.health.error is None


@pytest.mark.parametrize("end", ["restart", "kill"])
async def test_a_restart_of_nats_leaves_nothing_out(
    scene: EventWorld, fresh_nats: NatsServer, end: str
) -> None:
    """The live publisher reads from the stream what it did not hear."""
    listening = LiveWorld(scene)
    await scene.nats.subscribe(f"{subjects.LIVE}.>", listening.hear)
    async with scene.publishing(), live_publishing(scene):
        wanted = await _insert(scene, 200)

        async def some() -> bool:
            return len(listening.heard) > 50

        await until(some, "live messages")
        if end == "kill":
            await fresh_nats.kill()
            await fresh_nats.start()
        else:
            await fresh_nats.restart()
        await scene.nats.until_connected()
        wanted += await _insert(scene, 200)

        async def everything() -> bool:
            return set(wanted) <= set(_ids(listening.heard))

        await until(everything, "everything is shown", within=60)
    assert _shown_of(wanted, listening) == wanted
