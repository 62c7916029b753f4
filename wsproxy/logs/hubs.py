# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The feeds of all containers whose logs somebody reads, from the first reader to the last.

While a container is watched its interest is announced every 10 s, so that the container log
publisher looks often.
"""

from __future__ import annotations

import asyncio
import contextlib

from arvados_nats.arvados.client import Arvados
from arvados_nats.contract import subjects
from arvados_nats.errors import Unavailable
from arvados_nats.nats.client import Nats
from wsproxy import metrics
from wsproxy.logs.history import LogHistory
from wsproxy.logs.hub import LogFeed
from wsproxy.logs.saved import SavedLogs
from wsproxy.logs.stored import StoredLogs

INTEREST_SECONDS = 10.0
LINGER_SECONDS = 15.0
"""How long a feed without readers lives on: pages are reloaded."""


class LogFeeds:
    """All feeds of the process; `run` until cancelled."""

    def __init__(self, nats: Nats, arvados: Arvados) -> None:
        self._nats = nats
        self._stored = StoredLogs(nats)
        self._saved = SavedLogs(arvados)
        self._history = LogHistory(self._stored, self._saved)
        self._feeds: dict[str, tuple[LogFeed, asyncio.Task[None]]] = {}
        self._users: dict[str, int] = {}
        self._announce_now = asyncio.Event()
        self._tasks: asyncio.TaskGroup

    async def run(self) -> None:
        """Keep the feeds going until cancelled."""
        self._nats.on_change(self._connection_changed)
        async with asyncio.TaskGroup() as self._tasks:
            while True:
                self._announce_now.clear()
                await self._announce()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(INTEREST_SECONDS):
                        await self._announce_now.wait()

    def open(self, container: str) -> LogFeed:
        """The feed of a container, for one more user while `run` runs; `close` must follow."""
        self._users[container] = self._users.get(container, 0) + 1
        if container in self._feeds:
            return self._feeds[container][0]
        feed = LogFeed(container, self._nats, self._stored, self._saved, self._history)
        task = self._tasks.create_task(feed.run(), name="log feed")
        self._feeds[container] = (feed, task)
        metrics.log_feeds.set(len(self._feeds))
        self._announce_now.set()
        return feed

    def close(self, container: str) -> None:
        """One user less; the feed ends some seconds after the last."""
        self._users[container] -= 1
        if not self._users[container]:
            asyncio.get_running_loop().call_later(LINGER_SECONDS, self._end, container)

    def _end(self, container: str) -> None:
        if self._users.get(container) == 0:
            del self._users[container]
            _, task = self._feeds.pop(container)
            metrics.log_feeds.set(len(self._feeds))
            task.cancel()

    async def _announce(self) -> None:
        for container, (feed, _) in tuple(self._feeds.items()):
            if feed.end is None and self._users.get(container):
                with contextlib.suppress(Unavailable):
                    await self._nats.publish(subjects.log_interest(container))

    def _connection_changed(self, connected: bool) -> None:
        if connected:
            for feed, _ in self._feeds.values():
                feed.check_now.set()
            self._announce_now.set()
