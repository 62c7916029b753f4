# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A native NATS client with an Arvados token, as the tests use it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from arvados_nats.contract import subjects
from arvados_nats.errors import Refused, Unavailable
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Message, Nats
from sandbox.model.actors import Actor
from sandbox.stack import Stack
from tests.support.waiting import until


class Native:
    """One connection, what it heard, and whether it is cut."""

    def __init__(self, nats: Nats) -> None:
        self.nats = nats
        self.heard: list[Message] = []
        self.cuts = 0
        nats.on_change(self._changed)

    def _changed(self, connected: bool) -> None:
        self.cuts += not connected

    async def listen(self, subject: str, queue: str = "") -> None:
        """Subscribe; a refusal shows in the client's error callback only."""

        async def hear(message: Message) -> None:
            self.heard.append(message)

        await self.nats.subscribe(subject, hear, queue=queue)
        await self.flush()

    async def flush(self) -> None:
        """All that was said is heard, also when a change of permission cuts the line meanwhile."""
        while True:
            await until(lambda: self.nats.connected, "the client is back")
            with contextlib.suppress(Unavailable):
                await self.nats.flush()
                return

    def heard_of(self, uuid: str) -> list[str]:
        """Subjects of the messages about an object."""
        return [message.subject for message in self.heard if uuid in message.subject]


async def lets_in(stack: Stack, token: str) -> bool:
    """One login: whether it succeeds. A silent callout looks like a refusal: both take 2 s."""
    try:
        async with nats_client.connect([stack.sandbox.nats.url], name="t", token=token, timeout=5):
            return True
    except (Refused, Unavailable):
        return False


async def lets_in_at_last(stack: Stack, token: str, within: float = 60) -> bool:
    """Log in again until it succeeds, as clients do: a login that could not be decided within the
    callout's budget is refused like a wrong one."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            while not await lets_in(stack, token):  # noqa: ASYNC110 (each look is a login)
                await asyncio.sleep(0.2)
            return True
    return False


@asynccontextmanager
async def connected(
    stack: Stack, actor: Actor, *, asks: bool = False, again: bool = True
) -> AsyncIterator[Native]:
    """Connect with the actor's token and private inbox, to listen or to ask; `again` while a login
    is refused, which may mean that the busy callout could not decide about it in time."""
    deadline = time.monotonic() + 60
    async with contextlib.AsyncExitStack() as exits:
        while True:
            line = nats_client.connect(
                [stack.sandbox.nats.url],
                name="test",
                token=actor.token,
                asks=asks,
                inbox_prefix=subjects.inbox_prefix(actor.token_uuid or actor.uuid),
                timeout=5,
            )
            try:
                nats = await exits.enter_async_context(line)
                break
            except (Refused, Unavailable):
                if not again or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.2)
        yield Native(nats)
