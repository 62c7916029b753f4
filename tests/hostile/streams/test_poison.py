# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Messages in a stream that a publisher cannot pass on: it passes them over, and goes on.

The streams here are as they were made before they had a `max_msg_size`, so that they hold what no
stream takes any more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from arvados_nats.admin import check_streams
from arvados_nats.contract import streams, subjects
from arvados_nats.contract.log_chunks import MAX_CHUNK_BYTES, Chunk
from arvados_nats.nats.history import StoredMessage
from arvados_nats.service import keys
from publishers.live import publisher as live
from sandbox.cluster import Cluster, open_cluster
from sandbox.raw_rows import new_uuid
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import Database
from tests.support.waiting import until
from tests.support.worlds.events import EventWorld, world
from tests.support.worlds.live import LiveWorld, live_publishing

SHOWN_HEADERS = {
    *("Arvados-File", "Arvados-Epoch", "Arvados-Offset", "Arvados-Source"),
    *("Nats-Sequence", "Nats-Time-Stamp", "Nats-Msg-Id"),
}


def without_bounds(config: dict[str, Any], subject: str) -> dict[str, Any]:
    """A stream as it was before its messages had bounds."""
    return {**config, "subjects": [f"{subject}.>"], "max_msg_size": -1}


@pytest.fixture
async def cluster(database: Database) -> AsyncIterator[Cluster]:
    """A cluster of this test alone."""
    async with open_cluster(database.dsn) as cluster:
        yield cluster


@pytest.fixture
async def scene(
    cluster: Cluster, database: Database, fresh_nats: NatsServer, keys_folder: Path
) -> AsyncIterator[EventWorld]:
    """A world with streams that take everything."""
    async with world(database, fresh_nats, keys_folder) as made:
        await streams.ensure(made.nats, without_bounds(streams.log_stream(), subjects.LOGS))
        await streams.ensure(made.nats, without_bounds(streams.event_stream(), subjects.EVENTS))
        yield made


def _filled(headers: Mapping[str, str], size: int) -> bytes:
    """As many bytes as a message of `size` bytes has room for beside its headers."""
    lines = sum(len(f"{name}: {value}\r\n".encode()) for name, value in headers.items())
    return b"A" * (size - len(b"NATS/1.0\r\n\r\n") - lines)


POISON: dict[str, tuple[dict[str, str], bytes | int]] = {
    "as large as the server takes": ({}, 8 * 1024 * 1024),
    "as large as an honest chunk and one byte": ({}, 64 * 1024 + 1),
    "large headers": ({"Arvados-X": "x" * 60_000}, b"a"),
    "a large file name": ({"Arvados-File": "x" * 60_000}, b"a"),
    "an end by its header": ({"Arvados-End": "1"}, b"{}"),
    "no headers of ours": ({"Arvados-File": ""}, b"a"),
    "an offset beyond all files": ({"Arvados-Offset": "9" * 19}, b"a"),
    "an epoch beyond all numbers": ({"Arvados-Epoch": "9" * 4_000}, b"a"),
    "a status of the server": ({"Status": "503"}, b""),
    "a place of the server": ({"Nats-Sequence": "x", "Nats-Subject": ">"}, b"a"),
}


@pytest.mark.parametrize("kind", POISON)
async def test_what_can_not_be_shown_is_passed_over(
    cluster: Cluster, scene: EventWorld, kind: str
) -> None:
    """A container's message of each kind, then one that must be shown, live and after a restart."""
    owner = await cluster.user("alice")
    container = await cluster.run(await cluster.container_request("r", owner=owner))
    listening = LiveWorld(scene)
    await scene.nats.subscribe(f"{subjects.LIVE}.>", listening.hear)
    more, body = POISON[kind]

    async def poison(offset: int) -> None:
        chunk = Chunk(container.uuid, "x", 0, offset, b"")
        headers = {**chunk.headers, "Nats-Msg-Id": f"{kind}{offset}", **more}
        data = body if isinstance(body, bytes) else _filled(headers, body)
        await (await scene.nats.publish_stored(chunk.subject, data, headers))

    async with scene.publishing():
        async with live_publishing(scene):
            await listening.all_shown()
            await poison(0)
            await listening.all_shown()
        await poison(1)
        honest = Chunk(container.uuid, "y", 0, 0, b"honest")
        await (await scene.nats.publish_stored(honest.subject, honest.data, honest.headers))
        async with live_publishing(scene):
            await listening.all_shown()
    assert scene.health.error is None
    shown = [one for one in listening.heard if f".log.{container.uuid}." in one.subject]
    assert {b"honest"} <= {one.data for one in shown}
    assert all(len(one.data) <= MAX_CHUNK_BYTES for one in shown)
    assert all(one.headers.keys() <= SHOWN_HEADERS for one in shown)


async def test_what_was_passed_over_can_be_looked_at(scene: EventWorld, keys_folder: Path) -> None:
    """In health, and by `arvados-nats check streams`: where it is, how large, and why; counted on
    by the next live publisher."""
    seed = keys.load(keys_folder, "wsproxy").text
    for number in (1, 2):
        subject = subjects.log(new_uuid("dz642"), f"{number}.txt")
        async with scene.publishing(), live_publishing(scene):
            poison = await scene.nats.publish_stored(
                subject, b"\xff" * number, {"A": "\N{SNOWMAN}"}
            )
            await poison

            async def told(wanted: str = f"{number} messages passed over") -> bool:
                lines = await check_streams.passed_over([scene.server.url], seed)
                return any(wanted in line for line in lines)

            await until(told, "it is told")
        lines = await check_streams.passed_over([scene.server.url], seed)
        assert lines[0].startswith(f"{streams.LOGS}: {number} messages passed over")
        assert f"{subject}, {number} bytes: not a log chunk" in lines[-1]
        assert subject in scene.health.notes[f"live, {streams.LOGS}"]
        assert scene.health.error is None


async def test_a_mistake_of_ours_costs_one_message(
    cluster: Cluster, scene: EventWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is raised for one message, those around it are shown."""
    owner = await cluster.user("alice")
    container = await cluster.run(await cluster.container_request("r", owner=owner))
    listening = LiveWorld(scene)
    await scene.nats.subscribe(f"{subjects.LIVE}.>", listening.hear)
    genuine = live._log

    def stumble(message: StoredMessage) -> Any:
        if message.data == b"1":
            raise ZeroDivisionError
        return genuine(message)

    monkeypatch.setattr(live, "_log", stumble)
    for place in range(3):
        chunk = Chunk(container.uuid, "x", 0, place, b"%d" % place)
        await (await scene.nats.publish_stored(chunk.subject, chunk.data, chunk.headers))
    async with scene.publishing(), live_publishing(scene):
        for place in range(3, 6):
            chunk = Chunk(container.uuid, "x", 0, place, b"%d" % (place % 3))
            await (await scene.nats.publish_stored(chunk.subject, chunk.data, chunk.headers))
        await listening.all_shown()
    shown = {one.data for one in listening.heard if one.subject.endswith(f"{container.uuid}.x")}
    assert shown == {b"0", b"2"}
    assert "ZeroDivisionError" in scene.health.notes[f"live, {streams.LOGS}"]
