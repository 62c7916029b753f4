# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The ids that a server remembers are those of a whole stream: a sender may use up another's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from arvados_nats.contract import subjects
from arvados_nats.contract.log_chunks import Chunk, ContainerEnd, FileEnd
from publishers.container_logs.writer import LogWriter
from sandbox.raw_rows import new_uuid
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import Database
from tests.support.worlds.logs import World, open_world


@pytest.fixture
async def world(
    fresh_nats: NatsServer, keys_folder: Path, database: Database
) -> AsyncIterator[World]:
    """A stream of logs."""
    async with open_world(fresh_nats, keys_folder, database) as opened:
        yield opened


async def test_an_id_used_up_by_another_container_holds_nothing_back(world: World) -> None:
    """Chunks and the end are stored, each once, though the server calls their ids duplicates."""
    victim, other = new_uuid("dz642"), new_uuid("dz642")
    chunks = [Chunk(victim, "stdout.txt", 0, place, b"%d" % place) for place in range(3)]
    end = ContainerEnd(victim, "Complete", 0, {"stdout.txt": FileEnd(0, 3, confirmed=True)})
    for headers in (*(chunk.headers for chunk in chunks), end.headers):
        used_up = {"Nats-Msg-Id": headers["Nats-Msg-Id"]}
        await (await world.nats.publish_stored(subjects.log(other, "x"), b"", used_up))
    writer = LogWriter(world.nats, victim)
    async with asyncio.timeout(60):
        for chunk in chunks:
            await writer.append(chunk)
        await writer.end(end)
    assert await world.messages(victim) == [*chunks, end]


async def test_an_end_is_stored_once_whatever_stands_in_its_place(world: World) -> None:
    """What is no end marker is no end; a second writer finds the first one's."""
    victim = new_uuid("dz642")
    end = ContainerEnd(victim, "Complete", 0, {})
    await (await world.nats.publish_stored(end.subject, b"no end", {}))
    async with asyncio.timeout(60):
        await LogWriter(world.nats, victim).end(end)
        await LogWriter(world.nats, victim).end(end)
    assert await LogWriter(world.nats, victim).ended() == end
    found = await world.nats.js_api(
        "STREAM.INFO.ARVADOS_LOGS", {"subjects_filter": subjects.logs_of(victim)}
    )
    assert found["state"]["subjects"] == {end.subject: 2}
