# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which containers somebody watches now.

Whoever shows a log publishes an empty message on `arvados.interest.logs.<container>` at once, then
about every 10 s while it goes on, and when a publisher that has just begun asks; the interest ends
30 s after the last of them. Nothing depends on it but the pace of the tailers: who announces
nothing gets the log all the same, later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from arvados_nats.contract import subjects
from arvados_nats.nats.client import Message, Nats
from publishers.container_logs import metrics as log_metrics

ANNOUNCE_SECONDS = 10.0
EXPIRE_SECONDS = 30.0


class Interest:
    """The containers that are watched, each until a point in time of the event loop's clock."""

    def __init__(self, *, expire: float = EXPIRE_SECONDS) -> None:
        self._expire = expire
        self._until: dict[str, float] = {}
        self._began: Callable[[str], None] = lambda container_uuid: None

    def on_begin(self, began: Callable[[str], None]) -> None:
        """Call `began(container_uuid)` when a container gets its first watcher."""
        self._began = began

    def watched(self, container_uuid: str) -> bool:
        return self._until.get(container_uuid, 0.0) > _now()

    def announced(self, container_uuid: str) -> None:
        """Somebody watches this container."""
        is_new = not self.watched(container_uuid)
        self._until[container_uuid] = _now() + self._expire
        if is_new:
            self._began(container_uuid)

    def sweep(self) -> None:
        """Forget what nobody watches any more."""
        now = _now()
        self._until = {uuid: until for uuid, until in self._until.items() if until > now}
        log_metrics.WATCHED.set(len(self._until))


async def listen(nats: Nats, interest: Interest) -> None:
    """Take note of announcements until cancelled."""

    async def heard(message: Message) -> None:
        uuid = message.subject.rpartition(".")[2]
        if subjects.is_uuid(uuid):
            interest.announced(uuid)

    subscription = await nats.subscribe(subjects.log_interest("*"), heard)
    try:
        await nats.publish(subjects.LOG_INTEREST_ASKED)
        while True:
            interest.sweep()
            await asyncio.sleep(ANNOUNCE_SECONDS / 2)
    finally:
        await subscription.unsubscribe()


def _now() -> float:
    return asyncio.get_running_loop().time()
