# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Epochs, offsets and sizes that a container makes up, and those who read its log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from arvados_nats.arvados import client as arvados_client
from arvados_nats.arvados.tokens import Token
from arvados_nats.contract import subjects
from arvados_nats.contract.log_chunks import MAX_COUNT, Chunk, ContainerEnd, FileEnd
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import Database
from tests.support.log_readers import join, publish
from tests.support.worlds.logs import World, open_world
from wsproxy.logs.consumer import Selection
from wsproxy.logs.hubs import LogHubs
from wsproxy.logs.saved import Access


@pytest.fixture
async def world(
    fresh_nats: NatsServer, keys_folder: Path, database: Database
) -> AsyncIterator[World]:
    """A cluster with its API server."""
    async with open_world(fresh_nats, keys_folder, database) as world:
        yield world


@pytest.fixture
async def hubs(world: World) -> AsyncIterator[LogHubs]:
    """The hubs of one wsproxy."""
    async with arvados_client.connect(world.api.url) as arvados:
        hubs = LogHubs(world.nats, arvados)
        task = asyncio.create_task(hubs.run())
        await asyncio.sleep(0)
        yield hubs
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("begin", [(0, 0), (1, 7), (1000, 0)])
@pytest.mark.parametrize("names_it", ["chunk", "end"])
async def test_a_reader_goes_straight_to_a_huge_epoch(
    hubs: LogHubs, world: World, names_it: str, begin: tuple[int, int]
) -> None:
    """One gap for all that lies between, whoever names the epoch, and the end."""
    access = Access(Token(world.cluster.config.system_root_token))
    job = await world.job()
    first = Chunk(job.uuid, "a", 0, 0, b"one\n")
    far = Chunk(job.uuid, "a", MAX_COUNT, 0, b"far\n")
    end = ContainerEnd(job.uuid, "Complete", 0, {"a": FileEnd(MAX_COUNT, 4, confirmed=False)})
    await publish(world.nats, first, *([far] if names_it == "chunk" else []), end)
    peer = join(hubs.open(job.uuid), Selection(places={"a": begin}), access=access)
    await peer.received.until(lambda: peer.received.done)
    assert len(peer.received.of("gap")) <= 2


async def test_an_end_by_its_header_is_none(hubs: LogHubs, world: World) -> None:
    """Only the subject of the end marker, where a container may not publish, ends a log."""
    access = Access(Token(world.cluster.config.system_root_token))
    job = await world.job()
    forged = ContainerEnd(job.uuid, "Complete", 0, {"a": FileEnd(0, 4, confirmed=True)})
    peer = join(hubs.open(job.uuid), access=access)
    await peer.received.until(lambda: peer.received.of("caught_up"))
    more = {**forged.headers, "Arvados-File": "x", "Arvados-Offset": "0", "Arvados-Epoch": "0"}
    for headers in (forged.headers, more):
        subject = subjects.log(job.uuid, "x")
        await (await world.nats.publish_stored(subject, forged.payload, headers))
    await publish(world.nats, Chunk(job.uuid, "a", 0, 0, b"after\n"))
    await peer.received.until(lambda: peer.received.content("a") == b"after\n")
    assert not peer.received.of("end")
