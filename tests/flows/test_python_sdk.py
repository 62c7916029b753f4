# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""arvados.events of arvados-python-client, unchanged, against the whole product.

The WebSocket half of sdk/python/tests/test_events.py under its names; found through the discovery
document, over TLS, as on a real site.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from sandbox import stack as services
from sandbox.model.actors import Actor
from sandbox.sandbox import Sandbox
from sandbox.stack import Stack

COLLECTIONS = [["object_uuid", "is_a", "arvados#collection"]]
WITHIN = 60.0
OWNER_ZONE = timezone(timedelta(hours=-7))


@pytest.fixture(scope="module")
async def site(sandbox: Sandbox) -> AsyncIterator[Stack]:
    """The product, with a wsproxy that serves wss:// itself."""
    files = {
        "ARVADOS_NATS_TLS_CERTIFICATE": str(sandbox.certificates.certificate),
        "ARVADOS_NATS_TLS_KEY": str(sandbox.certificates.key),
        "ARVADOS_NATS_DRAIN_SECONDS": "0.1",
    }
    async with services.beside(sandbox, **files) as running:
        sandbox.advertise(running.websocket_url.replace("ws://", "wss://"))
        yield running
        services.require(running)


class Listener:
    """The program sdk_listener."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def tell(self, **command: Any) -> None:
        """Send it a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        await self._process.stdin.drain()

    async def next(self, within: float = WITHIN) -> dict[str, Any]:
        """What its callback gets next, keep-alives apart."""
        assert self._process.stdout is not None
        while True:
            async with asyncio.timeout(within):
                line = await self._process.stdout.readline()
            assert line, "the program has ended"
            told: dict[str, Any] = json.loads(line)
            if told:
                return told

    async def event(self, uuid: str | None = None) -> dict[str, Any]:
        """The next event, or the next about an object."""
        while True:
            event = await self.next()
            if event.get("object_uuid") and uuid in (None, event["object_uuid"]):
                return event

    async def silent(self, seconds: float = 1.0) -> None:
        """Its callback is not called for a while."""
        with pytest.raises(TimeoutError):
            found = await self.next(seconds)
            raise AssertionError(f"called with {found}")


@asynccontextmanager
async def listening(
    sandbox: Sandbox,
    user: Actor,
    filters: Any = None,
    last_log_id: int | None = None,
    poll: float = 0,
) -> AsyncIterator[Listener]:
    """A running program whose first subscription was accepted."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.clients.sdk_listener",
        json.dumps(filters),
        json.dumps(last_log_id),
        json.dumps(poll),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **sandbox.client_environment(user.token)},
    )
    try:
        listener = Listener(process)
        assert await listener.next(30) == {"status": 200}
        yield listener
    finally:
        process.kill()
        await process.wait()


@pytest.fixture
async def user(sandbox: Sandbox, site: Stack) -> Actor:
    """A user of this test alone, all events about whom are out."""
    made = await sandbox.cluster.user("sdk")
    async with listening(sandbox, made, [], 1) as listener:
        marker = await sandbox.cluster.collection("marker", owner=made)
        await listener.event(marker.uuid)
    return made


async def test_subscribe_websocket(sandbox: Sandbox, user: Actor) -> None:
    """Status first; then the new object, and not the older one."""
    async with listening(sandbox, user, COLLECTIONS) as listener:
        made = await sandbox.cluster.collection("descendant", owner=user)
        event = await listener.event()
        assert (event["object_uuid"], event["event_type"]) == (made.uuid, "create")
        await listener.silent()


@pytest.mark.parametrize("zone", [UTC, OWNER_ZONE])
async def test_subscribe_websocket_start_time_past(
    sandbox: Sandbox, user: Actor, zone: timezone
) -> None:
    """The older object is replayed, whatever zone the time is in."""
    older = await sandbox.cluster.collection("ancestor", owner=user)
    start = (datetime.now(UTC) - timedelta(hours=1)).astimezone(zone).isoformat()
    filters = [["created_at", ">=", start], ["event_type", "in", ["create"]]]
    async with listening(sandbox, user, filters, 1) as listener:
        await listener.event(older.uuid)
        newer = await sandbox.cluster.collection("descendant", owner=user)
        assert (await listener.event())["object_uuid"] == newer.uuid


@pytest.mark.parametrize("zone", [UTC, OWNER_ZONE])
async def test_subscribe_websocket_start_time_future(
    sandbox: Sandbox, user: Actor, zone: timezone
) -> None:
    """Neither older nor newer objects."""
    start = (datetime.now(UTC) + timedelta(hours=1)).astimezone(zone).isoformat()
    async with listening(sandbox, user, [["created_at", ">=", start]], 1) as listener:
        await sandbox.cluster.collection("descendant", owner=user)
        await listener.silent(2.0)


async def test_websocket_reconnect_on_unexpected_close(
    sandbox: Sandbox, site: Stack, user: Actor
) -> None:
    """The SDK comes back with the last id: what happened meanwhile comes, nothing twice."""
    proxy = site.services["wsproxy"]
    creates = [["event_type", "in", ["create"]]]
    async with listening(sandbox, user, creates) as listener:
        first = await sandbox.cluster.collection("first", owner=user)
        assert (await listener.event())["object_uuid"] == first.uuid
        await proxy.kill()
        meanwhile = await sandbox.cluster.collection("meanwhile", owner=user)
        await proxy.start()
        assert await listener.next(40) == {"status": 200}
        assert (await listener.event())["object_uuid"] == meanwhile.uuid
        last = await sandbox.cluster.collection("last", owner=user)
        assert (await listener.event())["object_uuid"] == last.uuid
        await listener.silent()


async def test_websocket_no_reconnect_on_close_by_user(sandbox: Sandbox, user: Actor) -> None:
    """Silence after close."""
    async with listening(sandbox, user) as listener:
        await listener.tell(close=True)
        assert await listener.next() == {"closed": True}
        await sandbox.cluster.collection("unheard", owner=user)
        await listener.silent()


async def test_subscriptions_survive_a_reconnect(
    sandbox: Sandbox, site: Stack, user: Actor
) -> None:
    """Those made later come back as well; one that was taken back does not."""
    proxy = site.services["wsproxy"]
    creates, updates = [["event_type", "in", [name]] for name in ("create", "update")]
    collection = await sandbox.cluster.collection("watched", owner=user)
    async with listening(sandbox, user, [creates]) as listener:
        await listener.tell(subscribe=[updates])
        while await listener.next() != {"status": 200}:
            pass
        await listener.tell(unsubscribe=[creates])
        while await listener.next() != {"status": 200}:
            pass
        await proxy.stop()
        await proxy.start()
        assert await listener.next(40) == {"status": 200}
        await sandbox.cluster.collection("unheard", owner=user)
        await sandbox.cluster.update(collection, {"name": "changed"}, user)
        event = await listener.event()
        assert (event["object_uuid"], event["event_type"]) == (collection.uuid, "update")


async def test_polling_where_there_is_no_websocket(
    sandbox: Sandbox, site: Stack, user: Actor
) -> None:
    """The SDK's PollClient takes over when wsproxy is away at its start, as without arvados-ws."""
    proxy = site.services["wsproxy"]
    await proxy.stop()
    try:
        creates = [["event_type", "in", ["create"]]]
        async with listening(sandbox, user, creates, 1, poll=0.2) as listener:
            made = await sandbox.cluster.collection("polled", owner=user)
            event = await listener.event(made.uuid)
            assert (event["event_type"], event["object_owner_uuid"]) == ("create", user.uuid)
    finally:
        await proxy.start()
