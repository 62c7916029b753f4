# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Epochs, offsets, sizes and names that a container makes up, and those who read its log."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from arvados_nats.arvados import client as arvados_client
from arvados_nats.arvados.tokens import Token
from arvados_nats.contract import subjects
from arvados_nats.contract.log_chunks import MAX_COUNT, Chunk, ContainerEnd, FileEnd
from arvados_nats.errors import BadInput
from publishers.container_logs.writer import LogWriter
from sandbox.raw_rows import new_uuid
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import Database
from tests.support import log_readers
from tests.support.log_readers import join, publish
from tests.support.worlds.logs import World, open_world, proxy
from wsproxy.logs.consumer import Selection
from wsproxy.logs.hub import MOST_FILES
from wsproxy.logs.hubs import LogHubs
from wsproxy.logs.place import LogPlace
from wsproxy.logs.saved import Access
from wsproxy.logs.stored import StoredLogs


@pytest.fixture
async def world(
    fresh_nats: NatsServer, keys_folder: Path, database: Database
) -> AsyncIterator[World]:
    """A cluster with its API server."""
    async with open_world(fresh_nats, keys_folder, database) as world:
        yield world


@pytest.fixture
async def hubs(world: World) -> AsyncIterator[LogHubs]:
    async with proxy(world.nats, world) as hubs:
        yield hubs
        await log_readers.all_stopped()


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


OUT = "../../../../api_client_authorizations/current"
"""From a container's log folder to the token of whoever asks."""


@pytest.mark.parametrize("name", [OUT, OUT.replace("/", "%2F"), "/etc/passwd", ".."])
async def test_a_name_leads_no_reader_out_of_the_log(
    hubs: LogHubs, world: World, name: str
) -> None:
    """What the stream lacks of a file is read with the token of one reader, for all: a container
    that named a file so was shown that reader's token, as bytes of its log."""
    access, job = Access(Token(world.cluster.config.system_root_token)), await world.job()
    job.write("stdout.txt", b"one\n")
    subject = subjects.log(job.uuid, name)
    headers = {"Arvados-File": name, "Arvados-Offset": "60000", "Arvados-Epoch": "0"}
    await (await world.nats.publish_stored(subject, b"x", headers))
    await publish(world.nats, Chunk(job.uuid, "stdout.txt", 0, 0, b"one\n"))
    peer = join(hubs.open(job.uuid), access=access)
    await peer.received.until_told("caught_up")
    assert peer.received.content("stdout.txt") == b"one\n"
    assert not any(b"api_token" in data for data in peer.received.bytes_of.values())


@pytest.mark.parametrize("name", [OUT, "../stdout.txt", "a/b", ".", ".."])
async def test_of_arvados_no_other_path_is_asked(world: World, name: str) -> None:
    """Whatever calls the file so: a reader, a listing or a search."""
    token, job = Token(world.cluster.config.system_root_token), await world.job()
    async with arvados_client.connect(world.api.url) as arvados:
        with pytest.raises(BadInput):
            await arvados.log_range(token, job.request_uuid, job.uuid, name, 0, 100)
        for uuids in ((job.request_uuid, f"../{job.uuid}"), ("..", job.uuid)):
            with pytest.raises(BadInput):
                await arvados.log_range(token, *uuids, "stdout.txt", 0, 100)


async def junk(world: World, subject: str, count: int) -> None:
    """Chunks of another file whose name makes the same subject."""
    headers = Chunk("", "a_b", 0, 0, b"").headers
    del headers["Nats-Msg-Id"]
    acks = [await world.nats.publish_stored(subject, b"x", headers) for _ in range(count)]
    await asyncio.gather(*acks)


def heard(world: World) -> int:
    """Messages that the connection has had so far."""
    return int(world.nats._client.stats["in_msgs"])


async def test_a_writer_finds_its_place_among_any_number_of_other_files(world: World) -> None:
    """It begins another epoch where it would have to read all of them, and asks no more later."""
    chunk = Chunk(new_uuid("dz642"), "a.b", 0, 0, b"one\n")
    await junk(world, chunk.subject, 3000)
    before = heard(world)
    writer = LogWriter(world.nats, chunk.container_uuid)
    last = await writer.last("a.b")
    assert last.epoch == last.sequence == 3000
    chunk = dataclasses.replace(chunk, epoch=3001)
    await writer.append(chunk)
    await junk(world, chunk.subject, 10)
    assert heard(world) - before < 1500
    before = heard(world)
    assert (await writer.last("a.b")).holds(chunk)
    assert heard(world) - before < 100


async def test_a_reader_goes_past_other_files_in_long_strides(world: World) -> None:
    """Not one by one."""
    chunk = Chunk(new_uuid("dz642"), "a.b", 0, 0, b"one\n")
    await junk(world, chunk.subject, 300)
    await publish(world.nats, chunk)
    before = world.nats._client.stats["out_msgs"]
    page = await StoredLogs(world.nats).page(chunk.container_uuid, "a.b", LogPlace(0, 0))
    assert [found for _, found in page.chunks] == [chunk]
    assert world.nats._client.stats["out_msgs"] - before < 100


async def test_a_container_names_any_number_of_files(hubs: LogHubs, world: World) -> None:
    """Its readers are shown some of them, also those who come later, and others' as ever."""
    access = Access(Token(world.cluster.config.system_root_token))
    job = await world.job()
    stdout = Chunk(job.uuid, "stdout.txt", 0, 0, b"one\n")
    await publish(world.nats, stdout)
    hub = hubs.open(job.uuid)
    peer = join(hub, access=access)
    await peer.received.until(lambda: peer.received.content("stdout.txt") == b"one\n")
    for number in range(1100):
        await publish(world.nats, Chunk(job.uuid, f"f{number}", 0, 0, b"x"))
    await publish(world.nats, dataclasses.replace(stdout, offset=4, data=b"two\n"))
    await peer.received.until(lambda: peer.received.content("stdout.txt") == b"one\ntwo\n")
    assert len(hub.files) == MOST_FILES
    async with proxy(world.nats, world) as others:
        late = join(others.open(job.uuid), access=access)
        await late.received.until(lambda: late.received.content("stdout.txt") == b"one\ntwo\n")
