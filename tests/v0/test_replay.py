# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`last_log_id`: resuming after a row, and starting at a time, as the Python SDK does it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from sandbox import raw_rows
from sandbox.model.actors import Actor
from tests.support.clients.v0 import Api, client, settled
from tests.support.worlds.site import Site

CREATES = ["event_type", "in", ["create"]]


def since(moment: datetime) -> list[Any]:
    """A filter on created_at, in the form of the SDK."""
    return ["created_at", ">=", moment.strftime("%Y-%m-%dT%H:%M:%SZ")]


async def test_without_last_log_id_nothing_old_comes(
    site: Site, active: Actor, active_api: Api
) -> None:
    """subscribe_websocket of sdk/python: the older object is not sent."""
    await active_api.post("collections", name="ancestor")
    await settled(site.websocket_url, site.api.url, active)
    async with client(site.websocket_url, active.token) as socket:
        await socket.subscribe([CREATES])
        made = await active_api.post("collections", name="descendant")
        event = await socket.event()
        assert event["object_uuid"] == made["uuid"]
        await socket.silent()


@pytest.mark.parametrize("hours", [1, 24 * 7])
async def test_start_time_in_the_past_replays(
    site: Site, active: Actor, active_api: Api, hours: int
) -> None:
    """last_log_id 1 with a start time: also what was made before."""
    older = await active_api.post("collections", name="ancestor")
    await settled(site.websocket_url, site.api.url, active)
    async with client(site.websocket_url, active.token) as socket:
        start = datetime.now(UTC) - timedelta(hours=hours)
        await socket.subscribe([since(start), CREATES], last_log_id=1)
        newer = await active_api.post("collections", name="descendant")
        missing = {older["uuid"], newer["uuid"]}
        while missing:  # arvados-ws may show the newer one first
            missing.discard((await socket.event(50))["object_uuid"])


async def test_start_time_in_the_future_gives_nothing(
    site: Site, active: Actor, active_api: Api
) -> None:
    """Neither old nor new events, for now."""
    await active_api.post("collections", name="ancestor")
    async with client(site.websocket_url, active.token) as socket:
        await socket.subscribe([since(datetime.now(UTC) + timedelta(hours=1))], last_log_id=1)
        await active_api.post("collections", name="descendant")
        await socket.silent(1.0)


async def test_resuming_repeats_nothing_and_misses_nothing(
    site: Site, active: Actor, active_api: Api
) -> None:
    """reconnect_on_unexpected_close of sdk/python: the first object is not repeated."""
    async with client(site.websocket_url, active.token) as socket:
        await socket.subscribe([CREATES])
        await active_api.post("collections", name="first")
        last_id = (await socket.event())["id"]
    missed = await active_api.post("collections", name="while away")
    async with client(site.websocket_url, active.token) as socket:
        await socket.subscribe([CREATES], last_log_id=last_id)
        assert (await socket.event())["object_uuid"] == missed["uuid"]
        await socket.silent()


@pytest.mark.ours("arvados-ws loses it: docs/facts/arvados-demand.md A1")
async def test_late_commit_is_found_by_resuming(site: Site, active: Actor) -> None:
    """A1: a row with a lower id that commits later comes, once; arvados-ws loses it."""
    slow = await site.cluster.collection("slow", owner=active)
    quick = await site.cluster.collection("quick", owner=active)
    await settled(site.websocket_url, site.api.url, active)
    connection = await asyncpg.connect(site.database.dsn)
    try:
        late = raw_rows.row(slow.uuid, event_type="late", object_owner_uuid=active.uuid)
        async with client(site.websocket_url, active.token) as socket:
            await socket.subscribe()
            transaction = connection.transaction()
            await transaction.start()
            (late_id,) = await raw_rows.insert(connection, [late])
            await site.cluster.update(quick, {"name": "quicker"}, active)
            event = await socket.event()
            assert event["object_uuid"] == quick.uuid
            assert event["id"] > late_id
        await transaction.commit()
    finally:
        await connection.close()
    async with client(site.websocket_url, active.token) as socket:
        await socket.subscribe(last_log_id=event["id"])
        found = await socket.event()
        assert (found["id"], found["event_type"]) == (late_id, "late")
        await socket.silent()


@pytest.mark.ours("arvados-ws stops at ten minutes")
async def test_replay_goes_back_further_than_ten_minutes(
    site: Site, active: Actor, active_api: Api
) -> None:
    """As far as the stream holds; arvados-ws stops at ten minutes. Rows here are as old as that."""
    connection = await asyncpg.connect(site.database.dsn)
    try:
        collection = await site.cluster.collection("old", owner=active)
        async with client(site.websocket_url, active.token) as socket:
            await socket.subscribe()
            marker = await active_api.post("logs", object_uuid=collection.uuid, event_type="begin")
            await socket.event_about(collection.uuid, "begin")  # a scan takes both in their order
        eleven = raw_rows.utc_now() - timedelta(minutes=11)
        old = raw_rows.row(collection.uuid, event_type="old", created_at=eleven)
        await raw_rows.insert(connection, [old])
    finally:
        await connection.close()
    await settled(site.websocket_url, site.api.url, active)
    async with client(site.websocket_url, active.token) as socket:
        await socket.subscribe(last_log_id=marker["id"])
        event = await socket.event()
        assert (event["uuid"], event["event_type"]) == (old.uuid, "old")


async def test_an_id_that_no_row_has_stands_for_its_place(
    site: Site, active: Actor, active_api: Api
) -> None:
    """All rows with higher ids, as arvados-ws would."""
    async with site.cluster.transaction() as together:
        unused = await together.connection.fetchval("SELECT nextval('logs_id_seq')")
    first = await active_api.post("collections", name="first")
    await settled(site.websocket_url, site.api.url, active)
    async with client(site.websocket_url, active.token) as socket:
        await socket.subscribe([CREATES], last_log_id=unused)
        assert (await socket.event())["object_uuid"] == first["uuid"]
        await socket.silent()


@pytest.mark.ours("arvados-ws replays higher ids only")
async def test_ids_that_lie_do_not_hide_the_place_of_a_row(
    site: Site, active: Actor, active_api: Api
) -> None:
    """Any user may post a row with the id 2^63-1, or a negative one (docs/facts/arvados.md 0.3)."""
    collection = await active_api.post("collections", name="ws_test")
    begin = await active_api.post("logs", object_uuid=collection["uuid"], event_type="begin")
    connection = await asyncpg.connect(site.database.dsn)
    try:
        liars = [
            raw_rows.row(collection["uuid"], event_type="lie", id=2**63 - 1 - active.id),
            raw_rows.row(collection["uuid"], event_type="lie", id=-5 - active.id),
        ]
        await raw_rows.insert(connection, liars)
    finally:
        await connection.close()
    await settled(site.websocket_url, site.api.url, active)
    async with client(site.websocket_url, active.token) as socket:
        await socket.subscribe(last_log_id=begin["id"])
        assert {(await socket.event())["uuid"] for _ in range(2)} == {row.uuid for row in liars}
    async with client(site.websocket_url, active.token) as socket:
        await socket.subscribe(last_log_id=2**63 - 1 - active.id)
        event = await socket.event()
        assert event["event_type"] in ("lie", "settled")


@pytest.mark.ours("arvados-ws shows events again")
async def test_replay_beside_a_live_subscription_shows_nothing_twice(
    site: Site, active: Actor, active_api: Api
) -> None:
    """What the first subscription has shown already is not shown by the replay of the second."""
    start = await active_api.newest_log_id()
    async with client(site.websocket_url, active.token) as socket:
        await socket.subscribe([["event_type", "in", ["blip"]]])
        uuid = await active_api.emit_events()
        assert (await socket.event())["event_type"] == "blip"
        await socket.subscribe([["event_type", "in", ["update", "blip"]]], last_log_id=start)
        assert (await socket.event())["event_type"] == "update"
        await socket.silent()
        await active_api.post("logs", object_uuid=uuid, event_type="blip")
        assert (await socket.event())["event_type"] == "blip"
        await socket.silent()


@pytest.mark.ours("arvados-ws mixes replay and live events")
async def test_joining_under_fire_is_seamless(site: Site, active: Actor) -> None:
    """While rows come without a pause, each replay joins live with no gap, double or disorder."""
    collection = await site.cluster.collection("busy", owner=active)
    await settled(site.websocket_url, site.api.url, active)
    connection = await asyncpg.connect(site.database.dsn)
    wanted: list[str] = []
    volleys = 60

    async def fire() -> None:
        for _ in range(volleys):
            rows = [raw_rows.row(collection.uuid, event_type="shot") for _ in range(10)]
            await raw_rows.insert(connection, rows)
            wanted.extend(str(row.uuid) for row in rows)
            await asyncio.sleep(0.01)

    async def join(start: int, delay: float) -> list[str]:
        await asyncio.sleep(delay)
        async with client(site.websocket_url, active.token) as socket:
            await socket.subscribe([["event_type", "in", ["shot"]]], last_log_id=start)
            seen = [(await socket.event())["uuid"] for _ in range(10 * volleys)]
            await socket.silent(0.2)
            return seen

    try:
        (start,) = await raw_rows.insert(connection, [raw_rows.row(collection.uuid)])
        shooting = asyncio.create_task(fire())
        results = await asyncio.gather(*(join(start, n * 0.07) for n in range(8)))
        await shooting
    finally:
        await connection.close()
    for seen in results:
        assert len(seen) == len(set(seen)) == len(wanted)
        assert seen == results[0]
