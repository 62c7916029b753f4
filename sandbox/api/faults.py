# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What tests and benchmarks may ask of the API server: how often was it called, and do fail.

A route is named by method and path with uuids replaced, e.g. `GET /arvados/v1/users/current`,
`GET /arvados/v1/collections/{uuid}`, `PROPFIND /arvados/v1/container_requests/{uuid}/log`.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_UUID = re.compile(r"[a-z0-9]{5}-[a-z0-9]{5}-[a-z0-9]{15}|[0-9a-f]{32}\+\d+")
_LOG = re.compile(r"(?<=/container_requests/\{uuid\}/log)/.*")


def route(method: str, path: str) -> str:
    """The name of a request's route."""
    return f"{method} {_LOG.sub('', _UUID.sub('{uuid}', path))}"


@dataclass(slots=True)
class Fault:
    """Requests whose route starts with `prefix` get `status`, or wait for `lifted` to be set."""

    prefix: str
    status: int | None
    lifted: asyncio.Event = field(default_factory=asyncio.Event)


class Faults:
    """Counters of calls and the faults that are switched on."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.now = 0
        """Calls that are being answered."""
        self.most = 0
        """The most that were at once since `reset`."""
        self._active: list[Fault] = []

    def count(self, prefix: str = "") -> int:
        """Calls of all routes whose name starts with `prefix`."""
        return sum(calls for name, calls in self.calls.items() if name.startswith(prefix))

    def reset(self) -> None:
        """Count from zero again."""
        self.calls.clear()
        self.most = self.now

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """A call is being answered as long as the block lasts."""
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            yield
        finally:
            self.now -= 1

    @contextmanager
    def failing(self, prefix: str = "", status: int = 500) -> Iterator[Fault]:
        """Answer the routes that start with `prefix` with this status."""
        with self._switched(Fault(prefix, status)) as fault:
            yield fault

    @contextmanager
    def hanging(self, prefix: str = "") -> Iterator[Fault]:
        """Let the routes that start with `prefix` wait; they go on when the block is left."""
        with self._switched(Fault(prefix, None)) as fault:
            yield fault

    @contextmanager
    def _switched(self, fault: Fault) -> Iterator[Fault]:
        self._active.append(fault)
        try:
            yield fault
        finally:
            self._active.remove(fault)
            fault.lifted.set()

    async def meet(self, name: str) -> int | None:
        """Count a call; the status to fail with, None to go on. Waits while it has to hang."""
        self.calls[name] += 1
        for fault in list(self._active):
            if name.startswith(fault.prefix):
                if fault.status is not None:
                    return fault.status
                await fault.lifted.wait()
        return None
