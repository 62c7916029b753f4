# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Events published at the stream, as the event publisher does, in a process of their own.

The benchmark's own process is Arvados as well: what it is asked meanwhile would be measured as
delay.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from array import array
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from arvados_nats.contract import events, subjects
from arvados_nats.contract.events import Event
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Nats
from bench.crowd import clients
from bench.crowd.clients import Far

_NOW = "2026-01-01T00:00:00.000000Z"
_TICK = 0.02
_SIZE = 10


async def publish(
    nats: Nats, number: int, uuid: str, owner: str, above: str, size: int
) -> asyncio.Future[object]:
    """An update of an object in a project, with about so many bytes of content."""
    event = Event(
        id=number,
        uuid=f"zzzzz-57u5n-{number:015d}",
        event_type="update",
        event_at=_NOW,
        created_at=_NOW,
        object_uuid=uuid,
        object_kind="arvados#collection",
        object_owner_uuid=owner,
        verified=True,
        audience=[(owner, uuid)],
        properties={"text": "x" * size},
        facts={
            "kind": "collection",
            "uuid": uuid,
            "owner_uuid": owner,
            "places": [{"uuid": owner, "above": [above]}],
        },
    )
    headers = {"Nats-Msg-Id": f"{event.uuid}{secrets.token_hex(4)}"}
    subject = subjects.event(uuid, "update")
    return await nats.publish_stored(subject, events.encode(event), headers)  # type: ignore[return-value]


class Publisher:
    """The far end: publishes below one project."""

    def __init__(self) -> None:
        self._exits = AsyncExitStack()
        self._nats: Nats
        self._owner, self._above = "", ""

    async def connect(self, server: str, seed: str, owner: str, above: str) -> None:
        """To this server, as the event publisher."""
        self._owner, self._above = owner, above
        self._nats = await self._exits.enter_async_context(
            nats_client.connect([server], name="bench", seed=seed)
        )

    async def publish(self, first: int, rate: float, seconds: float) -> array[float]:
        """Events with numbers from `first` on, so many a second; when each of them was."""
        moments, stored = array("d"), list[asyncio.Future[object]]()
        began = time.monotonic()
        while (elapsed := time.monotonic() - began) < seconds:
            for _ in range(int(elapsed * rate) + 1 - len(moments)):
                number = first + len(moments)
                moments.append(time.monotonic())
                uuid = f"zzzzz-4zz18-{number:015d}"
                stored.append(
                    await publish(self._nats, number, uuid, self._owner, self._above, _SIZE)
                )
            await asyncio.sleep(_TICK)
        await asyncio.gather(*stored)
        return moments


@asynccontextmanager
async def publisher(server: str, seed: str, owner: str, above: str) -> AsyncIterator[Far]:
    """One, connected, as long as the block."""
    async with clients.process(Publisher) as (pipe, pid):
        far = Far(pipe, pid)
        await far.tell("connect", server, seed, owner, above)
        yield far
