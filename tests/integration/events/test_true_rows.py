# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""No row of Arvados' own is called a lie, and no posted one is called true, whatever happens.

Changes follow each other faster than the publisher reads, or it is away meanwhile, and somebody
posts rows of each kind between them: through the API, as any user may.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from arvados_nats.contract.events import Event
from publishers.events import publisher
from sandbox import raw_rows
from sandbox.cluster import Cluster
from sandbox.model import records
from sandbox.model.actors import Actor
from sandbox.raw_rows import new_uuid
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import Database
from tests.support.waiting import until
from tests.support.worlds.events import QUICK, EventWorld, world

CHANGES = ("create", "update", "delete")
OWNER = raw_rows.SYSTEM_USER
OPTIONS = publisher.Options(scans=QUICK, fresh_start=timedelta(hours=1))


@pytest.fixture
async def scene(
    cluster: Cluster, database: Database, fresh_nats: NatsServer, keys_folder: Path
) -> AsyncIterator[EventWorld]:
    """A publisher can run on the database of `cluster`."""
    async with world(database, fresh_nats, keys_folder) as made:
        yield made


async def all_published(scene: EventWorld) -> list[Event]:
    """Every event, when all rows up to now are published."""
    marker = raw_rows.row(new_uuid("4zz18"), event_type="note")
    await scene.insert(marker)

    async def published() -> bool:
        uuids = set(await scene.stored_uuids())
        rows = await scene.writer.fetch("SELECT uuid FROM logs")
        return {row[0] for row in rows} <= uuids

    await until(published, "all rows are published")
    return await scene.stored()


class Forger:
    """Posts rows about objects that are there, from what is true of them."""

    def __init__(self, cluster: Cluster, user: Actor) -> None:
        self._cluster = cluster
        self._user = user
        self.posted: dict[str, str] = {}
        """Uuid of the row to what was wrong with it."""

    async def post_about(self, uuid: str) -> None:
        """One row of each kind."""
        rows = await self._cluster.pool.fetch(
            "SELECT event_type, properties FROM logs WHERE object_uuid = $1 AND uuid <> ALL($2)"
            " ORDER BY id DESC LIMIT 1",
            uuid,
            list(self.posted),
        )
        if not rows:
            return
        said = msgspec.json.decode(rows[0]["properties"] or "{}")
        old, new = said.get("old_attributes") or {}, said.get("new_attributes") or {}
        if not new:
            return
        lies: dict[str, tuple[str, dict[str, Any]]] = {
            "little": ("update", {"new_attributes": {"modified_at": new.get("modified_at")}}),
            "priority": (
                "update",
                {
                    "new_attributes": {"modified_at": new.get("modified_at"), "priority": 1},
                    "old_attributes": {"state": "FORGED"},
                },
            ),
            "another past": (
                "update",
                {"new_attributes": new, "old_attributes": {**old, "name": "FORGED"}},
            ),
            "the past of that": (
                "update",
                {"new_attributes": {**old, "name": "FORGED"}, "old_attributes": old},
            ),
            "another future": (
                "update",
                {
                    "new_attributes": {**new, "state": "FORGED", "name": "FORGED"},
                    "old_attributes": new,
                },
            ),
            "a future time": (
                "update",
                {
                    "new_attributes": {**new, "modified_at": records.stamp(records.now())},
                    "old_attributes": new,
                },
            ),
            "text": ("update", {**said, "text": "x", "junk": "evil"}),
            "junk": ("update", {"new_attributes": {**new, "junk": "evil", "priority": 1}}),
            "copy": (rows[0]["event_type"], said),
            "create": ("create", {"new_attributes": new}),
            "delete": ("delete", {"old_attributes": new}),
            "nothing": ("update", {}),
            "note": ("note", {"new_attributes": new}),
        }
        for what, (event_type, properties) in lies.items():
            row = await self._cluster.log(
                self._user, object_uuid=uuid, event_type=event_type, properties=properties
            )
            self.posted[row.uuid] = what

    async def post_about_nothing(self) -> None:
        """The whole life of an object that never was."""
        uuid = new_uuid("4zz18")
        at = [records.stamp(records.now() + timedelta(milliseconds=n)) for n in range(2)]
        state = {"owner_uuid": self._user.uuid, "name": "x", "modified_at": at[0]}
        later = {**state, "modified_at": at[1]}
        for event_type, old, new in (
            ("create", None, state),
            ("update", state, later),
            ("delete", later, None),
        ):
            sides = {"old_attributes": old, "new_attributes": new}
            row = await self._cluster.log(
                self._user, object_uuid=uuid, event_type=event_type, properties=sides
            )
            self.posted[row.uuid] = f"{event_type} of nothing"


def check(events: list[Event], forger: Forger) -> float:
    """No lie is true and no truth a lie; what share of Arvados' own rows is known to be true."""
    own = []
    for event in events:
        if event.uuid in forger.posted:
            assert event.verified is not True, (forger.posted[event.uuid], event)
        elif event.event_type in CHANGES:
            assert event.verified is not False, event
            own.append(event.verified)
    assert own
    return own.count(True) / len(own)


async def lives(cluster: Cluster, owner: Actor, number: int, seed: int) -> list[str]:
    """So many requests, collections and projects that live quickly and all at once."""
    uuids: list[str] = []
    dice = random.Random(seed)

    async def request() -> None:
        made = await cluster.container_request(owner=owner)
        uuids.append(made.uuid)
        container = await cluster.run(made)
        uuids.append(container.uuid)
        for share in (0.2, 0.4, 0.6):
            await cluster.progress(made, share, activity=str(share))
        if dice.random() < 0.5:
            await cluster.cancel(made, "node died")
            await cluster.run(made)
        await cluster.finish(made)

    async def collection() -> None:
        made = await cluster.collection(f"c {dice.random()}", owner=owner)
        uuids.append(made.uuid)
        for n in range(5):
            await cluster.update(made, {"name": f"{n} {dice.random()}"}, owner)
        if dice.random() < 0.5:
            await cluster.delete(made, owner)

    one_by_one = asyncio.Lock()  # concurrent changes of the permission graph may deadlock

    async def project() -> None:
        async with one_by_one:
            await _project()

    async def _project() -> None:
        made = await cluster.project(f"p {dice.random()}", owner=owner)
        uuids.append(made.uuid)
        inner = await cluster.project(f"i {dice.random()}", owner=made)
        await cluster.update(inner, {"name": f"j {dice.random()}"}, owner)
        await cluster.move(inner, owner)
        await cluster.update(made, {"name": f"q {dice.random()}"}, owner)

    kinds: list[Callable[[], Awaitable[None]]] = [request, collection, project]
    await asyncio.gather(*(kind() for _ in range(number) for kind in kinds))
    return uuids


async def test_a_storm_with_somebody_who_posts(cluster: Cluster, scene: EventWorld) -> None:
    """Everything changes while it is read, and rows of each kind are posted all the time."""
    alice, mallory = await cluster.user("alice"), await cluster.user("mallory")
    forger = Forger(cluster, mallory)
    async with scene.publishing(OPTIONS):
        storm = asyncio.create_task(lives(cluster, alice, 4, seed=1))
        dice = random.Random(2)
        while not storm.done():
            rows = await cluster.pool.fetch(
                "SELECT DISTINCT object_uuid FROM logs WHERE event_type IN ('create', 'update')"
            )
            await forger.post_about(dice.choice(rows)[0])
            await forger.post_about_nothing()
        for uuid in await storm:
            await forger.post_about(uuid)
        events = await all_published(scene)
    assert check(events, forger) > 0.9


async def test_nothing_but_quick_changes(cluster: Cluster, scene: EventWorld) -> None:
    """With nobody who posts, all is true."""
    alice = await cluster.user("alice")
    forger = Forger(cluster, alice)
    async with scene.publishing(OPTIONS):
        await lives(cluster, alice, 4, seed=3)
        events = await all_published(scene)
    assert check(events, forger) > 0.95


async def test_the_publishers_were_away(cluster: Cluster, scene: EventWorld) -> None:
    """Before, they saw the beginning; all that came meanwhile is read at once."""
    alice, mallory = await cluster.user("alice"), await cluster.user("mallory")
    forger = Forger(cluster, mallory)
    async with scene.publishing(OPTIONS):
        early = await lives(cluster, alice, 2, seed=4)
        await all_published(scene)
    before = len(await scene.stored())
    for uuid in early:
        await forger.post_about(uuid)
    late = await lives(cluster, alice, 3, seed=5)
    for uuid in late:
        await forger.post_about(uuid)
        await forger.post_about_nothing()
    async with scene.publishing(OPTIONS):
        events = await all_published(scene)
    assert check(events[before:], forger) > 0.95


async def test_a_backlog_of_objects_that_went_on_is_true(scene: EventWorld) -> None:
    """Each changed more often than all rows about all of them can be read in one go."""
    objects, times = 150, 16
    now = raw_rows.utc_now() - timedelta(minutes=2)
    uuids = [new_uuid("4zz18") for _ in range(objects)]

    def state(uuid: str, number: int) -> dict[str, Any]:
        at = now + timedelta(milliseconds=number)
        return {
            "owner_uuid": OWNER,
            "modified_at": f"{at.isoformat(timespec='microseconds')}000Z",
            "name": uuid,
            "is_trashed": False,
            "version": 1,
            "current_version_uuid": uuid,
            "file_count": 0,
            "file_size_total": 0,
        }

    for number in range(1, times + 1):
        at = now + timedelta(milliseconds=number)
        rows = [
            raw_rows.row(
                uuid,
                properties=raw_rows.change(state(uuid, number - 1), state(uuid, number)),
                created_at=at,
            )
            for uuid in uuids
        ]
        async with scene.writer.transaction():
            await scene.writer.execute(
                "DELETE FROM collections WHERE uuid = ANY($1::varchar[])", uuids
            )
            await scene.writer.execute(
                "INSERT INTO collections (uuid, owner_uuid, name, is_trashed, version,"
                " current_version_uuid, file_count, file_size_total, created_at, updated_at,"
                " modified_at) SELECT one, $2, one, false, 1, one, 0, 0, $3, $3, $4"
                " FROM unnest($1::varchar[]) AS one",
                *(uuids, OWNER, now, at),
            )
            await scene.insert(*rows, notify=False)
    async with scene.publishing(OPTIONS):
        events = [event for event in await all_published(scene) if event.object_uuid in uuids]
    assert len(events) == objects * times
    assert [event.verified for event in events] == [True] * len(events)


async def test_first_sight_of_a_cluster(cluster: Cluster, scene: EventWorld) -> None:
    """An empty stream, with the rows of an hour."""
    alice, mallory = await cluster.user("alice"), await cluster.user("mallory")
    forger = Forger(cluster, mallory)
    for uuid in await lives(cluster, alice, 3, seed=6):
        await forger.post_about(uuid)
    await forger.post_about_nothing()
    async with scene.publishing(OPTIONS):
        events = await all_published(scene)
    assert check(events, forger) > 0.95


async def test_a_true_event_holds_nothing_that_was_made_up(
    cluster: Cluster, scene: EventWorld
) -> None:
    """Whoever is the owner of the object posts: what is true of it remains, and nothing else."""
    alice = await cluster.user("alice")
    forger = Forger(cluster, alice)
    async with scene.publishing(OPTIONS):
        for uuid in await lives(cluster, alice, 1, seed=7):
            await forger.post_about(uuid)
        events = await all_published(scene)
    check(events, forger)
    for event in events:
        if event.verified:
            assert "FORGED" not in str(event.properties)
            assert "evil" not in str(event.properties)
            assert event.properties.keys() <= {"old_attributes", "new_attributes"}
