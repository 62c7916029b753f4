# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The sole writer of a stream, against a real server that refuses, doubles, dies and comes back."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from arvados_nats.contract import streams
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Nats
from arvados_nats.service import keys
from arvados_nats.service.ops import Health
from publishers.jetstream.writer import Outgoing, Overtaken, StreamWriter
from sandbox.servers.nats_server import NatsServer
from tests.support.waiting import until

SUBJECT = "arvados.events.other.none.test"


@pytest.fixture
async def nats(fresh_nats: NatsServer, keys_folder: Path) -> AsyncIterator[Nats]:
    """A connection to a server with an empty stream."""
    seed = keys.load(keys_folder, "publisher").text
    async with nats_client.connect([fresh_nats.url], name="test", seed=seed) as connected:
        await streams.ensure(connected, streams.event_stream())
        yield connected


def _writer(nats: Nats, last: int = 0, window: int = 1000) -> StreamWriter:
    return StreamWriter(nats, streams.EVENTS, last, health=Health(), window=window)


def _messages(*ids: object) -> list[Outgoing]:
    return [Outgoing(SUBJECT, str(one), b"x") for one in ids]


async def _stored(nats: Nats) -> list[str]:
    found = nats.history(streams.EVENTS, "arvados.events.>")
    return [message.headers["Nats-Msg-Id"] async for message in found]


@pytest.mark.parametrize("window", [1, 7, 1000])
async def test_messages_are_stored_in_order(nats: Nats, window: int) -> None:
    """However many are on their way at a time, over several calls."""
    writer = _writer(nats, window=window)
    await writer.write(_messages(*range(300)))
    await writer.write([])
    await writer.write(_messages(*range(300, 400)))
    assert await _stored(nats) == [str(one) for one in range(400)]


async def test_what_is_in_the_stream_already_is_passed_over(nats: Nats) -> None:
    """Duplicates among the messages cost a round, and neither order nor a message."""
    await _writer(nats).write(_messages("a", "b", "c"))
    await _writer(nats, last=3).write(_messages("x", "b", "y", "y", "a", "z"))
    assert await _stored(nats) == ["a", "b", "c", "x", "y", "z"]


async def test_a_writer_that_was_overtaken_stops(nats: Nats) -> None:
    """Nothing of a pipeline is stored behind another writer's message."""
    first, second = _writer(nats), _writer(nats)
    await first.write(_messages("a"))
    with pytest.raises(Overtaken):
        await second.write(_messages("b", "c", "d"))
    assert await _stored(nats) == ["a"]


async def test_two_writers_never_mix_a_pipeline(nats: Nats) -> None:
    """Both write at once: each pipeline is in the stream without holes up to where it stopped."""
    results = await asyncio.gather(
        *(
            _writer(nats).write(_messages(*(f"{name}{number}" for number in range(200))))
            for name in "ab"
        ),
        return_exceptions=True,
    )
    assert any(isinstance(result, Overtaken) for result in results)
    stored = await _stored(nats)
    for name in "ab":
        mine = [one for one in stored if one.startswith(name)]
        assert mine == [f"{name}{number}" for number in range(len(mine))]


async def test_its_own_message_that_it_knew_nothing_of_is_counted_as_stored(nats: Nats) -> None:
    """The message was stored and its acknowledgement lost: it is found and not sent again."""
    await _writer(nats).write(_messages("a", "b"))
    await _writer(nats).write(_messages("a", "b", "c"))
    assert await _stored(nats) == ["a", "b", "c"]


@pytest.mark.parametrize("end", ["kill", "restart"])
async def test_a_server_that_dies_under_a_full_window(
    nats: Nats, fresh_nats: NatsServer, end: str
) -> None:
    """Five hundred messages on their way, the server goes and comes: each once, in order."""
    health = Health()
    writer = StreamWriter(nats, streams.EVENTS, 0, health=health, window=500)
    writing = asyncio.create_task(writer.write(_messages(*range(20_000))))

    async def under_way() -> bool:
        info = await nats.stream_info(streams.EVENTS)
        return info is not None and info["state"]["messages"] > 500

    await until(under_way, "messages are on their way")
    if end == "kill":
        await fresh_nats.kill()
        await fresh_nats.start()
    else:
        await fresh_nats.restart()
    await asyncio.wait_for(writing, 60)
    assert await _stored(nats) == [str(one) for one in range(20_000)]
    assert health.error is None


@pytest.mark.parametrize("size", [8 * 1024 * 1024 + 1, 8 * 1024 * 1024, streams.MAX_EVENT])
async def test_a_message_that_nobody_takes_is_dropped_and_told(nats: Nats, size: int) -> None:
    """Over the server's limit, with its headers over it, over the stream's: those behind it are
    stored."""
    dropped: list[Outgoing] = []
    writer = StreamWriter(nats, streams.EVENTS, 0, health=Health(), on_dropped=dropped.append)
    huge = Outgoing(SUBJECT, "huge", b"x" * size)
    await writer.write([*_messages("a"), huge, *_messages("b", "c")])
    await writer.write(_messages("d"))
    assert await _stored(nats) == ["a", "b", "c", "d"]
    assert dropped == [huge]


async def test_a_stream_that_is_gone_is_not_waited_for(nats: Nats) -> None:
    """Whoever owns it must make it again."""
    writer = _writer(nats)
    await writer.write(_messages("a"))
    await nats.js_api(f"STREAM.DELETE.{streams.EVENTS}")
    with pytest.raises(Overtaken, match="gone"):
        await writer.write(_messages("b"))
    await streams.ensure(nats, streams.event_stream())
    with pytest.raises(Overtaken, match="lost"):
        await writer.write(_messages("b"))


async def test_who_gives_up_leaves_no_fault_behind(nats: Nats, fresh_nats: NatsServer) -> None:
    """What was wrong while it waited is another's to say: nobody would take it back."""
    health = Health()
    writer = StreamWriter(nats, streams.EVENTS, 0, health=health)
    await fresh_nats.kill()
    writing = asyncio.create_task(writer.write(_messages("a")))
    await until(lambda: streams.EVENTS in health.faults)
    for found in list(fresh_nats.folder.rglob("jetstream")):
        shutil.rmtree(found, ignore_errors=True)
    await fresh_nats.start()
    with pytest.raises(Overtaken, match="gone"):
        await asyncio.wait_for(writing, 60)
    assert not health.faults


async def test_a_full_stream_holds_the_writer_until_there_is_room(nats: Nats) -> None:
    """A refusal that is no fault of the message is retried, and reported meanwhile."""
    config = {**streams.event_stream(), "max_msgs": 1, "discard": "new"}
    await nats.js_api(f"STREAM.UPDATE.{streams.EVENTS}", config)
    health = Health()
    writer = StreamWriter(nats, streams.EVENTS, 0, health=health)
    writing = asyncio.create_task(writer.write(_messages("a", "b")))

    async def degraded() -> bool:
        return health.error is not None

    await until(degraded, "the fault is reported")
    assert await _stored(nats) == ["a"]
    await nats.js_api(f"STREAM.UPDATE.{streams.EVENTS}", streams.event_stream())
    await asyncio.wait_for(writing, 60)
    assert await _stored(nats) == ["a", "b"]
    assert health.error is None
