# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The subscriptions of one connection, by the ids that its protocol gives them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterator
from contextlib import nullcontext
from typing import Generic, TypeVar

from arvados_nats.errors import ArvadosNatsError
from wsproxy.subscriptions.subscription import Subscription
from wsproxy.transport.failures import Tasks
from wsproxy.transport.fair import Fair

_Id = TypeVar("_Id", bound=Hashable)
_Failed = Callable[[ArvadosNatsError], None]


class Begun(Generic[_Id]):
    """They start, in turn with those of others where Arvados may be asked, and end by a wish or
    with the connection."""

    def __init__(self, starts: Fair, tasks: Tasks) -> None:
        self._starts = starts
        self._tasks = tasks
        self._all: dict[_Id, Subscription] = {}
        self._starting: dict[_Id, asyncio.Task[None]] = {}

    def __iter__(self) -> Iterator[Subscription]:
        """As they are now: any may end meanwhile."""
        return iter(tuple(self._all.values()))

    def begin(self, id: _Id, subscription: Subscription, user_uuid: str, failed: _Failed) -> None:
        """`failed` is called if it cannot start, unless it was stopped meanwhile."""
        self._all[id] = subscription
        self._tasks.keep(self._starting, id, self._start(id, subscription, user_uuid, failed))

    async def _start(
        self, id: _Id, subscription: Subscription, user_uuid: str, failed: _Failed
    ) -> None:
        waits = subscription.asks_arvados
        try:
            async with self._starts.turn(user_uuid) if waits else nullcontext():
                await subscription.start()
        except ArvadosNatsError as error:
            if self._all.get(id) is subscription:
                del self._all[id]
                failed(error)
            subscription.stop()

    def stop(self, id: _Id) -> None:
        """Nothing more is sent of it."""
        if over := self._all.pop(id, None):
            over.stop()
        if starting := self._starting.pop(id, None):
            starting.cancel()

    def stop_all(self) -> None:
        """Nothing more is sent of any."""
        subscriptions, self._all = self._all, {}
        for subscription in subscriptions.values():
            subscription.stop()
        starting, self._starting = self._starting, {}
        for task in starting.values():
            task.cancel()

    def recheck(self) -> None:
        """The user may read less than before."""
        for subscription in self:
            subscription.recheck()
