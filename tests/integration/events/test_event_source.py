# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The event stream as one unbroken sequence, whatever NATS loses, and places in it by log row."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from arvados_nats.contract import events, streams, subjects
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.acks import Ack
from arvados_nats.nats.client import Handler, Message, Nats, Subscription
from arvados_nats.service import keys
from arvados_nats.service.ops import Health
from publishers.jetstream.follower import follow
from sandbox.servers.nats_server import NatsServer
from tests.support.background import background
from tests.support.made_events import made
from wsproxy.events.cursor import EventCursor
from wsproxy.events.event_source import EventSource
from wsproxy.events.history import History
from wsproxy.events.recent import Recent
from wsproxy.events.router import Router
from wsproxy.events.row_positions import Place, RowPositions
from wsproxy.events.stored_event import StoredEvent


@pytest.fixture
async def nats(fresh_nats: NatsServer, keys_folder: Path) -> AsyncIterator[Nats]:
    """A connection to a server with an empty stream."""
    seed = keys.load(keys_folder, "publisher").text
    async with nats_client.connect([fresh_nats.url], name="test", seed=seed) as connection:
        await streams.ensure(connection, streams.event_stream())
        yield connection


async def store(nats: Nats, *row_ids: int) -> list[int]:
    """Store events with these row ids; their sequences."""
    acks = [await _published(nats, row_id) for row_id in row_ids]
    return [await _stored(nats, *pair) for pair in zip(row_ids, acks, strict=True)]


async def _published(nats: Nats, row_id: int) -> asyncio.Future[Ack]:
    event = made(row_id).event
    subject = subjects.event(event.object_uuid, event.event_type)
    headers = {"Nats-Msg-Id": event.uuid}
    return await nats.publish_stored(subject, events.encode(event), headers)


async def _stored(nats: Nats, row_id: int, ack: asyncio.Future[Ack]) -> int:
    """The sequence; sent again where a connection took the message with it."""
    while True:
        with contextlib.suppress(TimeoutError):
            return int((await asyncio.wait_for(ack, 3))["seq"])
        await nats.until_connected()
        ack = await _published(nats, row_id)


class Watched:
    """A running source, and what it dispatched."""

    def __init__(self, source: EventSource) -> None:
        self.source = source
        self.sequences: list[int] = []
        source.router.before_dispatch.append(self._note)

    def _note(self, stored: StoredEvent) -> None:
        self.sequences.append(stored.sequence)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110  (looked at from outside)
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def watched(nats: Nats) -> AsyncIterator[Watched]:
    """A source at work."""
    watch = Watched(EventSource(nats, Router(), Health(), lambda: 0.0))
    async with background(watch.source.run()):
        await asyncio.wait_for(watch.source.ready.wait(), 60)
        yield watch


async def test_begins_at_the_end_and_remembers_what_is_before_it(nats: Nats) -> None:
    """Nothing old is dispatched, but it is at hand for who asks."""
    await store(nats, *range(1, 51))
    async with watched(nats) as watch:
        assert watch.source.position == 50
        last = await store(nats, 51)
        await watch.until(lambda: watch.sequences == last)
        assert [s.sequence for s in watch.source.recent.after(0, 100) or ()] == list(range(1, 52))


async def test_what_is_announced_behind_an_event_is_waited_for(nats: Nats) -> None:
    """What one transaction made and shared is looked at together, however NATS delivers it; when
    the change of rights does not come, the event is not kept for long."""
    batches: list[int] = []
    event = made(1).event
    subject = subjects.event(event.object_uuid, event.event_type)
    announced = {events.GRAPH_FOLLOWS: "1"}
    async with watched(nats) as watch:
        prepare = watch.source.router.prepare

        def note(batch: Sequence[StoredEvent]) -> None:
            batches.append(len(batch))
            prepare(batch)

        watch.source.router.prepare = note  # type: ignore[method-assign]
        await (await nats.publish_stored(subject, events.encode(event), announced))
        await nats.flush()
        await store(nats, 2)
        await watch.until(lambda: len(watch.sequences) == 2)
        assert batches == [2]
        await (await nats.publish_stored(subject, events.encode(event), announced))
        await watch.until(lambda: len(watch.sequences) == 3)
        assert batches == [2, 1]


async def test_a_message_that_is_lost_is_read_from_the_stream(
    nats: Nats, fresh_nats: NatsServer, keys_folder: Path
) -> None:
    """In its place, before what came after it."""
    lost = {4, 5, 9}
    seed = keys.load(keys_folder, "publisher").text
    async with nats_client.connect([fresh_nats.url], name="lossy", seed=seed) as other:
        subscribe = other.subscribe

        async def lossy(subject: str, handler: Handler, *, queue: str = "") -> Subscription:
            async def some(message: Message) -> None:
                if int(message.headers["Nats-Sequence"]) not in lost:
                    await handler(message)

            return await subscribe(subject, some, queue=queue)

        other.subscribe = lossy  # type: ignore[method-assign]
        await store(nats, 1, 2)
        async with watched(other) as watch:
            await store(nats, *range(3, 10))
            await watch.until(lambda: len(watch.sequences) >= 6)
            assert watch.sequences[:6] == [3, 4, 5, 6, 7, 8]
            await watch.until(lambda: watch.sequences == [3, 4, 5, 6, 7, 8, 9])


async def test_who_carries_a_stream_on_finds_a_last_message_that_was_lost(
    nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing comes behind it that would show a hole."""
    monkeypatch.setattr("publishers.jetstream.follower._LOOK_SECONDS", 0.2)
    subscribe = nats.subscribe

    async def deaf(subject: str, handler: Handler, *, queue: str = "") -> Subscription:
        async def ignore(_: Message) -> None: ...

        return await subscribe(subject, ignore, queue=queue)

    nats.subscribe = deaf  # type: ignore[method-assign]
    await store(nats, 1)
    async with follow(nats, streams.EVENTS, subjects.EVENTS) as follower:
        batches = follower.batches(0)
        assert [found.sequence for found in await anext(batches)] == [1]
        following = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0.1)  # it waits
        await store(nats, 2)
        assert [found.sequence for found in await asyncio.wait_for(following, 60)] == [2]


async def test_who_carries_a_stream_on_asks_where_to_begin_in_another_one(nats: Nats) -> None:
    """What it holds is not passed over for the places of the former one."""
    await store(nats, 1, 2, 3)
    async with follow(nats, streams.EVENTS, subjects.EVENTS) as follower:
        batches = follower.batches(3)
        following = asyncio.create_task(anext(batches, None))
        await asyncio.sleep(0.1)  # it waits
        await nats.js_api(f"STREAM.DELETE.{streams.EVENTS}")
        await streams.ensure(nats, streams.event_stream())
        await store(nats, 4)
        assert await asyncio.wait_for(following, 60) is None


async def test_bad_messages_are_left_out_and_the_rest_goes_on(nats: Nats) -> None:
    """Whatever stands in the stream."""
    async with watched(nats) as watch:
        await store(nats, 1)
        for payload in (b"", b"{}", b"\xff", b"[" * 10_000):
            ack = await nats.publish_stored(f"{subjects.EVENTS}.other.none.other", payload)
            await ack
        last = await store(nats, 2)
        await watch.until(lambda: watch.sequences == [1, *last])
        assert watch.source.position == 6


async def test_a_stream_made_anew_begins_again(nats: Nats) -> None:
    """Its sequences are lower than those seen before."""
    async with watched(nats) as watch:
        told: list[bool] = []
        watch.source.on_reset.add(lambda: told.append(True))
        await store(nats, *range(1, 20))
        await watch.until(lambda: len(watch.sequences) == 19)
        watch.sequences.clear()
        await nats.js_api(f"STREAM.DELETE.{streams.EVENTS}")
        await streams.ensure(nats, streams.event_stream())
        await store(nats, 1, 2, 3)
        await watch.until(lambda: watch.sequences[-3:] == [1, 2, 3])
        assert told
        await store(nats, 4)
        await watch.until(lambda: watch.sequences[-1:] == [4])


async def test_a_stream_that_has_lost_its_messages_alone_is_another_one(
    nats: Nats, fresh_nats: NatsServer
) -> None:
    """It was made when it was before, and is filled beyond the place; old cursors have no mark."""
    await store(nats, *range(1, 11))
    async with watched(nats) as watch:
        place = watch.source.cursor(10)
        assert await watch.source.knows(place)
    await fresh_nats.kill()
    for found in fresh_nats.folder.rglob("msgs"):
        shutil.rmtree(found)
    await fresh_nats.start()
    await nats.until_connected()
    await store(nats, *range(1, 13))
    async with watched(nats) as watch:
        assert watch.source.created == place.created
        assert not await watch.source.knows(place)
        assert await watch.source.knows(EventCursor(place.created, 10))
        here = watch.source.cursor(12)
        await nats.js_api(f"STREAM.PURGE.{streams.EVENTS}", {"keep": 1})
        assert await watch.source.knows(here)
        await store(nats, 13)
        await nats.js_api(f"STREAM.PURGE.{streams.EVENTS}", {"keep": 1})
        assert await watch.source.knows(here), "it is gone with age, which is told by its sequence"
        await nats.js_api(f"STREAM.PURGE.{streams.EVENTS}")
        assert await watch.source.knows(here), "and so is all that followed"


async def test_a_lost_stream_is_noticed_as_soon_as_it_is_made_anew(
    nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with the next look: until then its sequences could be taken for those of the old one."""
    monkeypatch.setattr("wsproxy.events.event_source._CHECK_SECONDS", 3600.0)
    await store(nats, *range(1, 11))
    anew = asyncio.Event()
    async with watched(nats) as watch:
        watch.source.on_reset.add(anew.set)
        await nats.js_api(f"STREAM.DELETE.{streams.EVENTS}")
        watch.source._check_now.set()
        await watch.until(lambda: not watch.source._check_now.is_set())
        await streams.ensure(nats, streams.event_stream())
        await store(nats, *range(1, 12))
        await asyncio.wait_for(anew.wait(), 60)


async def test_a_restart_in_the_middle_leaves_no_gap(nats: Nats, fresh_nats: NatsServer) -> None:
    """Events stored before, while and after it."""
    async with watched(nats) as watch:
        await store(nats, *range(1, 11))
        await fresh_nats.restart()
        await nats.until_connected()
        await store(nats, *range(11, 21))
        await watch.until(lambda: len(watch.sequences) == 20)
        assert watch.sequences == list(range(1, 21))


async def test_history_is_read_in_blocks_that_readers_share(nats: Nats) -> None:
    """Deleted and expired messages are no obstacle."""
    await store(nats, *range(1, 1301))
    await nats.js_api(f"STREAM.PURGE.{streams.EVENTS}", {"seq": 21})
    for sequence in (500, 501, 700):
        await nats.js_api(f"STREAM.MSG.DELETE.{streams.EVENTS}", {"seq": sequence})
    recent = Recent()
    recent.reset(1301)
    history = History(nats, recent)

    async def everything(after: int) -> list[int]:
        found: list[int] = []
        while after < 1300:
            block = await history.after(after, 1300)
            found += [stored.sequence for stored in block.events if stored.sequence > after]
            after = block.next_sequence - 1
        return found

    wanted = [s for s in range(21, 1301) if s not in (500, 501, 700)]
    results = await asyncio.gather(everything(0), everything(0), everything(600))
    assert list(results) == [wanted, wanted, [s for s in wanted if s > 600]]


async def _place(nats: Nats, row_id: int, since: datetime | None = None) -> Place:
    return await RowPositions(nats, Recent()).after_row(row_id, since, "")


async def test_rows_are_found_wherever_they_stand(nats: Nats) -> None:
    """Ids nearly in order, some committed late, some lies: each row has its place."""
    dice = random.Random(7)
    row_ids = list(range(1000, 7000))
    for _ in range(300):  # late commits
        row = row_ids.pop(dice.randrange(len(row_ids)))
        row_ids.insert(min(len(row_ids), row - 1000 + dice.randrange(200)), row)
    for lie in (2**63 - 1, -5, 10**15, 1):
        row_ids.insert(dice.randrange(len(row_ids)), lie)
    for start in range(0, len(row_ids), 1000):
        await store(nats, *row_ids[start : start + 1000])
    for row_id in dice.sample(row_ids, 25):
        if 1000 <= row_id < 7000:
            assert await _place(nats, row_id) == Place(row_ids.index(row_id) + 1, exact=True)


async def test_a_row_that_is_not_there_stands_before_all_higher_ids(nats: Nats) -> None:
    """Nothing with a higher id is before its place."""
    row_ids = list(range(10, 20_000, 2))
    for start in range(0, len(row_ids), 1000):
        await store(nats, *row_ids[start : start + 1000])
    for row_id in (1, 11, 9_999, 19_997, 30_000):
        place = await _place(nats, row_id)
        assert not place.exact
        assert all(row <= row_id for row in row_ids[: place.sequence])
    now = datetime.now(UTC)
    assert (await _place(nats, 1, now - timedelta(days=30))).sequence == 0
    assert (await _place(nats, 1, now + timedelta(hours=1))).sequence == len(row_ids)


async def test_an_empty_stream_has_a_place_too(nats: Nats) -> None:
    """Before everything to come."""
    assert await _place(nats, 5) == Place(0, exact=False)
