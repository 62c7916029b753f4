# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Many readers who are behind: whoever else has something to do waits for one, not for all."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from arvados_nats.arvados import client as arvados_client
from arvados_nats.contract import events, streams, subjects
from arvados_nats.contract.places import Place
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Message, Nats
from arvados_nats.permission_client import object_messages
from arvados_nats.permissions.grants import DIRECT, OWNED, Grants
from arvados_nats.permissions.judge import Judge
from arvados_nats.permissions.object_facts import ObjectFacts, timestamp
from arvados_nats.permissions.rule import Identity
from arvados_nats.service import keys
from arvados_nats.service.ops import Health
from sandbox.servers.nats_server import NatsServer
from tests.support.log_readers import MemoryWire
from tests.support.made_events import PROJECT, made
from tests.support.waiting import until
from wsproxy.events import replays
from wsproxy.events.batch import Batch
from wsproxy.events.block import Block
from wsproxy.events.consumer import EventConsumer
from wsproxy.events.event_source import EventSource
from wsproxy.events.permission_check import PermissionCheck
from wsproxy.events.present import FRESH_SECONDS, Present
from wsproxy.events.principal import Principal
from wsproxy.events.record_check import RecordCheck
from wsproxy.events.router import Router
from wsproxy.events.stored_event import StoredEvent
from wsproxy.transport.send_buffers import SendBuffers

READERS, EVENTS, PAST, AT_ONCE = 30, 600, 6000, 100
ELSEWHERE = "zzzzz-j7d0g-elsewhere000000"


@pytest.fixture
async def source(nats_server: NatsServer, keys_folder: Path) -> AsyncIterator[EventSource]:
    """A source that holds events, beside a publisher that says where their objects are."""
    async with _opened(nats_server, keys_folder) as opened:
        for sequence in range(1, EVENTS + 1):
            opened.recent.add(made(sequence))
        opened._position = EVENTS
        yield opened


@pytest.fixture
async def past(fresh_nats: NatsServer, keys_folder: Path) -> AsyncIterator[EventSource]:
    """The same, but only the stream has the events."""
    seed = keys.load(keys_folder, "publisher").text
    async with nats_client.connect([fresh_nats.url], name="test", seed=seed) as nats:
        await streams.ensure(nats, streams.event_stream())
        acks = []
        for sequence in range(1, PAST + 1):
            event = made(sequence).event
            subject = subjects.event(event.object_uuid, event.event_type)
            acks.append(await nats.publish_stored(subject, events.encode(event)))
        await asyncio.gather(*acks)
    async with _opened(fresh_nats, keys_folder) as opened:
        opened.recent.reset(PAST + 1)
        opened._position = PAST
        yield opened


@asynccontextmanager
async def _opened(server: NatsServer, keys_folder: Path) -> AsyncIterator[EventSource]:
    seed = keys.load(keys_folder, "wsproxy").text
    publisher = keys.load(keys_folder, "publisher").text
    async with (
        nats_client.connect([server.url], name="wsproxy", seed=seed) as nats,
        nats_client.connect([server.url], name="publisher", seed=publisher) as answering,
    ):

        async def answer(message: Message) -> None:
            uuids = msgspec.json.decode(message.data, type=list[str])
            found = [
                ObjectFacts("collection", uuid, PROJECT, places=(Place(PROJECT),)) for uuid in uuids
            ]
            await answering.publish(message.reply, object_messages.encode_facts(found))

        await answering.subscribe(subjects.OBJECTS_FACTS, answer)
        await answering.flush()
        yield EventSource(nats, Router(), Health(), lambda: 0.0)


def _consumer(
    source: EventSource,
    check: PermissionCheck,
    found: list[int],
    ahead: list[int],
    project: str = PROJECT,
) -> EventConsumer:
    principal = Principal(Identity("t", "u"), check, lambda i, g: Judge(i, g, 0.0))
    principal.set_grants(Grants("u", targets={project: DIRECT | OWNED}))

    def accept(batch: Batch) -> None:
        found.extend(stored.sequence for stored in batch.events)

    buffer = SendBuffers().open(MemoryWire(lambda _: None))
    return EventConsumer(source, principal, buffer, accept, queued=ahead.append)


async def test_a_bystander_waits_for_one_page_whoever_is_behind(source: EventSource) -> None:
    """All of them come to the end, in order, and between two turns of another task no more is
    sent than one of them may send at once."""
    delivered: list[list[int]] = [[] for _ in range(READERS)]
    most = seen = 0

    async with arvados_client.connect("http://127.0.0.1:9") as arvados:
        check = PermissionCheck(RecordCheck(arvados))
        consumers = [_consumer(source, check, found, []) for found in delivered]
        for one in consumers:
            one.start(0)
        async with asyncio.timeout(60):
            while any(len(found) < EVENTS for found in delivered):
                await asyncio.sleep(0)
                now = sum(map(len, delivered))
                most, seen = max(most, now - seen), now
        for one in consumers:
            one.stop()

    assert all(found == [*range(1, EVENTS + 1)] for found in delivered)
    assert most <= AT_ONCE


async def test_who_is_at_the_end_goes_on_live_though_new_events_come_all_the_time(
    source: EventSource,
) -> None:
    """One in each turn of the loop: who looked for the end a turn later would never be there."""
    most = 3 * EVENTS
    source.present = Present(source.present._nats, lambda: ROW + 1.0)
    async with arvados_client.connect("http://127.0.0.1:9") as arvados:
        check = PermissionCheck(RecordCheck(arvados))
        consumers = [_consumer(source, check, [], [], ELSEWHERE) for _ in range(READERS)]
        for one in consumers:
            one.start(0)
        for sequence in range(EVENTS + 1, most):
            if all(one.live for one in consumers):
                break
            source._position = sequence
            source.recent.add(made(sequence))
            source.present.seen(made(sequence))
            await asyncio.sleep(0)
        for one in consumers:
            one.stop()
    assert source.position < most - 1


class Counting:
    """Counts the reads of the stream, and the questions."""

    def __init__(self, nats: Nats) -> None:
        self.reads = 0
        self._nats = nats

    async def whole_page(self, *asked: Any) -> Any:
        self.reads += 1
        return await self._nats.whole_page(*asked)

    async def request(self, *asked: Any) -> Any:
        self.reads += 1
        return await self._nats.request(*asked)


async def test_the_past_is_read_for_all_who_are_behind(past: EventSource) -> None:
    """Wherever each of them stands: who is furthest behind comes by the others, and all go on.

    Each by themselves would read all pages from theirs on.
    """
    pages = PAST // 100
    counting = Counting(past.history._nats)
    past.history._nats = counting  # type: ignore[assignment]
    ahead: list[list[int]] = [[] for _ in range(READERS)]
    async with arvados_client.connect("http://127.0.0.1:9") as arvados:
        check = PermissionCheck(RecordCheck(arvados))
        consumers = [_consumer(past, check, [], told, ELSEWHERE) for told in ahead]
        for number, one in reversed([*enumerate(consumers)]):
            one.start(number * (PAST // READERS))
        async with asyncio.timeout(120):
            while not all(one.live for one in consumers):  # noqa: ASYNC110  (looked at from outside)
                await asyncio.sleep(0.01)
        for one in consumers:
            assert one.position == PAST
            one.stop()

    assert counting.reads <= 3 * pages
    assert any(ahead)
    assert all(len(told) <= 1 for told in ahead)


async def test_all_come_to_the_end_of_the_past_in_order(past: EventSource) -> None:
    """Each event once, and with none left out, from wherever they begin."""
    delivered: list[list[int]] = [[] for _ in range(5)]
    async with arvados_client.connect("http://127.0.0.1:9") as arvados:
        check = PermissionCheck(RecordCheck(arvados))
        consumers = [_consumer(past, check, found, []) for found in delivered]
        for number, one in enumerate(consumers):
            one.start(number * 1234)
        async with asyncio.timeout(120):
            while not all(one.live for one in consumers):  # noqa: ASYNC110  (looked at from outside)
                await asyncio.sleep(0.01)
        for one in consumers:
            one.stop()
    for number, found in enumerate(delivered):
        assert found == [*range(number * 1234 + 1, PAST + 1)]


async def test_what_was_being_read_when_the_stream_was_made_anew_is_not_shown(
    past: EventSource,
) -> None:
    """The same sequences are other events then, and the reader begins at the same place again."""
    asked, answered, found = asyncio.Event(), asyncio.Event(), list[int]()
    read = past.history.after

    async def of_before(*_: Any) -> Block:
        past.history.after = read  # type: ignore[method-assign]
        asked.set()
        await answered.wait()
        return Block([made(PAST)], PAST + 1)

    past.history.after = of_before  # type: ignore[method-assign,assignment]
    async with arvados_client.connect("http://127.0.0.1:9") as arvados:
        consumer = _consumer(past, PermissionCheck(RecordCheck(arvados)), found, [])
        consumer.start(0)
        await asyncio.wait_for(asked.wait(), 60)
        consumer.start(0)
        answered.set()
        await until(lambda: consumer.live)
        consumer.stop()
    assert found == [*range(1, PAST + 1)]


async def test_who_is_behind_is_not_asked_about_what_others_have(past: EventSource) -> None:
    """Each event of the past, for each reader: with new ones coming they would never be at its end.

    Who has the project is asked about each of its events, who has another about none.
    """
    asked: Counter[str] = Counter()
    async with arvados_client.connect("http://127.0.0.1:9") as arvados:
        check = PermissionCheck(RecordCheck(arvados))

        def judge(identity: Identity, grants: Grants) -> Judge:
            asked[identity.user_uuid] += 1
            return Judge(identity, grants, 0.0)

        consumers = []
        for user, project in (("owner", PROJECT), ("stranger", ELSEWHERE)):
            principal = Principal(Identity("t", user), check, judge)
            principal.set_grants(Grants(user, targets={project: DIRECT | OWNED}))
            buffer = SendBuffers().open(MemoryWire(lambda _: None))
            consumers.append(EventConsumer(past, principal, buffer, lambda _: None))
        for one in consumers:
            one.start(0)
        async with asyncio.timeout(60):
            while not all(one.live for one in consumers):  # noqa: ASYNC110  (two conditions)
                await asyncio.sleep(0.01)
        for one in consumers:
            assert one.position == PAST
            one.stop()
    assert asked == {"owner": PAST}


ROW = timestamp("2026-01-02T03:04:05Z") or 0.0
"""When the rows of `made` were made."""


@pytest.mark.parametrize(
    ("age", "then", "asked"),
    [
        (1.0, None, 0),
        (FRESH_SECONDS + 1, None, 1),
        (-2.0, None, 1),  # no clock is as far ahead
        (1.0, made(2, PROJECT, facts={"is_role": False}), 1),
        (1.0, made(2, event_type="delete", facts={"uuid": ""}), 1),
    ],
    ids=["new", "old", "of a wrong clock", "its project changed", "it is gone"],
)
async def test_what_a_new_event_tells_of_its_object_is_not_asked_for(
    source: EventSource, age: float, then: StoredEvent | None, asked: int
) -> None:
    """Unless something may have changed since."""
    counting = Counting(source.present._nats)
    present = Present(counting, lambda: ROW + age)  # type: ignore[arg-type]
    stored = made(1)
    present.seen(stored)
    if then is not None:
        present.seen(then)
    assert await present.of([stored]) == [stored]
    assert counting.reads == asked


MOVED = made(2, owner=ELSEWHERE)
REQUEST = "zzzzz-xvhdp-request00000000"
CONTAINER = "zzzzz-dz642-container000000"


@pytest.mark.parametrize(
    ("of", "then", "asked", "shared"),
    [
        (made(1), made(2), 0, True),
        (made(1), made(2, "zzzzz-4zz18-another00000000"), 0, True),
        (made(1), made(2, REQUEST), 0, True),
        (made(1), MOVED, 0, False),
        (made(1), made(2, PROJECT, facts={"is_role": False}), 1, True),
        (made(1), made(2, event_type="delete", facts={"uuid": ""}), 1, True),
        (made(1, CONTAINER), made(2, REQUEST), 1, True),
        (made(1, CONTAINER), made(2), 1, True),
    ],
    ids=[
        *("nothing new", "another object", "a request", "it moved", "its project changed"),
        *("it is gone", "a container's request", "a container's output"),
    ],
)
async def test_a_block_is_judged_anew_only_when_something_of_it_may_be_other(
    source: EventSource, of: StoredEvent, then: StoredEvent, asked: int, shared: bool
) -> None:
    """Who is behind reads what was put together for others, as long as it is true."""
    counting = Counting(source.present._nats)
    present = Present(counting, lambda: ROW + 1.0)  # type: ignore[arg-type]
    block = Block([of], 2)
    before = await present.block(block)
    reads = counting.reads
    present.seen(then)
    after = await present.block(block)
    assert counting.reads - reads == asked
    assert (after is before) == shared
    assert [stored.facts for stored in after.events] == [
        stored.facts for stored in await present.of(block.events)
    ]


async def test_what_was_looked_up_while_an_event_came_is_looked_up_again(
    source: EventSource,
) -> None:
    """The answer may be older than the event."""
    counting, block = Counting(source.present._nats), Block([made(1)], 2)
    present = Present(counting, lambda: ROW + 1.0)  # type: ignore[arg-type]
    asking = asyncio.create_task(present.block(block))
    await until(lambda: counting.reads == 1)
    present.seen(MOVED)
    await asking
    after = await present.block(block)
    assert [stored.facts for stored in after.events] == [MOVED.facts]


async def test_the_oldest_part_is_read_first_and_each_fourth_time_who_waits_longest() -> None:
    """Who gave up is passed."""
    turns, order = replays.Replays(at_once=1), list[int]()

    async def read(part: int) -> None:
        async with turns.turn(part):
            order.append(part)

    assert turns.ahead is None
    async with turns.turn(5):
        assert turns.ahead == 0
        reading = [asyncio.create_task(read(part)) for part in (9, 8, 2, 7, 2, 6)]
        given_up = asyncio.create_task(read(1))
        await asyncio.sleep(0)
        assert turns.ahead == 7
        given_up.cancel()
        await asyncio.sleep(0)
    await asyncio.gather(*reading)
    assert order == [2, 2, 9, 6, 7, 8]
    assert turns.ahead is None


async def test_a_turn_that_is_given_to_who_gives_up_in_that_moment_is_not_lost() -> None:
    turns = replays.Replays(at_once=1)
    async with turns.turn(1):
        waiting = asyncio.create_task(turns.turn(2).__aenter__())
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert turns.ahead is None
