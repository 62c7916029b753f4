# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the stream says about where publishing stopped, and about rows from long ago."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from arvados_nats.contract import events, serialized, streams, subjects
from arvados_nats.contract.events import Event
from arvados_nats.errors import Unavailable
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.acks import Ack
from arvados_nats.nats.client import Nats
from arvados_nats.service import keys
from publishers.events import resume
from publishers.events.rows import LogRow
from sandbox.raw_rows import new_uuid, utc_now
from sandbox.servers.nats_server import NatsServer
from tests.support.worlds.events import skipped

WINDOW = timedelta(minutes=30)
FRESH = timedelta(days=14)
"""The stream began with rows of so long."""


@pytest.fixture
async def nats(fresh_nats: NatsServer, keys_folder: Path) -> AsyncIterator[Nats]:
    """A connection to a server with an empty stream."""
    seed = keys.load(keys_folder, "publisher").text
    async with nats_client.connect([fresh_nats.url], name="test", seed=seed) as connected:
        await streams.ensure(connected, streams.event_stream())
        yield connected


def _row(created_at: datetime, row_id: int = 1) -> LogRow:
    return LogRow(
        row_id, new_uuid("57u5n"), "update", None, created_at, new_uuid("4zz18"), None, "", {}
    )


async def _store(nats: Nats, *rows: LogRow) -> None:
    await asyncio.gather(*[await ack for ack in [_sent(nats, row) for row in rows]])


async def _sent(nats: Nats, row: LogRow) -> asyncio.Future[Ack]:
    event = Event(
        id=row.id,
        uuid=row.uuid,
        event_type=row.event_type,
        event_at=None,
        created_at=serialized.timestamp(row.created_at),
        object_uuid=row.object_uuid,
        object_kind="",
        object_owner_uuid=None,
        verified=False,
        audience=[],
        properties={},
    )
    subject = subjects.event(row.object_uuid, row.event_type)
    headers = {"Nats-Msg-Id": row.uuid}
    return await nats.publish_stored(subject, events.encode(event), headers)


async def test_an_empty_stream_begins_where_it_is_told(nats: Nats) -> None:
    """Nothing is known, and nothing before the fresh start is looked for."""
    now = utc_now()
    position = await resume.from_stream(nats, WINDOW, now, FRESH)
    assert (len(position.known), position.last_sequence) == (0, 0)
    assert position.known.reaches(now)
    assert not position.known.reaches(now - timedelta(seconds=20))


async def test_the_window_reaches_back_from_the_newest_row(nats: Nats) -> None:
    """Not from the last one, which may be a late one; what is older is not known."""
    now = utc_now()
    newest, late = _row(now, 7), _row(now - timedelta(minutes=20), 8)
    ancient = _row(now - timedelta(minutes=45), 9)
    await _store(nats, newest, ancient, late)
    position = await resume.from_stream(nats, WINDOW, now, FRESH)
    known = position.known
    assert position.last_sequence == 3
    assert known.has(newest.uuid, newest.created_at)
    assert known.has(late.uuid, late.created_at)
    assert not known.has_id(8), "where PostgreSQL lost its last rows it gives their ids again"
    assert not known.reaches(ancient.created_at)
    assert now - WINDOW - timedelta(seconds=10) < known.floor <= now - WINDOW


async def test_what_is_no_event_is_passed_over(nats: Nats) -> None:
    """Somebody's message in the stream counts as a sequence and as nothing else."""
    row = _row(utc_now())
    await (await nats.publish_stored("arvados.events.other.none.other", b"junk"))
    await _store(nats, row)
    await (await nats.publish_stored("arvados.events.other.none.other", b"{}"))
    position = await resume.from_stream(nats, WINDOW, utc_now(), FRESH)
    assert (len(position.known), position.last_sequence) == (1, 3)


async def test_a_purged_stream_keeps_its_sequence(nats: Nats) -> None:
    """The next message must expect it."""
    await _store(nats, _row(utc_now()))
    await nats.js_api(f"STREAM.PURGE.{streams.EVENTS}", {})
    position = await resume.from_stream(nats, WINDOW, utc_now(), FRESH)
    assert (len(position.known), position.last_sequence) == (0, 1)


async def test_an_old_row_is_settled_when_the_stream_has_it(nats: Nats) -> None:
    """It is counted as a duplicate; another row about the same object is not settled by it."""
    row = _row(utc_now())
    await _store(nats, row)
    after = replace(row, created_at=utc_now() + timedelta(seconds=1))
    before = skipped("duplicate")
    past = await resume.from_stream(nats, WINDOW, utc_now(), FRESH)
    assert await past.settled(after)
    assert skipped("duplicate") == before + 1
    assert not await past.settled(replace(after, uuid=new_uuid("57u5n")))


async def test_a_row_from_before_the_stream_is_too_old(nats: Nats) -> None:
    """And so is every old row while the stream is empty."""
    before = skipped("too_old")
    past = await resume.from_stream(nats, WINDOW, utc_now(), FRESH)
    assert await past.settled(_row(utc_now()))
    await _store(nats, _row(utc_now()))
    assert await past.settled(_row(utc_now() - timedelta(hours=1)))
    assert skipped("too_old") == before + 2


async def test_publishing_begins_before_the_whole_window_was_read(nats: Nats) -> None:
    """However much it holds; what is in the part that was not read yet is asked about."""
    now = utc_now()
    rows = [_row(now - timedelta(seconds=n), n) for n in range(1200)]
    await _store(nats, *reversed(rows))
    past = await resume.from_stream(nats, WINDOW, now, FRESH)
    assert not past.whole
    assert past.newest == now
    assert len(past.known) < 600
    new = [replace(row, uuid=new_uuid("57u5n")) for row in rows[::100]]
    asked = [row for pair in zip(rows[::100], new, strict=True) for row in pair]
    assert await past.lacking(asked) == new
    await past.read()
    assert past.whole
    assert len(past.known) == len(rows)
    assert await past.lacking(new) == new


async def test_an_object_with_very_many_events_is_waited_for(nats: Nats) -> None:
    """Then the part of the stream that may hold the row is read before anything is said."""
    now, uuid = utc_now(), new_uuid("4zz18")
    rows = [
        replace(_row(now - timedelta(seconds=n / 10), n), object_uuid=uuid) for n in range(1600)
    ]
    await _store(nats, *reversed(rows))
    past = await resume.from_stream(nats, WINDOW, now, FRESH)
    new = replace(rows[-1], uuid=new_uuid("57u5n"))
    asking = asyncio.create_task(past.lacking([rows[-1], new]))
    await nats.flush()
    assert not past.whole
    await past.read()
    assert await asyncio.wait_for(asking, 60) == [new]


async def test_without_a_stream_nothing_can_be_said(nats: Nats) -> None:
    """Unavailable: make the stream first."""
    past = await resume.from_stream(nats, WINDOW, utc_now(), FRESH)
    await nats.js_api(f"STREAM.DELETE.{streams.EVENTS}")
    with pytest.raises(Unavailable):
        await resume.from_stream(nats, WINDOW, utc_now(), FRESH)
    with pytest.raises(Unavailable):
        await past.settled(_row(utc_now()))
