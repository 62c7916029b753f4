# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who is behind a container, and what is in the trash: read once, and again when it may differ."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from arvados_nats.contract.events import Event
from publishers.live import audience as live_audience
from publishers.live.audience import RequestsOfContainers, Shares, of_event, of_log
from publishers.postgres import database as postgres
from sandbox.raw_rows import new_uuid, utc_now

CONTAINER, OTHER_CONTAINER = new_uuid("dz642"), new_uuid("dz642")
ALICE, BOB = new_uuid("tpzed"), new_uuid("tpzed")
REQUEST = new_uuid("xvhdp")


async def _request(writer: asyncpg.Connection, uuid: str, owner: str, container: str) -> None:
    await writer.execute("DELETE FROM container_requests WHERE uuid = $1", uuid)
    await writer.execute(
        "INSERT INTO container_requests (uuid, owner_uuid, container_uuid, created_at, updated_at,"
        " modified_at) VALUES ($1, $2, $3, now(), now(), now())",
        uuid,
        owner,
        container,
    )


def _event(object_uuid: str | None, kind: str = "containerRequest", **fields: Any) -> Event:
    values: dict[str, Any] = {
        "id": 1,
        "uuid": new_uuid("57u5n"),
        "event_type": "update",
        "event_at": None,
        "created_at": "2026-11-25T12:00:00Z",
        "object_uuid": object_uuid,
        "object_kind": f"arvados#{kind}",
        "object_owner_uuid": None,
        "verified": False,
        "audience": [],
        "properties": {},
    }
    return Event(**{**values, **fields})


async def test_requests_are_read_once_until_an_event_names_one(
    writer: asyncpg.Connection, reader: postgres.Database
) -> None:
    """A moved request is seen after the event about it, whatever that says."""
    requests = RequestsOfContainers(reader)
    await _request(writer, REQUEST, ALICE, CONTAINER)
    assert await requests.read([CONTAINER]) == {CONTAINER: [(REQUEST, ALICE)]}
    await _request(writer, REQUEST, BOB, CONTAINER)
    assert await requests.read([CONTAINER]) == {CONTAINER: [(REQUEST, ALICE)]}
    requests.seen(_event(new_uuid("xvhdp")))
    requests.seen(_event(None))
    requests.seen(_event(REQUEST, kind="collection"))
    assert await requests.read([CONTAINER]) == {CONTAINER: [(REQUEST, ALICE)]}
    requests.seen(_event(REQUEST, properties={"new_attributes": None, "old_attributes": "x"}))
    assert await requests.read([CONTAINER]) == {CONTAINER: [(REQUEST, BOB)]}


@pytest.mark.parametrize("side", ["old_attributes", "new_attributes"])
async def test_a_container_that_an_event_names_is_read_again(
    writer: asyncpg.Connection, reader: postgres.Database, side: str
) -> None:
    """A request that was not known before comes to a container, or leaves it."""
    requests = RequestsOfContainers(reader)
    assert await requests.read([CONTAINER]) == {CONTAINER: []}
    await _request(writer, REQUEST, ALICE, CONTAINER)
    requests.seen(_event(REQUEST, properties={side: {"container_uuid": CONTAINER}}))
    assert await requests.read([CONTAINER, OTHER_CONTAINER]) == {
        CONTAINER: [(REQUEST, ALICE)],
        OTHER_CONTAINER: [],
    }


async def test_what_no_event_tells_of_is_seen_after_a_while(
    writer: asyncpg.Connection, reader: postgres.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user merge moves requests and logs nothing."""
    requests = RequestsOfContainers(reader)
    await requests.read([CONTAINER])
    await _request(writer, REQUEST, ALICE, CONTAINER)
    assert await requests.read([CONTAINER]) == {CONTAINER: []}
    monkeypatch.setattr(live_audience, "_FRESH_REQUESTS", 0.02)
    await asyncio.sleep(0.03)
    assert await requests.read([CONTAINER]) == {CONTAINER: [(REQUEST, ALICE)]}


async def test_an_event_during_the_read_makes_it_read_again(
    writer: asyncpg.Connection, reader: postgres.Database
) -> None:
    """What was read before the change is not remembered after it."""
    requests = RequestsOfContainers(reader)
    await _request(writer, REQUEST, ALICE, CONTAINER)
    async with writer.transaction():
        await writer.execute("LOCK TABLE container_requests IN ACCESS EXCLUSIVE MODE")
        reading = asyncio.create_task(requests.read([CONTAINER]))
        while not await writer.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            assert not reading.done()
        requests.seen(_event(REQUEST))
        await writer.execute("UPDATE container_requests SET owner_uuid = $1", BOB)
    assert await reading == {CONTAINER: [(REQUEST, BOB)]}


async def test_memory_is_bounded(
    reader: postgres.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More containers than are remembered are all answered."""
    monkeypatch.setattr(live_audience, "_MOST_CONTAINERS", 10)
    requests = RequestsOfContainers(reader)
    for _ in range(5):
        wanted = [new_uuid("dz642") for _ in range(7)]
        assert await requests.read(wanted) == {uuid: [] for uuid in wanted}
    assert len(requests._known) <= 10


async def _group(writer: asyncpg.Connection, uuid: str, owner: str) -> None:
    await writer.execute(
        "INSERT INTO groups (uuid, owner_uuid, name, created_at, updated_at)"
        " VALUES ($1, $2, $1, now(), now()) ON CONFLICT (uuid) DO UPDATE SET owner_uuid = $2",
        uuid,
        owner,
    )


async def _share(writer: asyncpg.Connection, uuid: str) -> None:
    await writer.execute(
        "INSERT INTO links (uuid, owner_uuid, tail_uuid, head_uuid, link_class, name, created_at,"
        " updated_at) VALUES ($1, $2, $2, $3, 'permission', 'can_read', now(), now())",
        new_uuid("o0j2j"),
        BOB,
        uuid,
    )


async def test_trash_hides_requests_and_not_collections(
    writer: asyncpg.Connection, reader: postgres.Database
) -> None:
    """From the moment on, not before; include_trash lifts it for collections and groups only, and
    not in what is frozen."""
    trashed, coming, open_project, frozen = [new_uuid("j7d0g") for _ in range(4)]
    for group in (trashed, coming, open_project, frozen):
        await _group(writer, group, ALICE)
    for group, moment in ((trashed, -1), (coming, 60), (frozen, -1)):
        await writer.execute(
            "INSERT INTO trashed_groups (group_uuid, trash_at) VALUES ($1, $2)",
            group,
            utc_now() + timedelta(seconds=moment),
        )
    await writer.execute("INSERT INTO frozen_groups VALUES ($1)", frozen)
    audience = [(owner, REQUEST) for owner in (trashed, coming, open_project, frozen)]
    shown = [(ALICE, *pair) for pair in audience]
    event = _event(REQUEST, audience=audience)
    shares = Shares(reader)
    above = await shares.read(audience)
    assert of_event(event, "container_request", above) == shown[1:3]
    assert of_event(event, "collection", above) == shown[:3]
    assert of_event(event, "group", above) == shown[:3]
    assert of_log([(uuid, owner) for owner, uuid in audience], above) == shown[1:3]
    await writer.execute("DELETE FROM trashed_groups")
    assert (await shares.read(audience)).hides(trashed, "workflow", None)
    shares.seen(_event(open_project, kind="group"))
    assert not (await shares.read(audience)).hides(trashed, "workflow", None)


async def test_an_object_is_told_once_below_each_share_point_above_it(
    writer: asyncpg.Connection, reader: postgres.Database
) -> None:
    """Users, and what a permission link leads to; a project that is moved is elsewhere at once."""
    outer, middle, inner, other = [new_uuid("j7d0g") for _ in range(4)]
    await _group(writer, outer, ALICE)
    await _group(writer, middle, outer)
    await _group(writer, inner, middle)
    await _group(writer, other, BOB)
    for shared in (outer, inner, REQUEST):
        await _share(writer, shared)
    shares, pair = Shares(reader), (inner, REQUEST)
    assert (await shares.read([pair])).of(pair) == [REQUEST, inner, outer, ALICE]
    await _group(writer, middle, other)
    assert (await shares.read([pair])).of(pair) == [REQUEST, inner, outer, ALICE]
    shares.seen(_event(middle, kind="group"))
    assert (await shares.read([pair])).of(pair) == [REQUEST, inner, BOB]
    await _share(writer, middle)
    shares.seen(_event(new_uuid("o0j2j"), kind="link"))
    assert (await shares.read([pair])).of(pair) == [REQUEST, inner, middle, BOB]


async def test_moves_that_no_event_tells_of_are_seen_after_a_while(
    writer: asyncpg.Connection, reader: postgres.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user merge moves projects and logs nothing."""
    project = new_uuid("j7d0g")
    await _group(writer, project, ALICE)
    shares, pair = Shares(reader), (project, REQUEST)
    await shares.read([pair])
    await _group(writer, project, BOB)
    assert (await shares.read([pair])).of(pair) == [ALICE]
    monkeypatch.setattr(live_audience, "FRESH_PLACES", 0.02)
    await asyncio.sleep(0.03)
    assert (await shares.read([pair])).of(pair) == [BOB]


async def test_the_memory_of_places_is_bounded(
    reader: postgres.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than are remembered are all answered."""
    monkeypatch.setattr(live_audience, "_MOST_PLACES", 10)
    shares = Shares(reader)
    for _ in range(5):
        pairs = [(new_uuid("j7d0g"), REQUEST) for _ in range(7)]
        above = await shares.read(pairs)
        assert all(above.of(pair, gone=True) == [REQUEST] for pair in pairs)
    assert len(shares._places) <= 17


async def test_what_is_no_uuid_opens_no_subject(reader: postgres.Database) -> None:
    """A row of a deleted object may name anything as its owner."""
    odd = [(">", REQUEST), (ALICE, "*"), ("", ""), (ALICE, REQUEST)]
    above = await Shares(reader).read(odd)
    shown = [(ALICE, ALICE, REQUEST)]
    assert of_event(_event(REQUEST, audience=odd), "collection", above) == shown
    assert of_log([(uuid, owner) for owner, uuid in odd], above) == shown
