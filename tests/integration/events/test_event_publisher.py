# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The event publisher on a real PostgreSQL and NATS: order, late commits, hostile rows, outages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from datetime import datetime, timedelta

import asyncpg
import pytest

from arvados_nats.contract import events, streams
from arvados_nats.contract.events import Event
from arvados_nats.nats.history import StoredMessage
from publishers.events import publisher, resume
from publishers.events import rows as log_rows
from publishers.events.event_source import Scans
from publishers.postgres.database import Database as PublishersDatabase
from sandbox import raw_rows
from sandbox.raw_rows import RawRow, change, new_uuid, row
from tests.support.waiting import until
from tests.support.worlds.events import QUICK, EventWorld, skipped

_LEADS_IN = """
SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def _rows(count: int) -> list[RawRow]:
    return [row(new_uuid("4zz18"), properties=change(None, {"name": "x"})) for _ in range(count)]


async def test_rows_arrive_in_order_and_once(scene: EventWorld) -> None:
    """What is inserted is in the stream, in the order of the commits, each row once."""
    rows = _rows(300)
    async with scene.publishing():
        for start in range(0, 300, 10):
            await scene.insert(*rows[start : start + 10])
        await scene.until_stored(rows)
    assert await scene.stored_uuids() == [one.uuid for one in rows]


async def test_a_row_becomes_a_message_that_says_what_it_is(scene: EventWorld) -> None:
    """Subject, message id and payload are those of the row."""
    collection = new_uuid("4zz18")
    one = row(collection, event_type="create", properties=change(None, {"name": "a", "x": 1}))
    async with scene.publishing():
        (row_id,) = await scene.insert(one)
        await scene.until_stored([one])
    (event,) = await scene.stored()
    assert (event.id, event.uuid, event.object_kind) == (row_id, one.uuid, "arvados#collection")
    assert event.properties == {"new_attributes": {"name": "a"}}
    subject = f"arvados.events.collection.{collection}.create"
    message = await scene.nats.last(streams.EVENTS, subject)
    assert message is not None
    assert message.headers["Nats-Msg-Id"] == one.uuid


async def test_a_change_of_rights_is_announced_by_what_it_was_committed_with(
    scene: EventWorld,
) -> None:
    """Whoever gets rights by it can be shown what was made before it in the same transaction."""
    async with scene.publishing():
        rows = [row(new_uuid(kind)) for kind in ("4zz18", "7fd4e", "o0j2j", "4zz18")]
        await scene.insert(*rows)
        await scene.until_stored(rows)
    history = scene.nats.history(streams.EVENTS, "arvados.events.>")
    announced = [events.GRAPH_FOLLOWS in message.headers async for message in history]
    assert announced == [True, True, False, False]


async def test_a_row_that_commits_late_is_published_once(scene: EventWorld) -> None:
    """T1 takes id n and waits, T2 takes n+1 and commits; when T1 commits, its row follows, once."""
    late, prompt, after = _rows(3)
    other = await asyncpg.connect(scene.database.dsn)
    async with scene.publishing():
        transaction = scene.writer.transaction()
        await transaction.start()
        (first,) = await scene.insert(late)
        (second,) = await raw_rows.insert(other, [prompt])
        assert first < second
        await scene.until_stored([prompt])
        await transaction.commit()
        await scene.until_stored([late])
        await scene.insert(after)
        await scene.until_stored([after])
    await other.close()
    assert await scene.stored_uuids() == [prompt.uuid, late.uuid, after.uuid]


async def test_a_late_row_without_notify_is_found_by_the_scan(scene: EventWorld) -> None:
    """A row that never sends NOTIFY and whose created_at is 20 minutes old arrives all the same."""
    recent, old = _rows(2)
    old = RawRow(old.uuid, old.object_uuid, created_at=_minutes_ago(20))
    options = publisher.Options(scans=QUICK, fresh_start=timedelta(minutes=30))
    async with scene.publishing(options):
        await scene.insert(recent)
        await scene.until_stored([recent])
        await scene.insert(old, notify=False)
        await scene.until_stored([old])
    assert await scene.stored_uuids() == [recent.uuid, old.uuid]


async def test_ids_that_come_again_are_heard(scene: EventWorld) -> None:
    """PostgreSQL is back without its last rows, which the stream has, and gives their ids again:
    new rows come when they are committed, and not out of turn, when a scan finds them."""
    lost, again = _rows(2), _rows(2)
    async with scene.publishing():
        first_id, _ = await scene.insert(*lost)
        await scene.until_stored(lost)
    await scene.admin.execute("DELETE FROM logs WHERE id >= $1", first_id)
    await scene.admin.execute("SELECT setval('logs_id_seq', $1, false)", first_id)
    seldom = Scans(near_every=3600, middle_every=3600, wide_every=3600)
    async with scene.publishing(publisher.Options(scans=seldom)):
        for one in again:
            await scene.insert(one)
            await scene.until_stored([one])


async def test_a_scan_does_not_overtake_what_notify_is_late_to_name(scene: EventWorld) -> None:
    """The process of PostgreSQL that tells us of commits gets no time on a busy machine: a row that
    was committed later, and that a scan finds, still comes behind one of eleven minutes ago."""
    first, old, young = _rows(3)
    old = RawRow(old.uuid, old.object_uuid, created_at=_minutes_ago(11))
    young = RawRow(young.uuid, young.object_uuid, created_at=_minutes_ago(1 / 60))
    options = publisher.Options(scans=Scans(near_every=0.1), fresh_start=timedelta(minutes=30))
    async with scene.publishing(options):
        await scene.insert(first)
        await scene.until_stored([first])
        held = await scene.admin.fetchval(_LEADS_IN)
        os.kill(held, signal.SIGSTOP)
        try:
            await scene.insert(old)
            await scene.insert(young)
            await asyncio.sleep(1.5)  # some scans, if any
        finally:
            os.kill(held, signal.SIGCONT)
        await scene.until_stored([old, young])
    assert await scene.stored_uuids() == [first.uuid, old.uuid, young.uuid]


async def test_what_notify_names_does_not_wait_for_a_scan(
    scene: EventWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL may take its time to count half an hour; a row without NOTIFY is found by it."""
    first, prompt, silent = _rows(3)
    count, counting, go_on = log_rows.count_rows, asyncio.Event(), asyncio.Event()

    async def slow(database: PublishersDatabase, since: datetime) -> dict[int, int]:
        counting.set()
        await go_on.wait()
        return await count(database, since)

    async with scene.publishing(publisher.Options(scans=QUICK)):
        await scene.insert(first)
        await scene.until_stored([first])  # what was there before is counted, and read, by now
        monkeypatch.setattr(log_rows, "count_rows", slow)
        await asyncio.wait_for(counting.wait(), 60)
        silent = RawRow(silent.uuid, silent.object_uuid, created_at=_minutes_ago(1))
        await scene.insert(silent, notify=False)
        await scene.insert(prompt)
        await scene.until_stored([prompt])
        go_on.set()
        await scene.until_stored([silent])
    assert await scene.stored_uuids() == [first.uuid, prompt.uuid, silent.uuid]


async def test_a_late_row_committed_while_nobody_published_is_found(scene: EventWorld) -> None:
    """A row older than the last published one, committed during the downtime, is not lost."""
    recent, old = _rows(2)
    options = publisher.Options(scans=QUICK, fresh_start=timedelta(minutes=30))
    async with scene.publishing(options):
        await scene.insert(recent)
        await scene.until_stored([recent])
    await scene.insert(RawRow(old.uuid, old.object_uuid, created_at=_minutes_ago(20)))
    async with scene.publishing(options):
        await scene.until_stored([old])
    assert await scene.stored_uuids() == [recent.uuid, old.uuid]


async def test_what_an_empty_stream_began_without_does_not_come_later(scene: EventWorld) -> None:
    """After the loss of a store: whoever leads next takes what is older for what it is, and not for
    lacking, behind all that is newer."""
    times = [_minutes_ago(minutes) for minutes in (20, 5, 4)]
    old, young, again = (
        RawRow(one.uuid, one.object_uuid, created_at=at)
        for one, at in zip(_rows(3), times, strict=True)
    )
    await scene.insert(old, young)
    async with scene.publishing():
        await scene.until_stored([young])
    async with scene.publishing():
        await scene.insert(again, notify=False)  # a wide scan finds it, and would find the old one
        await scene.until_stored([again])
    assert await scene.stored_uuids() == [young.uuid, again.uuid]


def _minutes_ago(minutes: float) -> datetime:
    return raw_rows.utc_now() - timedelta(minutes=minutes)


HOSTILE = {
    "largest id": row(None, id=2**63 - 1, properties='{"text": "x"}'),
    "negative id": row(None, id=-5, properties='{"text": "x"}'),
    "no object, no type": row(None, event_type=None),
    "properties NULL": row(new_uuid("4zz18"), properties=None),
    "properties empty": row(new_uuid("4zz18"), properties=""),
    "old YAML": row(new_uuid("4zz18"), properties="---\n:text: hello\ntext: hello\n"),
    "5 MB": row(
        new_uuid("4zz18"),
        properties=change(None, {"name": "big", "manifest_text": "x" * 5_000_000}),
    ),
    "5 MB of text": row(new_uuid("4zz18"), properties=json.dumps({"text": "x" * 5_000_000})),
    "bogus object": row("bogus-uuid", event_type="Not A Type! *.>"),
    "a number out of range": row(new_uuid("4zz18"), properties='{"text": 1e999}'),
    "deep": row(new_uuid("4zz18"), properties='{"text": ' + "[" * 100 + "]" * 100 + "}"),
}
UNREADABLE = {
    "not JSON": row(new_uuid("4zz18"), properties="bad properties"),
    "a list": row(new_uuid("4zz18"), properties="[1, 2]"),
    "deeper": row(new_uuid("4zz18"), properties='{"text": ' + "[" * 30_000 + "]" * 30_000 + "}"),
    "large and not JSON": row(new_uuid("4zz18"), properties="{" + "x" * 2_000_000),
}


async def test_hostile_rows_hurt_nobody_else(scene: EventWorld) -> None:
    """Whatever a user posts, rows before and after it arrive at once and in order; what cannot be
    understood is counted."""
    before = {reason: skipped(reason) for reason in ("undecodable", "bad_payload", "no_row")}
    expected = []
    async with scene.publishing():
        for hostile in (*HOSTILE.values(), *UNREADABLE.values()):
            good = _rows(2)
            await scene.insert(good[0])
            await scene.insert(hostile)
            await scene.insert(good[1])
            expected += [good[0], hostile, good[1]]
        for payload in ("abc", "", "999999999", "9" * 40, "-", "1e3", "٣"):
            await scene.writer.execute("SELECT pg_notify('logs', $1)", payload)
        last = _rows(1)[0]
        await scene.insert(last)
        await scene.until_stored([last])
    unreadable = {one.uuid for one in UNREADABLE.values()}
    wanted = [one.uuid for one in expected if one.uuid not in unreadable]
    assert await scene.stored_uuids() == [*wanted, last.uuid]
    assert skipped("undecodable") - before["undecodable"] == len(UNREADABLE)
    assert skipped("bad_payload") - before["bad_payload"] == 6
    assert skipped("no_row") - before["no_row"] == 1


async def test_hostile_rows_carry_what_can_be_carried(scene: EventWorld) -> None:
    """Ids stay as posted, large attributes are cut, long text is left out and says so."""
    async with scene.publishing():
        await scene.insert(*HOSTILE.values())
        await scene.until_stored(list(HOSTILE.values()))
    by_uuid: dict[str | None, Event] = {event.uuid: event for event in await scene.stored()}
    found = {name: by_uuid[one.uuid] for name, one in HOSTILE.items()}
    assert found["largest id"].id == 2**63 - 1
    assert found["negative id"].id == -5
    assert found["no object, no type"].event_type is None
    assert found["properties NULL"].properties == {}
    assert found["old YAML"].properties["text"] == "hello"
    assert found["5 MB"].properties == {"new_attributes": {"name": "big"}}
    assert found["5 MB of text"].properties == {"truncated": True}
    assert found["bogus object"].event_type == "Not A Type! *.>"
    for event in found.values():
        assert not event.verified


async def test_times_that_no_calendar_has_stop_nothing(scene: EventWorld) -> None:
    """event_at, trash_at and expires_at are whatever a user chose, far beyond Python's years."""
    collection, token = new_uuid("4zz18"), new_uuid("gj3su")
    await scene.admin.execute(
        f"""
        INSERT INTO collections (uuid, owner_uuid, created_at, updated_at, modified_at, trash_at)
        VALUES ('{collection}', '{raw_rows.SYSTEM_USER}', now(), now(), '20000-01-01', 'infinity');
        INSERT INTO api_client_authorizations (uuid, api_token, user_id, api_client_id, expires_at,
                                               created_at, updated_at)
        VALUES ('{token}', 'x', 1, 0, '294276-12-31', now(), now())
        """
    )
    rows = [row(uuid, properties=change(None, {})) for uuid in (collection, token)]
    async with scene.publishing():
        await scene.insert(*rows)
        for moment in ("infinity", "20000-01-01", "4713-01-01 BC"):
            await scene.admin.execute(
                "INSERT INTO logs (uuid, event_at, created_at, updated_at)"
                f" VALUES ($1, '{moment}', now() AT TIME ZONE 'UTC', now())",
                new_uuid("57u5n"),
            )
        await scene.insert(last := _rows(1)[0])
        await scene.until_stored([*rows, last])

        async def all_there() -> bool:
            return await scene.count() == 6

        await until(all_there, "the rows that sent no NOTIFY")


async def test_taking_the_next_id_hides_no_row(scene: EventWorld) -> None:
    """A user posts the id that comes next; the row that wanted it fails, all others arrive."""
    async with scene.publishing():
        (taken,) = await scene.insert(first := _rows(1)[0])
        await scene.insert(squatter := row(None, id=taken + 1))
        with pytest.raises(asyncpg.UniqueViolationError):
            await scene.insert(_rows(1)[0])
        await scene.insert(last := _rows(1)[0])
        await scene.until_stored([last])
    assert await scene.stored_uuids() == [first.uuid, squatter.uuid, last.uuid]


async def test_a_row_notified_again_is_not_published_again(scene: EventWorld) -> None:
    """An admin's PUT on a row sends NOTIFY with its old id, within the window and long after."""
    options = publisher.Options(scans=Scans(wide=timedelta(seconds=10), wide_every=0.5))
    old, recent, last = _rows(3)
    old = RawRow(old.uuid, old.object_uuid, created_at=_minutes_ago(3))
    async with scene.publishing(options):
        (old_id,) = await scene.insert(old)
        (recent_id,) = await scene.insert(recent)
        await scene.until_stored([old, recent])
    async with scene.publishing(options):
        for row_id in (old_id, recent_id):
            await scene.writer.execute("SELECT pg_notify('logs', $1)", str(row_id))
        await scene.insert(last)
        await scene.until_stored([last])
    assert await scene.stored_uuids() == [old.uuid, recent.uuid, last.uuid]


@pytest.mark.parametrize("publishing", ["goes on", "begins anew"])
async def test_a_restored_database_gives_numbers_again_and_no_row_is_lost(
    scene: EventWorld, publishing: str
) -> None:
    """What is written after it has numbers that the stream knows from rows that are gone."""
    gone, after = _rows(20), _rows(20)
    async with contextlib.AsyncExitStack() as exits:
        if publishing == "goes on":
            await exits.enter_async_context(scene.publishing())
            ids = await scene.insert(*gone)
            await scene.until_stored(gone)
        else:
            async with scene.publishing():
                ids = await scene.insert(*gone)
                await scene.until_stored(gone)
        await scene.writer.execute("DELETE FROM logs WHERE id = ANY($1)", ids)
        await scene.writer.execute("SELECT setval('logs_id_seq', $1, false)", min(ids))
        if publishing == "begins anew":
            await exits.enter_async_context(scene.publishing())
        assert await scene.insert(*after) == ids
        await scene.until_stored(after)
    assert await scene.stored_uuids() == [one.uuid for one in (*gone, *after)]


async def test_a_row_older_than_the_stream_is_counted_and_left(scene: EventWorld) -> None:
    """A notified row from before everything that the stream holds is too old for it."""
    before = skipped("too_old")
    ancient, last = _rows(2)
    ancient = RawRow(ancient.uuid, ancient.object_uuid, created_at=_minutes_ago(60 * 24 * 30))
    async with scene.publishing():
        await scene.insert(ancient)
        await scene.insert(last)
        await scene.until_stored([last])

        async def counted() -> bool:
            return skipped("too_old") == before + 1

        await until(counted, "it is counted", 30)
    assert await scene.stored_uuids() == [last.uuid]


async def test_whoever_takes_over_publishes_before_all_was_read(
    scene: EventWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that the former leader published come no second time, those that it missed come once,
    in their order, also where only a part of the stream was read yet."""
    monkeypatch.setattr(resume, "_BLOCK", 7)
    monkeypatch.setattr(resume, "_LONGEST_REST", 0.0)
    before, missed, after = _rows(60), _rows(40), _rows(20)
    async with scene.publishing():
        await scene.insert(*before)
        await scene.until_stored(before, 30)
    await scene.insert(*missed)
    reading = asyncio.Event()
    block = resume.Past._block

    async def held(past: resume.Past) -> list[StoredMessage]:
        if past.newest is not None:
            await reading.wait()
        return await block(past)

    monkeypatch.setattr(resume.Past, "_block", held)
    async with scene.publishing():
        await scene.insert(*after)
        await scene.until_stored([*missed, *after], 30)
        reading.set()
        last = _rows(1)
        await scene.insert(*last, notify=False)
        await scene.until_stored(last, 30)
    assert await scene.stored_uuids() == [row.uuid for row in (*before, *missed, *after, *last)]


async def test_a_lost_listener_loses_no_row(scene: EventWorld) -> None:
    """pg_terminate_backend on the listener, three times during 100 inserts: 100 in order."""
    rows = _rows(100)
    async with scene.publishing():
        for number, one in enumerate(rows):
            await scene.insert(one)
            if number in (20, 50, 80):
                assert await _terminate_publishers(scene)
                await asyncio.sleep(0)
        await scene.until_stored(rows)
    assert await scene.stored_uuids() == [one.uuid for one in rows]


async def _terminate_publishers(scene: EventWorld) -> int:
    """End every connection of the publisher, once it has one."""

    async def terminated() -> bool:
        return bool(
            await scene.admin.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE application_name = 'arvados-nats' AND datname = current_database()"
            )
        )

    await until(terminated, "a connection to terminate")
    return True


@pytest.mark.parametrize("end", ["restart", "kill"])
async def test_a_restart_of_nats_loses_no_row(scene: EventWorld, end: str) -> None:
    """NATS goes away during traffic, in order or by SIGKILL: all rows, once, in order."""
    rows = _rows(2000)
    async with scene.publishing():
        inserting = asyncio.create_task(_insert_steadily(scene, rows))

        async def flowing() -> bool:
            return await scene.count() > 200

        await until(flowing, "traffic")
        if end == "kill":
            await scene.server.kill()
            await scene.server.start()
        else:
            await scene.server.restart()
        await inserting
        await scene.nats.until_connected()
        await scene.until_stored(rows, within=60)
        assert scene.health.error is None
    assert await scene.stored_uuids() == [one.uuid for one in rows]


async def _insert_steadily(scene: EventWorld, rows: list[RawRow]) -> None:
    for start in range(0, len(rows), 10):
        await scene.insert(*rows[start : start + 10])
        await asyncio.sleep(0.002)


async def test_nats_away_is_degraded_not_the_end(scene: EventWorld) -> None:
    """While NATS is away the publisher says so; what came meanwhile follows when it is back."""
    first, second = _rows(2)
    async with scene.publishing():
        await scene.insert(first)
        await scene.until_stored([first])
        await scene.server.stop()
        await scene.insert(second)

        async def degraded() -> bool:
            return scene.health.error is not None

        await until(degraded, "degraded health")
        await scene.server.start()
        await scene.nats.until_connected()
        await scene.until_stored([second])

        async def well() -> bool:
            return scene.health.error is None

        await until(well, "it is well again")
    assert await scene.stored_uuids() == [first.uuid, second.uuid]


async def test_a_foreign_message_makes_it_read_the_stream_again(scene: EventWorld) -> None:
    """Somebody else writes to the stream: the publisher goes on behind it, losing nothing."""
    rows = _rows(20)
    async with scene.publishing():
        for number, one in enumerate(rows):
            await scene.insert(one)
            if number == 10:
                await scene.until_stored(rows[:11])
                await (
                    await scene.nats.publish_stored(
                        "arvados.events.other.none.other", b"{}", {"Nats-Msg-Id": "foreign"}
                    )
                )

        async def all_there() -> bool:
            return await scene.count() == 21

        await until(all_there, "20 rows and the foreign message")
    found = [
        message.headers["Nats-Msg-Id"]
        async for message in scene.nats.history(streams.EVENTS, "arvados.events.>")
    ]
    names = {one.uuid: number for number, one in enumerate(rows)} | {"foreign": -1}
    assert [names[uuid] for uuid in found] == [*range(11), -1, *range(11, 20)]


async def test_a_stream_that_was_deleted_is_made_again(scene: EventWorld) -> None:
    """An operator deletes the stream: it comes back with what Arvados still has in its window."""
    first, second = _rows(2)
    async with scene.publishing():
        await scene.insert(first)
        await scene.until_stored([first])
        await scene.nats.js_api(f"STREAM.DELETE.{streams.EVENTS}")
        await scene.insert(second)
        await scene.until_stored([first, second])
    assert await scene.stored_uuids() == [first.uuid, second.uuid]
