# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Sequences are compared within one life of a stream only: another one is noticed, however it came
to be and however far it was filled since, and nothing else is taken for one."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from arvados_nats.contract import streams, subjects
from arvados_nats.contract.log_chunks import Chunk
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Nats
from arvados_nats.nats.lives import Life
from arvados_nats.service import keys
from publishers.container_logs.writer import LogWriter, Lost
from publishers.live.cursor import READER, Cursor, Options
from sandbox.servers.nats_server import NatsServer

_CONTAINER = "zzzzz-dz642-000000000000001"


@pytest.fixture
async def nats(fresh_nats: NatsServer, keys_folder: Path) -> AsyncIterator[Nats]:
    """A connection to a server with empty streams."""
    seed = keys.load(keys_folder, "publisher").text
    async with nats_client.connect([fresh_nats.url], name="test", seed=seed) as connection:
        await streams.ensure(connection, streams.log_stream())
        await streams.ensure(connection, streams.cursor_stream())
        yield connection


async def _store(nats: Nats, count: int) -> None:
    for number in range(count):
        subject = subjects.log(_CONTAINER, f"file{number % 3}")
        await (await nats.publish_stored(subject, b"bytes"))


async def _lose_messages(server: NatsServer) -> None:
    """The server makes its streams anew as of the day when they were made first."""
    await server.kill()
    for found in server.folder.rglob("msgs"):
        shutil.rmtree(found)
    await server.start()


async def test_a_stream_that_goes_on_is_the_same(nats: Nats, fresh_nats: NatsServer) -> None:
    """Also where what was seen has left it, and where its server was killed."""
    life = Life(nats, streams.LOGS)
    assert await life.look()
    for count in (3, 1, 0):
        await _store(nats, count)
        assert await life.look()
    assert (life.first, life.last) == (1, 4)
    for kept in (1, 0):
        await nats.js_api(f"STREAM.PURGE.{streams.LOGS}", {"keep": kept})
        assert await life.look()
        await _store(nats, 2)
        assert await life.look()
    await fresh_nats.kill()
    await fresh_nats.start()
    await nats.until_connected()
    assert await life.look()
    await nats.js_api(f"STREAM.PURGE.{streams.LOGS}")
    await fresh_nats.restart()
    await nats.until_connected()
    assert await life.look()


async def test_another_life_is_noticed(nats: Nats, fresh_nats: NatsServer) -> None:
    """A stream that lost its messages, or was rolled back, keeps its date; then it is another."""
    await _store(nats, 3)
    first = Life(nats, streams.LOGS)
    assert await first.look()
    await _lose_messages(fresh_nats)
    await nats.until_connected()
    await _store(nats, 5)
    assert await first.look() is False
    second = Life(nats, streams.LOGS)
    assert await second.look()
    assert second.created == first.created
    await fresh_nats.stop()
    copy = fresh_nats.folder.with_name(f"{fresh_nats.folder.name}-copy")
    shutil.copytree(fresh_nats.folder / "jetstream", copy)
    await fresh_nats.start()
    await nats.until_connected()
    await _store(nats, 2)
    assert await second.look()
    await fresh_nats.kill()
    shutil.rmtree(fresh_nats.folder / "jetstream")
    shutil.move(copy, fresh_nats.folder / "jetstream")
    await fresh_nats.start()
    await nats.until_connected()
    await _store(nats, 4)
    assert await second.look() is False
    third = Life(nats, streams.LOGS)
    assert await third.look()
    await nats.js_api(f"STREAM.DELETE.{streams.LOGS}")
    assert await third.look() is None
    await streams.ensure(nats, streams.log_stream())
    for life in (first, second, third):
        assert await life.look() is False


async def test_no_log_goes_on_in_another_life(nats: Nats, fresh_nats: NatsServer) -> None:
    """Its beginning is read again, of which the stream has nothing any more."""
    life = Life(nats, streams.LOGS)
    assert await life.look()
    writer = LogWriter(nats, _CONTAINER, life)
    for offset in (0, 5):
        await writer.append(Chunk(_CONTAINER, "stdout.txt", 0, offset, b"bytes"))
    assert await life.look()
    await _lose_messages(fresh_nats)
    await nats.until_connected()
    await _store(nats, 3)
    with pytest.raises(Lost):
        await writer.append(Chunk(_CONTAINER, "stdout.txt", 0, 10, b"bytes"))


async def test_live_messages_begin_anew_in_another_life(nats: Nats, fresh_nats: NatsServer) -> None:
    """All that it has was shown to nobody, up to the sequence of before, too."""
    await _store(nats, 5)
    options = Options()
    last = await nats.last_of_leader(streams.LOGS, ">")
    assert last is not None
    cursor = Cursor(nats, streams.LOGS, subjects.LOGS, options)
    await cursor.start()
    await cursor.reached(last.sequence, last.time)
    await cursor.stop()
    await nats.flush()
    kept = await nats.last_of_leader(streams.CURSORS, subjects.cursor(READER, streams.LOGS))
    assert kept is not None
    await _store(nats, 1)
    assert await Cursor(nats, streams.LOGS, subjects.LOGS, options).start() == 5
    await _lose_messages(fresh_nats)
    await nats.until_connected()
    await (await nats.publish_stored(kept.subject, kept.data))
    await _store(nats, 7)
    assert await Cursor(nats, streams.LOGS, subjects.LOGS, options).start() == 0


async def test_a_leader_knows_its_own_place_where_it_is_not_kept(nats: Nats) -> None:
    """The stream of cursors alone was lost: nothing that was stored meanwhile is left out."""
    await _store(nats, 5)
    cursor = Cursor(nats, streams.LOGS, subjects.LOGS, Options())
    last = await nats.last_of_leader(streams.LOGS, ">")
    assert last is not None
    await cursor.start()
    await cursor.reached(last.sequence, last.time)
    await _store(nats, 2)
    await nats.js_api(f"STREAM.PURGE.{streams.CURSORS}")
    assert await cursor.start() == 5
