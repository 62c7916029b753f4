# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Some fill a stream; what others have stored stays for its time."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from arvados_nats.contract import streams, subjects
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Nats
from arvados_nats.service import keys
from publishers.jetstream.room import Room
from sandbox.raw_rows import new_uuid
from sandbox.servers.nats_server import NatsServer
from tests.support.background import background
from tests.support.waiting import until

MIB = 1024 * 1024
LIMITS = dataclasses.replace(streams.DEFAULT_LOG_LIMITS, max_bytes=16 * MIB)


@pytest.fixture
async def nats(fresh_nats: NatsServer, keys_folder: Path) -> AsyncIterator[Nats]:
    """The publishers' connection, beside a small stream of logs."""
    seed = keys.load(keys_folder, "publisher").text
    async with nats_client.connect([fresh_nats.url], name="test", seed=seed) as nats:
        await streams.ensure(nats, streams.log_stream(LIMITS))
        yield nats


async def _store(nats: Nats, sender: str, file: str, size: int, beside: str = "") -> None:
    headers = {"Beside": beside} if beside else {}
    await (await nats.publish_stored(subjects.log(sender, file), bytes(size), headers))


async def _count(nats: Nats, sender: str) -> int:
    pattern = subjects.logs_of(sender)
    info = await nats.js_api(f"STREAM.INFO.{streams.LOGS}", {"subjects_filter": pattern})
    return sum((info["state"].get("subjects") or {}).values())


@pytest.mark.parametrize(
    ("flooders", "files", "size", "beside"),
    [(1, 1, 60_000, 0), (1, 500, 60_000, 0), (40, 1, 60_000, 0), (1, 1, 0, 60_000)],
)
async def test_a_flood_pushes_out_its_own_and_nobody_elses(
    nats: Nats, flooders: int, files: int, size: int, beside: int
) -> None:
    """Three times the stream, in one file, in many, of many, or in headers; the others' bytes are
    all there."""
    others = [new_uuid("dz642") for _ in range(80)]
    flood = [new_uuid("dz642") for _ in range(flooders)]
    room = Room(nats, streams.LOGS, subjects.LOGS)
    async with background(room.watch()):
        await nats.flush()
        for sender in others:
            for number in range(10):
                await _store(nats, sender, f"{number}", 1000)
        for number in range(3 * LIMITS.max_bytes // 60_000):
            sender = flood[number % flooders]
            await _store(nats, sender, f"{number % files}", size, "x" * beside)
        assert [await _count(nats, sender) for sender in others] == [10] * len(others)
        left = [await _count(nats, sender) for sender in flood]
        assert min(left) > 0
        assert sum(left) < LIMITS.max_bytes // 60_000


async def test_nobody_makes_room_where_all_are_alike(nats: Nats) -> None:
    """A stream that is full of many small senders drops the oldest, as streams do."""
    senders = [new_uuid("dz642") for _ in range(100)]
    room = Room(nats, streams.LOGS, subjects.LOGS)
    async with background(room.watch()):
        await nats.flush()
        for number in range(2 * LIMITS.max_bytes // 60_000):
            await _store(nats, senders[number % len(senders)], "x", 60_000)

        async def full() -> bool:
            info = await nats.stream_info(streams.LOGS)
            return info is not None and info["state"]["bytes"] > 0.9 * LIMITS.max_bytes

        await until(full, "the stream is full")
        counts = [await _count(nats, sender) for sender in senders]
    assert max(counts) - min(counts) <= 1
