# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The hubs of all containers whose logs somebody reads, from the first reader to the last.

While a container is watched its interest is announced every 10 s, and when a publisher asks, so
that the container log publisher looks often.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter

from arvados_nats.arvados.client import Arvados
from arvados_nats.contract import streams, subjects
from arvados_nats.errors import ArvadosNatsError, Unavailable
from arvados_nats.nats.client import Message, Nats
from arvados_nats.nats.lives import Life
from arvados_nats.service.ops import Health
from wsproxy import metrics
from wsproxy.logs.history import LogHistory
from wsproxy.logs.hub import LogHub
from wsproxy.logs.recent_bytes import RecentBytes
from wsproxy.logs.saved import SavedLogs
from wsproxy.logs.stored import StoredLogs

logger = logging.getLogger(__name__)

INTEREST_SECONDS = 10.0
_PART = "logs"
_LOOK_SECONDS = 1.0
_UNANSWERED_SECONDS = 10.0
LINGER_SECONDS = 15.0
"""How long a hub without readers lives on: pages are reloaded."""


class LogHubs:
    """All hubs of the process; `run` until cancelled."""

    def __init__(self, nats: Nats, arvados: Arvados, health: Health) -> None:
        self.stored = StoredLogs(nats)
        """The one of the process: what it remembers is forgotten with the stream."""
        self._nats = nats
        self._health = health
        self._saved = SavedLogs(arvados)
        self._history = LogHistory(self.stored, self._saved)
        self._recent = RecentBytes()
        self._hubs: dict[str, tuple[LogHub, asyncio.Task[None]]] = {}
        self._users: dict[str, int] = {}
        self._watchers: Counter[str] = Counter()
        self._announce_now = asyncio.Event()
        self._tasks: asyncio.TaskGroup

    async def run(self) -> None:
        """Keep the hubs going until cancelled."""
        self._nats.on_change(self._connection_changed)
        async with asyncio.TaskGroup() as self._tasks:
            self._tasks.create_task(self._watch_the_stream())
            await self._nats.subscribe(subjects.LOG_INTEREST_ASKED, self._asked)
            while True:
                self._announce_now.clear()
                await self._announce()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(INTEREST_SECONDS):
                        await self._announce_now.wait()

    async def _watch_the_stream(self) -> None:
        """Begin anew when the stream is another one; tell health when nobody says for long."""
        life, now = Life(self._nats, streams.LOGS), asyncio.get_running_loop().time
        answered = now()
        while True:
            try:
                if await life.look() is False:
                    life = Life(self._nats, streams.LOGS)
                    self._begin_anew()
                    continue  # and know it before anything more is noted: it may be lost, too
                answered = now()
                self._health.well(_PART)
            except ArvadosNatsError as error:
                if now() - answered > _UNANSWERED_SECONDS:
                    self._health.fault(_PART, f"the stream {streams.LOGS} cannot be read: {error}")
            await asyncio.sleep(_LOOK_SECONDS)

    def _begin_anew(self) -> None:
        logger.warning("the stream of logs was made anew", extra={"action": "logs.reset"})
        self.stored.forget()
        self._history.forget()
        for hub, _ in self._hubs.values():
            hub.stream_lost()

    def open(self, container: str, *, watching: bool = True) -> LogHub:
        """The hub of a container, for one more user while `run` runs; `close` must follow.

        Who is not `watching` needs no haste of the container log publisher.
        """
        self._users[container] = self._users.get(container, 0) + 1
        self._watchers[container] += watching
        if watching and self._watchers[container] == 1:
            self._announce_now.set()
        if container in self._hubs:
            return self._hubs[container][0]
        hub = LogHub(container, self._nats, self.stored, self._saved, self._history, self._recent)
        task = self._tasks.create_task(hub.run(), name="log hub")
        self._hubs[container] = (hub, task)
        metrics.log_hubs.set(len(self._hubs))
        return hub

    def close(self, container: str, *, watching: bool = True) -> None:
        """One user less; the hub ends some seconds after the last."""
        self._users[container] -= 1
        self._watchers[container] -= watching
        if not self._users[container]:
            asyncio.get_running_loop().call_later(LINGER_SECONDS, self._end, container)

    def _end(self, container: str) -> None:
        if self._users.get(container) == 0:
            del self._users[container], self._watchers[container]
            _, task = self._hubs.pop(container)
            metrics.log_hubs.set(len(self._hubs))
            task.cancel()

    async def _asked(self, _: Message) -> None:
        self._announce_now.set()

    async def _announce(self) -> None:
        for container, (hub, _) in tuple(self._hubs.items()):
            if hub.end is None and self._watchers[container]:
                with contextlib.suppress(Unavailable):
                    await self._nats.publish(subjects.log_interest(container))

    def _connection_changed(self, connected: bool) -> None:
        if connected:
            for hub, _ in self._hubs.values():
                hub.check_now.set()
            self._announce_now.set()
