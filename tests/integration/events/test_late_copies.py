# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A copy of a stream that is late answers direct gets, too: nobody takes its silence for the end.

A replica is late for a moment after each write, and for long after it stood still; a mirror that
somebody made answers beside the stream by itself. Here it is a mirror that takes one subject.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from arvados_nats.contract import events, streams, subjects
from arvados_nats.contract.events import Event
from arvados_nats.errors import Unavailable
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Handler, Message, Nats, Subscription
from arvados_nats.service import keys
from arvados_nats.service.ops import Health
from publishers.events import resume
from publishers.events.rows import LogRow
from publishers.jetstream.follower import follow
from publishers.jetstream.writer import Outgoing, StreamWriter
from publishers.live.cursor import READER, Cursor, Options
from sandbox.servers.nats_server import NatsServer
from tests.support.background import background
from tests.support.made_events import made
from wsproxy.events import row_positions
from wsproxy.events.event_source import EventSource
from wsproxy.events.history import History
from wsproxy.events.present import Present
from wsproxy.events.recent import Recent
from wsproxy.events.router import Router
from wsproxy.events.row_positions import RowPositions
from wsproxy.objects import history as object_history

_COUNT = 41
_ALL = list(range(1, _COUNT + 1))
_TRIES = 12
"""Half of the questions go to the copy that is late."""


def _event(row_id: int) -> Event:
    return made(row_id, f"zzzzz-4zz18-{row_id:015d}").event


def _message(row_id: int) -> Outgoing:
    event = _event(row_id)
    subject = subjects.event(event.object_uuid, event.event_type)
    return Outgoing(subject, event.uuid, events.encode(event))


async def _store(nats: Nats, row_id: int) -> None:
    message = _message(row_id)
    await (await nats.publish_stored(message.subject, message.payload, {"Nats-Msg-Id": message.id}))


@pytest.fixture
async def nats(fresh_nats: NatsServer, keys_folder: Path) -> AsyncIterator[Nats]:
    """A connection to a server with events, and a copy that has the first of them alone."""
    seed = keys.load(keys_folder, "publisher").text
    async with nats_client.connect([fresh_nats.url], name="test", seed=seed) as connection:
        await streams.ensure(connection, streams.event_stream())
        await _store(connection, 1)
        await _copy(connection, "LATE", _message(1).subject)
        await _store(connection, 2)
        async with asyncio.timeout(60):
            late = functools.partial(connection.next, streams.EVENTS, f"{subjects.EVENTS}.>", 2)
            while await late() is not None:  # noqa: ASYNC110  (the server tells nobody)
                await asyncio.sleep(0.01)
        yield connection


async def _copy(nats: Nats, name: str, subject: str, stream: str = streams.EVENTS) -> None:
    """A copy that takes one subject of what is stored by now, and answers for the stream."""
    config = {"name": name, "storage": "file", "max_bytes": 1 << 20, "mirror_direct": True}
    mirror = {"name": stream, "filter_subject": subject}
    await nats.js_api(f"STREAM.CREATE.{name}", {**config, "mirror": mirror})


async def _of_history(nats: Nats) -> list[int]:
    recent = Recent()
    recent.reset(_COUNT + 1)
    block = await History(nats, recent).after(0, _COUNT)
    assert block.next_sequence == _COUNT + 1
    return [stored.sequence for stored in block.events]


async def _of_pages(nats: Nats) -> list[int]:
    pattern = f"{subjects.EVENTS}.>"
    found = nats.history(streams.EVENTS, pattern, until=_COUNT, batch=10)
    return [stored.sequence async for stored in found]


async def _of_follower(nats: Nats) -> list[int]:
    found: list[int] = []
    async with follow(nats, streams.EVENTS, subjects.EVENTS) as follower:
        async for batch in follower.batches(0):
            found += [message.sequence for message in batch]
            if found[-1] == _COUNT:
                break
            follower.connection_changed(True)  # nothing more comes by itself
    return found


async def _of_resume(nats: Nats) -> list[int]:
    long = timedelta(days=3650)
    now = datetime.now(UTC).replace(tzinfo=None)
    past = await resume.from_stream(nats, timedelta(minutes=35), now, long)
    return [
        row_id
        for row_id, event in ((row_id, _event(row_id)) for row_id in _ALL)
        if past.known.has(event.uuid, datetime.fromisoformat(event.created_at).replace(tzinfo=None))
    ]


async def _of_writer(nats: Nats) -> list[int]:
    """One that has lost all acknowledgements leaves out what was stored."""
    writer = StreamWriter(nats, streams.EVENTS, 0, health=Health())
    writer._unsent.extend(map(_message, _ALL))
    await writer._skip_stored()
    return _ALL[: _COUNT - len(writer._unsent)]


async def _of_rows(nats: Nats) -> list[int]:
    """What a publisher that has just begun would not publish again."""
    info = await nats.stream_info(streams.EVENTS)
    assert info is not None
    past, rows = resume.Past(nats, info["state"]), [_row(row_id) for row_id in _ALL]
    lacking = {row.id for row in await past.lacking(rows)}
    return [row_id for row_id in _ALL if row_id not in lacking]


async def _of_old_rows(nats: Nats) -> list[int]:
    """The same of rows that are older than all that it knows."""
    info = await nats.stream_info(streams.EVENTS)
    assert info is not None
    past, now = resume.Past(nats, info["state"]), datetime.now(UTC).replace(tzinfo=None)
    last = msgspec.structs.replace(_row(_COUNT), created_at=now)
    return _ALL if await past.settled(last) else []


def _row(row_id: int) -> LogRow:
    event = _event(row_id)
    created_at = datetime.fromisoformat(event.created_at).replace(tzinfo=None)
    object_uuid, kind = event.object_uuid, event.event_type
    return LogRow(row_id, event.uuid, kind, None, created_at, object_uuid, None, "collection", {})


@pytest.mark.parametrize(
    "read",
    [
        _of_history,
        _of_pages,
        _of_follower,
        _of_resume,
        _of_writer,
        _of_rows,
        _of_old_rows,
    ],
    ids=lambda f: f.__name__,
)
async def test_nothing_is_missing(nats: Nats, read: Callable[[Nats], Awaitable[list[int]]]) -> None:
    """Whoever reads up to a place has all up to there, or is told that it cannot be had now."""
    for row_id in _ALL[2:]:
        await _store(nats, row_id)
    whole = 0
    for _ in range(_TRIES):
        with contextlib.suppress(Unavailable):
            assert await read(nats) == _ALL
            whole += 1
    assert whole


async def test_no_event_is_passed_over(
    nats: Nats, fresh_nats: NatsServer, keys_folder: Path
) -> None:
    """Those that were not heard live come from the stream, however late a copy is."""
    seed = keys.load(keys_folder, "wsproxy").text
    async with nats_client.connect([fresh_nats.url], name="lossy", seed=seed) as other:
        subscribe = other.subscribe

        async def lossy(subject: str, handler: Handler, *, queue: str = "") -> Subscription:
            async def some(message: Message) -> None:
                if int(message.headers["Nats-Sequence"]) % 2:
                    await handler(message)

            return await subscribe(subject, some, queue=queue)

        other.subscribe = lossy  # type: ignore[method-assign]
        source = EventSource(other, Router(), Health(), lambda: 0.0)
        seen: list[int] = []
        source.router.before_dispatch.append(lambda stored: seen.append(stored.sequence))
        async with background(source.run()):
            await asyncio.wait_for(source.ready.wait(), 60)
            for row_id in _ALL[2:]:
                await _store(nats, row_id)
            await asyncio.wait_for(source.reached(_COUNT), 60)
    assert seen == _ALL[2:]


async def test_a_state_has_its_last_change(nats: Nats) -> None:
    """A copy that has the creation alone does not keep a container queued for ever."""
    container = "zzzzz-dz642-000000000000001"
    for row_id, event_type, now in ((3, "create", "Queued"), (4, "update", "Running")):
        event = made(
            row_id, container, event_type=event_type, properties={"new_attributes": {"state": now}}
        ).event
        subject = subjects.event(container, event_type)
        await (await nats.publish_stored(subject, events.encode(event), {}))
        if event_type == "create":
            await _copy(nats, "NEW", subject)
    async with asyncio.timeout(60):
        late = functools.partial(nats.next, streams.EVENTS, subjects.events_of(container), 4)
        while await late() is not None:  # noqa: ASYNC110  (the server tells nobody)
            await asyncio.sleep(0.01)
    for _ in range(3 * _TRIES):
        with contextlib.suppress(Unavailable):
            found = await object_history.state(nats, container, 4)
            assert found is not None and found["state"] == "Running"


async def test_the_last_owner_is_the_last(nats: Nats) -> None:
    """A copy that lacks the move shows a deletion to nobody who lost the object before."""
    gone, former, last = "zzzzz-4zz18-00000000000gone", _owner(1), _owner(2)
    for row_id, event_type, owner in ((3, "create", former), (4, "update", last)):
        event = made(row_id, gone, owner, event_type=event_type).event
        subject = subjects.event(gone, event_type)
        await (await nats.publish_stored(subject, events.encode(event), {}))
        if event_type == "create":
            await _copy(nats, "NEW", subject)
    for _ in range(3 * _TRIES):
        with contextlib.suppress(Unavailable):
            assert await Present(nats, lambda: 0.0)._last_owners([gone]) == {gone: last}


def _owner(number: int) -> str:
    return f"zzzzz-tpzed-{number:015d}"


async def test_a_time_is_found_where_it_is(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that has nothing since then does not make it the end of the stream."""
    monkeypatch.setattr(row_positions, "_CLOCKS_APART", timedelta())
    second = await nats.last_of_leader(streams.EVENTS, _message(2).subject)
    assert second is not None
    since = datetime.fromisoformat(second.time)
    for row_id in _ALL[2:]:
        await _store(nats, row_id)
    for _ in range(_TRIES):
        found = await RowPositions(nats, Recent()).after_row(10**9, since, "")
        assert found.sequence == 1
    later = since + timedelta(days=1)
    assert (await RowPositions(nats, Recent()).after_row(10**9, later, "")).sequence == _COUNT


async def test_the_live_cursor_is_the_last(nats: Nats) -> None:
    """Who takes over goes on where the last leader stopped."""
    await streams.ensure(nats, streams.cursor_stream())
    info = await nats.stream_info(streams.EVENTS)
    assert info is not None
    other, ours = (subjects.cursor(name, streams.EVENTS) for name in ("other", READER))
    await (await nats.publish_stored(other, b"1"))
    await _copy(nats, "OLD", other, streams.CURSORS)
    await (await nats.publish_stored(ours, f"1 {info['created']}".encode()))
    async with asyncio.timeout(60):
        while await nats.last(streams.CURSORS, ours) is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    options = Options(catch_up=timedelta(days=1))
    for _ in range(_TRIES):
        assert await Cursor(nats, streams.EVENTS, subjects.EVENTS, options).start() == 1
