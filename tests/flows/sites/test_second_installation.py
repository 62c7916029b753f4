# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""docs/operate.md, "A second installation": from one NATS server to three, without a gap."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from arvados_nats import client
from arvados_nats.contract import events, streams, subjects
from arvados_nats.nats import client as nats_client
from arvados_nats.protocol_v1.messages import Event
from arvados_nats.service import keys
from sandbox import stack as services
from sandbox.servers import nats_server
from sandbox.stack import Stack

WITHIN = 100.0
REPLICAS = {
    f"ARVADOS_NATS_{name}": value
    for stream in ("EVENTS", "LOGS", "SYSTEM_LOGS")
    for name, value in ((f"{stream}_REPLICAS", "3"), (f"{stream}_MAX_BYTES", str(64 << 20)))
}


@pytest.fixture
async def second(stack: Stack, tmp_path: Path) -> AsyncIterator[Stack]:
    """All services again, with keys and three NATS servers of their own, filled from Arvados."""
    keys.ensure(tmp_path / "keys")
    former = keys.load(stack.sandbox.keys_folder, "wsproxy").text
    (tmp_path / "keys" / "wsproxy.former.nk").write_text(former)
    async with nats_server.run_cluster(tmp_path / "keys") as servers:
        beside = dataclasses.replace(stack.sandbox, nats=servers[0], keys_folder=tmp_path / "keys")
        async with services.beside(
            beside,
            ARVADOS_NATS_NATS_URL=",".join(server.url for server in servers),
            ARVADOS_NATS_EVENTS_FRESH_START_MINUTES="20160",
            ARVADOS_NATS_QUEUE_REPLICAS="3",
            **REPLICAS,
        ) as running:
            stack.sandbox.advertise(stack.websocket_url)  # which others may rely on
            yield running


async def test_both_have_every_event(stack: Stack, second: Stack) -> None:
    """What was before the second one began, and what happens while both run; each on its own
    servers, and none waits for the other."""
    cluster = stack.sandbox.cluster
    made = [(await cluster.project(owner=cluster.root)).uuid]
    async with asyncio.timeout(WITHIN):
        cursor = await _heard(stack, set(made))
        await _heard(second, set(made))
        assert await _heard(second, set(made), cursor=cursor)  # begins anew
        made.append((await cluster.project(owner=cluster.root)).uuid)
        for installation in (second, stack):
            await _heard(installation, set(made))
        last = (await cluster.project(owner=cluster.root)).uuid
        # Rows of other tests that pretend to be of another time are no part of what is filled in.
        kept = await cluster.pool.fetch(
            "SELECT id FROM logs WHERE created_at < clock_timestamp() AT TIME ZONE 'UTC'"
            " AND created_at > clock_timestamp() AT TIME ZONE 'UTC' - interval '13 days'"
        )
        first = await _ids(stack, last) & {row["id"] for row in kept}
        assert await _ids(second, last) >= first != set()
    seed = keys.load(second.sandbox.keys_folder, "publisher").text
    async with nats_client.connect([second.sandbox.nats.url], name="t", seed=seed) as nats:
        info = await nats.stream_info(streams.EVENTS)
    assert info is not None
    assert info["config"]["num_replicas"] == 3


async def _heard(installation: Stack, wanted: set[str], cursor: str | None = None) -> str:
    """Both live and from the oldest that is kept, or a cursor; where one is then."""
    token = installation.sandbox.cluster.root.token
    async with client.connect(installation.stream_url, lambda: token) as stream:
        missing = set(wanted)
        async for message in await stream.events(cursor=cursor, begin="oldest"):
            if isinstance(message, Event):
                missing.discard(message.object_uuid or "")
                if not missing:
                    return message.cursor
    raise AssertionError("the events ended")


async def _ids(installation: Stack, last: str) -> set[int]:
    """Of the rows in the stream there, once it has an event of `last`."""
    seed = keys.load(installation.sandbox.keys_folder, "publisher").text
    async with nats_client.connect([installation.sandbox.nats.url], name="t", seed=seed) as nats:
        await _heard(installation, {last})
        stored = [message async for message in nats.history(streams.EVENTS, f"{subjects.EVENTS}.>")]
    return {events.decode(message.data).id for message in stored}
