# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Many readers who are behind: whoever else has something to do waits for one, not for all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from arvados_nats.arvados import client as arvados_client
from arvados_nats.contract import events, streams, subjects
from arvados_nats.contract.places import Place
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Message
from arvados_nats.permission_client import object_messages
from arvados_nats.permissions.grants import DIRECT, OWNED, Grants
from arvados_nats.permissions.judge import Judge
from arvados_nats.permissions.object_facts import ObjectFacts
from arvados_nats.permissions.rule import Identity
from arvados_nats.service import keys
from arvados_nats.service.ops import Health
from sandbox.servers.nats_server import NatsServer
from tests.support.log_readers import MemoryWire
from tests.support.made_events import PROJECT, made
from wsproxy.events import replays
from wsproxy.events.batch import Batch
from wsproxy.events.consumer import EventConsumer
from wsproxy.events.event_source import EventSource
from wsproxy.events.permission_check import PermissionCheck
from wsproxy.events.principal import Principal
from wsproxy.events.record_check import RecordCheck
from wsproxy.events.router import Router
from wsproxy.transport.send_buffer import SendBuffers

READERS, EVENTS, AT_ONCE = 30, 600, 100


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
        for sequence in range(1, EVENTS + 1):
            event = made(sequence).event
            subject = subjects.event(event.object_uuid, event.event_type)
            acks.append(await nats.publish_stored(subject, events.encode(event)))
        await asyncio.gather(*acks)
    async with _opened(fresh_nats, keys_folder) as opened:
        opened.recent.reset(EVENTS + 1)
        opened._position = EVENTS
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
        yield EventSource(nats, Router(), Health())


def _consumer(
    source: EventSource, check: PermissionCheck, found: list[int], ahead: list[int]
) -> EventConsumer:
    principal = Principal(Identity("t", "u"), check, lambda i, g: Judge(i, g, 0.0))
    principal.set_grants(Grants("u", targets={PROJECT: DIRECT | OWNED}))

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


async def test_few_read_the_past_at_once_and_the_others_in_their_order(past: EventSource) -> None:
    """Who waits is told how many are before; all come to the end, and later ones not earlier."""
    delivered: list[list[int]] = [[] for _ in range(READERS)]
    ahead: list[list[int]] = [[] for _ in range(READERS)]
    ended: list[int] = []
    most = 0
    async with arvados_client.connect("http://127.0.0.1:9") as arvados:
        check = PermissionCheck(RecordCheck(arvados))
        consumers = [
            _consumer(past, check, found, told)
            for found, told in zip(delivered, ahead, strict=True)
        ]
        for one in consumers:
            one.start(0)
        async with asyncio.timeout(60):
            while len(ended) < READERS:
                await asyncio.sleep(0)
                reading = [number for number in range(READERS) if 0 < len(delivered[number])]
                ended += [n for n in reading if n not in ended and consumers[n].live]
                most = max(most, len(set(reading) - set(ended)))
        for one in consumers:
            one.stop()

    assert all(found == [*range(1, EVENTS + 1)] for found in delivered)
    assert most <= replays.AT_ONCE
    assert ahead[: replays.AT_ONCE] == [[]] * replays.AT_ONCE
    assert ahead[replays.AT_ONCE :] == [[n] for n in range(READERS - replays.AT_ONCE)]
    assert {*ended[: replays.AT_ONCE]} == {*range(replays.AT_ONCE)}


async def test_who_takes_nothing_gives_the_place_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """And comes again behind the others; who goes on in time keeps it."""
    monkeypatch.setattr(replays, "_PATIENCE", 0.0)
    places = replays.Replays(at_once=1)
    told: list[int] = []
    slow, other = (replays.Turn(places, told.append) for _ in range(2))
    await slow.take()
    waiting = asyncio.create_task(other.take())
    await asyncio.sleep(0)
    assert told == [0]
    await slow.keep_while(lambda: asyncio.wait_for(waiting, 60))
    again = asyncio.create_task(slow.take())
    await asyncio.sleep(0)
    assert told == [0, 0]
    other.give_up()
    await asyncio.wait_for(again, 60)
    slow.give_up()
