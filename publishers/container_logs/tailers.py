# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The tailers of one replica: one for each container that is its own, each in a task.

A tailer ends with the end marker of its container, or when the container becomes another's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable

from arvados_nats.contract.log_chunks import ContainerEnd
from arvados_nats.nats.client import Nats
from arvados_nats.nats.lives import Life
from arvados_nats.service.ops import Health
from publishers.container_logs import metrics as log_metrics
from publishers.container_logs.assignments import Replicas
from publishers.container_logs.containers import Container
from publishers.container_logs.tailer import LogTailer, Surroundings
from publishers.container_logs.writer import LogWriter

logger = logging.getLogger(__name__)

_ENDINGS = 256
"""Ended containers that are read at a time, when many of them are found at once."""


class Roster:
    """Who follows which container; the tasks are children of `tasks`.

    `life` is that of the stream that all this is about.
    """

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        nats: Nats,
        replicas: Replicas,
        surroundings: Surroundings,
        life: Life,
        health: Health,
    ) -> None:
        self._tasks = tasks
        self._nats = nats
        self._replicas = replicas
        self._around = surroundings
        self._life = life
        self._health = health
        self._running: dict[str, tuple[LogTailer, asyncio.Task[None]]] = {}
        self._done: set[str] = set()
        self._endings = asyncio.Semaphore(_ENDINGS)

    @property
    def uuids(self) -> frozenset[str]:
        return frozenset(self._running)

    def see(self, containers: Iterable[Container]) -> None:
        """What these containers are now: start, tell or stop their tailers."""
        for container in containers:
            if not self._replicas.is_mine(container.uuid):
                self.drop(container.uuid)
            elif container.uuid in self._running:
                self._running[container.uuid][0].update(container)
            elif container.uuid not in self._done:
                self._start(container)

    def share(self) -> None:
        """The replicas have changed: leave to the others what is theirs now."""
        for uuid in self.uuids:
            if not self._replicas.is_mine(uuid):
                self.drop(uuid)

    def drop(self, container_uuid: str) -> None:
        """Stop following a container."""
        if entry := self._running.pop(container_uuid, None):
            entry[1].cancel()
        log_metrics.TAILED.set(len(self._running))

    def forget_done(self, but: Collection[str]) -> None:
        """Forget that these ended, except for those that a scan may still find."""
        self._done.intersection_update(but)

    def hurry(self, container_uuid: str) -> None:
        """Somebody has begun to watch."""
        if entry := self._running.get(container_uuid):
            entry[0].hurry()

    def _start(self, container: Container) -> None:
        writer = LogWriter(self._nats, container.uuid, self._life, self._health)
        tailer = LogTailer(container, writer, self._around)
        task = self._tasks.create_task(self._follow(tailer))
        self._running[container.uuid] = tailer, task
        log_metrics.TAILED.set(len(self._running))

    async def _follow(self, tailer: LogTailer) -> None:
        if tailer.container.final:
            async with self._endings:
                end = await tailer.run()
        else:
            end = await tailer.run()
        self._done.add(end.container_uuid)
        self._running.pop(end.container_uuid, None)
        log_metrics.TAILED.set(len(self._running))
        _tell(end)


def _tell(end: ContainerEnd) -> None:
    logger.info(
        "container log ended",
        extra={
            "action": "logs.end",
            "container_uuid": end.container_uuid,
            "state": end.state,
            "files": len(end.files),
            "confirmed": all(file.confirmed for file in end.files.values()),
        },
    )
