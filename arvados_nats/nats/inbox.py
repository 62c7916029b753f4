# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Answers to what is asked over NATS.

Not by the library's `request` and `next_msg`: they wait with asyncio.wait_for, which on Python 3.11
drops a cancellation that comes together with an answer, so that a task that was to stop would go
on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from arvados_nats.errors import Unavailable
from arvados_nats.nats.errors import cancellable, translated
from arvados_nats.nats.parser import Client

_END_SECONDS = 1.0
_NO_RESPONDERS = "503"


class Inbox:
    """A subject of our own, and what comes there; get one from `opened`."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self._arrived: asyncio.Queue[Msg] = asyncio.Queue()

    def put(self, message: Msg) -> None:
        self._arrived.put_nowait(message)

    async def next(self, timeout: float | None) -> Msg:
        """The next message; TimeoutError after so many seconds without one."""
        if not self._arrived.empty():
            return self._arrived.get_nowait()
        async with asyncio.timeout(timeout):
            return await self._arrived.get()


@asynccontextmanager
async def opened(client: Client) -> AsyncIterator[Inbox]:
    """An inbox for as long as the block runs."""
    inbox = Inbox(client.new_inbox())
    with cancellable():
        subscription = await client.subscribe(inbox.subject)
    client.taken[subscription._id] = inbox.put
    try:
        yield inbox
    finally:
        del client.taken[subscription._id]
        await end(subscription)


async def end(subscription: Subscription) -> None:
    """Unsubscribe, and wait no longer for a slow server than a task that is to stop may take."""
    with contextlib.suppress(Unavailable), translated():
        async with asyncio.timeout(_END_SECONDS):
            await subscription.unsubscribe()


async def ask(
    client: Client,
    subject: str,
    data: bytes,
    headers: dict[str, str] | None,
    *,
    again: float | None = None,
) -> Msg:
    """The one answer; NoRespondersError if nobody listens.

    `again`: seconds after which the same is asked once more, as long as nobody has answered.
    """
    async with opened(client) as inbox:
        answer = None
        while answer is None:
            with cancellable():
                await client.publish(subject, data, reply=inbox.subject, headers=headers)
            with contextlib.suppress(TimeoutError):
                answer = await inbox.next(again)
    if not answer.data and (answer.headers or {}).get("Status") == _NO_RESPONDERS:
        raise nats.errors.NoRespondersError
    return answer
