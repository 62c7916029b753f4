# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What one subscription brings, between the connection that receives it and whoever reads it.

Bounded: the connection waits while too much waits for the reader, and so does the server in turn.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from arvados_nats.client.subscriptions import Subscription
from arvados_nats.protocol_v1.messages import ServerMessage

_WAITING_MESSAGES = 64


class SubscriptionHandle:
    """What one subscription brings, in order; iterate over it, or `get` with a time limit."""

    def __init__(
        self,
        id: str,
        subscription: Subscription,
        drop: Callable[[SubscriptionHandle], Awaitable[None]],
    ) -> None:
        self.id = id
        self.subscription = subscription
        self.established = False
        """The server has said so on the present connection."""
        self._drop = drop
        self._queue: asyncio.Queue[ServerMessage | None] = asyncio.Queue(_WAITING_MESSAGES)
        self._end: BaseException | None = None
        self._closed = False

    def __aiter__(self) -> SubscriptionHandle:
        return self

    async def __anext__(self) -> ServerMessage:
        message = None if self.done else await self._queue.get()
        if message is None:
            raise self._end or StopAsyncIteration
        return message

    async def get(self, within: float | None) -> ServerMessage | None:
        """The next message; None if none comes in time or the subscription has ended (`done`)."""
        with contextlib.suppress(TimeoutError, StopAsyncIteration):
            async with asyncio.timeout(within):
                return await anext(self)
        return None

    @property
    def done(self) -> bool:
        """Whether all has been read that there will be."""
        return self._closed or (self._end is not None and self._queue.empty())

    async def close(self) -> None:
        """Unsubscribe; what is still under way is dropped."""
        self.finish(None)
        self._closed = True
        while not self._queue.empty():
            self._queue.get_nowait()
        await self._drop(self)

    async def put(self, message: ServerMessage) -> None:
        """Hand over to the one who reads, and wait while too much waits for him already."""
        if self._end is None:
            await self._queue.put(message)

    def finish(self, error: BaseException | None) -> None:
        """Nothing comes any more; whoever has read the rest gets the error, or a plain end."""
        if self._end is None:
            self._end = error or StopAsyncIteration()
            if self._queue.empty():
                self._queue.put_nowait(None)
