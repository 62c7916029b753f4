# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Messages in a stream that a publisher can not pass on: it passes them over, and goes on.

The streams here are as they were made before they had a `max_msg_size`, so that they hold what no
stream takes any more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from arvados_nats import streams, subjects
from arvados_nats.log_chunks import MAX_CHUNK_BYTES, Chunk
from sandbox.cluster import Cluster
from sandbox.nats_server import NatsServer
from sandbox.postgres import Database
from tests.integration.event_world import EventWorld, world
from tests.integration.test_live_publisher import LiveWorld, live_publishing

SHOWN_HEADERS = {
    *("Arvados-File", "Arvados-Epoch", "Arvados-Offset", "Arvados-Source"),
    *("Nats-Sequence", "Nats-Time-Stamp", "Nats-Msg-Id"),
}


def without_bounds(config: dict[str, Any], subject: str) -> dict[str, Any]:
    """A stream as it was before its messages had bounds."""
    return {**config, "subjects": [f"{subject}.>"], "max_msg_size": -1}


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
        async with live_publishing(scene):
            await listening.all_shown()
    assert scene.health.error is None
    shown = [one for one in listening.heard if one.subject.endswith(f"{container.uuid}.x")]
    assert all(len(one.data) <= MAX_CHUNK_BYTES for one in shown)
    assert all(one.headers.keys() <= SHOWN_HEADERS for one in shown)
