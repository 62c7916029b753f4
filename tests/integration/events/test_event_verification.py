# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What Arvados itself writes is verified, and says who may see it, through the life of objects."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from arvados_nats.contract.events import Event
from arvados_nats.contract.places import Place
from arvados_nats.permissions.object_facts import ObjectFacts
from sandbox import raw_rows
from sandbox.cluster import Cluster
from sandbox.raw_rows import new_uuid
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import Database
from tests.support.waiting import until
from tests.support.worlds.events import EventWorld, world

CHANGES = ("create", "update", "delete")

Step = Callable[[], Awaitable[Any]]


class Watched:
    """The events that each step of a story brings."""

    def __init__(self, scene: EventWorld) -> None:
        self._scene = scene
        self._seen = 0

    async def after(self, step: Awaitable[Any]) -> dict[str, Event]:
        """The last event about each object since the step before, when all are published."""
        await step
        marker = raw_rows.row(new_uuid("4zz18"), event_type="note")
        await self._scene.insert(marker)

        async def published() -> bool:
            return marker.uuid in await self._scene.stored_uuids()

        await until(published, "the marker behind the step")
        stored = await self._scene.stored()
        new, self._seen = stored[self._seen :], len(stored)
        return {str(event.object_uuid): event for event in new if event.event_type in CHANGES}


@pytest.fixture
async def scene(
    cluster: Cluster, database: Database, fresh_nats: NatsServer, keys_folder: Path
) -> AsyncIterator[EventWorld]:
    """A publisher on the database of `cluster`."""
    async with world(database, fresh_nats, keys_folder) as made, made.publishing():
        yield made


@pytest.fixture
async def watched(scene: EventWorld) -> Watched:
    """Whatever made the cluster is behind us."""
    watched = Watched(scene)
    await watched.after(scene.insert(raw_rows.row(None)))
    return watched


async def test_the_life_of_a_request_is_verified(cluster: Cluster, watched: Watched) -> None:
    """From commit to the end and the retry: the last row about each object agrees with it."""
    alice = await cluster.user("alice")
    project = await cluster.project("p", owner=alice)
    request = await cluster.container_request(
        "r", owner=project, by=alice, state="Uncommitted", priority=0
    )
    steps: dict[str, Step] = {
        "commit": lambda: cluster.update(request, {"state": "Committed", "priority": 500}, alice),
        "run": lambda: cluster.run(request),
        "progress": lambda: cluster.progress(request, 0.5, activity="working"),
        "checkpoint": lambda: cluster.checkpoint(request),
        "cancel": lambda: cluster.cancel(request, "node died"),
        "run again": lambda: cluster.run(request),
        "finish": lambda: cluster.finish(request, exit_code=3, cost=0.25),
    }
    await watched.after(cluster.reload(request))
    for name, step in steps.items():
        events = await watched.after(step())
        assert events, name
        unverified = [event for event in events.values() if not event.verified]
        assert not unverified, name
    container = await cluster.container_of(request)
    ended = events[container.uuid]
    assert ended.audience == [(project.uuid, request.uuid)]
    assert ended.properties["new_attributes"]["exit_code"] == 3
    assert _facts(ended).requests == ((request.uuid, project.uuid),)


async def test_the_life_of_a_project_is_verified(cluster: Cluster, watched: Watched) -> None:
    """Made, shared, moved into, put in the trash, taken out, deleted."""
    alice, bob = await cluster.user("alice"), await cluster.user("bob")
    project = await cluster.project("p", owner=alice)
    inner = await cluster.project("i", owner=alice)
    collection = await cluster.collection("c", owner=alice)
    soon = datetime.now(UTC).replace(tzinfo=None) + timedelta(hours=1)
    steps: dict[str, Step] = {
        "share": lambda: cluster.share(project, bob),
        "move": lambda: cluster.move(collection, project),
        "rename": lambda: cluster.update(inner, {"name": "other"}, alice),
        "expire": lambda: cluster.expire(inner, soon),
        "trash": lambda: cluster.trash(project, alice),
        "untrash": lambda: cluster.untrash(project, alice),
        "unshare": lambda: cluster.unshare(project, bob),
        "deactivate": lambda: cluster.deactivate(bob),
    }
    await watched.after(cluster.reload(project))
    for name, step in steps.items():
        events = await watched.after(step())
        assert events, name
        assert all(event.verified for event in events.values()), name
        if name == "share":
            (link,) = [_facts(event) for event in events.values()]
            assert (link.tail_uuid, link.head_uuid) == (bob.uuid, project.uuid)
            assert link.head_owner_uuid == alice.uuid
        if name == "move":
            assert events[collection.uuid].audience == [(project.uuid, collection.uuid)]


async def test_a_deleted_request_is_told_to_readers_of_its_owner(
    cluster: Cluster, watched: Watched
) -> None:
    """The object is gone, so its last owner decides, with the owner's facts and place."""
    alice = await cluster.user("alice")
    outer = await cluster.project("o", owner=alice)
    project = await cluster.project("p", owner=outer)
    request = await cluster.container_request(
        "r", owner=project, by=alice, state="Uncommitted", priority=0
    )
    await watched.after(cluster.reload(request))
    events = await watched.after(cluster.delete(request, alice))
    deleted = events[request.uuid]
    assert (deleted.event_type, deleted.verified) == ("delete", True)
    assert deleted.audience == [(project.uuid, request.uuid)]
    facts = _facts(deleted)
    assert Place(project.uuid, above=(outer.uuid, alice.uuid)) in facts.places
    owner = ObjectFacts("group", project.uuid, outer.uuid, is_role=False)
    assert msgspec.structs.replace(facts, places=()) == owner


async def test_two_changes_in_one_transaction_are_both_true(
    cluster: Cluster, scene: EventWorld, watched: Watched
) -> None:
    """The second says of the old state what the first says of the new one."""
    alice = await cluster.user("alice")
    collection = await cluster.collection("c", owner=alice)
    async with cluster.transaction() as transaction:
        for name in ("one", "two"):
            await transaction.update(collection, {"name": name}, alice)
    await watched.after(cluster.reload(collection))
    changes = [event for event in await scene.stored() if event.object_uuid == collection.uuid]
    assert [event.verified for event in changes[-2:]] == [True, True]


async def test_a_user_can_not_post_a_verified_lie(cluster: Cluster, watched: Watched) -> None:
    """Rows posted through the API: any attributes, any type; the truth copied is only the truth."""
    mallory, alice = await cluster.user("mallory"), await cluster.user("alice")
    request = await cluster.container_request("r", owner=alice)
    container = await cluster.run(request)
    lies = [
        {"event_type": "update", "properties": {"new_attributes": {"state": "Complete"}}},
        {"event_type": "delete", "properties": {}},
        {
            "event_type": "update",
            "properties": {
                "new_attributes": {
                    "modified_at": container["modified_at"].isoformat() + "Z",
                    "state": "Cancelled",
                }
            },
        },
    ]
    for lie in lies:
        posted = {"object_uuid": container.uuid, **lie}
        events = await watched.after(cluster.log(mallory, **posted))
        assert not events[container.uuid].verified
        assert events[container.uuid].audience == [(alice.uuid, request.uuid)]


def _facts(event: Event) -> ObjectFacts:
    return msgspec.convert(event.facts, ObjectFacts)
