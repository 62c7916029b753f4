# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The log folder of one container in the controller's API: sizes, and ranges of bytes.

The controller serves it from the compute node's gateway while the container runs and from the saved
log collection afterwards, at the same offsets (docs/facts/arvados.md 4). Every call costs it two
calls of the API server and, while live, a connection to the node; so all containers together have a
limit of calls at a time, which rises while Arvados answers as quickly as ever (`pace.Width`), calls
of one container come one after the other, and logs that nobody watches leave half of the limit to
those that somebody does.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TypeVar

from arvados_nats.arvados.client import Arvados, LogRange, NotFound
from arvados_nats.arvados.tokens import Token
from arvados_nats.errors import ArvadosNatsError, Refused
from arvados_nats.service.ops import Health
from publishers.container_logs import metrics as log_metrics
from publishers.container_logs.containers import Container
from publishers.container_logs.pace import Width

T = TypeVar("T")

_PART = "controller's log API"
_FAILURES_IN_A_ROW = 20
"""Cut tunnels fail one container at a time; this many failures without an answer are more."""


class LogSource:
    """The log API as `token()` sees it; `calls` at a time are the fewest."""

    def __init__(
        self, arvados: Arvados, token: Callable[[], Token], health: Health, *, calls: int
    ) -> None:
        self._arvados = arvados
        self._token = token
        self._health = health
        self._failures = 0
        self._width = Width(calls)
        self._given = calls
        """How many turns there are."""
        self._turns = asyncio.Semaphore(calls)
        self._unwatched_turns = asyncio.Semaphore(max(1, calls // 2))
        self._watched: Callable[[str], bool] = lambda container_uuid: True
        self._begun: dict[str, asyncio.Future[None]] = {}
        """Of containers that nobody watched when they began to wait."""

    def prefer(self, watched: Callable[[str], bool]) -> None:
        """Let containers that are `watched` go first."""
        self._watched = watched

    def hurry(self, container_uuid: str) -> None:
        """Somebody has begun to watch: it waits with those that nobody does no longer."""
        begun = self._begun.get(container_uuid)
        if begun and not begun.done():
            begun.set_result(None)

    async def sizes(self, container: Container) -> dict[str, int]:
        """Size of each file now; a folder that is not there is empty.

        Refused for a token that may not read it, Unavailable while the way to the node is cut.
        """
        if container.request_uuid is None:
            return {}
        ask = partial(
            self._arvados.log_sizes, self._token(), container.request_uuid, container.uuid
        )
        try:
            return await self._in_turn(container, "sizes", ask)
        except NotFound:
            return {}

    async def read(self, container: Container, file: str, first: int, last: int) -> LogRange:
        """Bytes `first` to `last`, both included, or fewer; none if the file is not there."""
        if container.request_uuid is None:
            return LogRange(first, b"", None)
        ask = partial(
            self._arvados.log_range, self._token(), container.request_uuid, container.uuid
        )
        return await self._in_turn(container, "read", partial(ask, file, first, last))

    async def _in_turn(self, container: Container, call: str, ask: Callable[[], Awaitable[T]]) -> T:
        async with contextlib.AsyncExitStack() as turns:
            if not self._watched(container.uuid):
                await turns.enter_async_context(self._unwatched(container.uuid))
            await self._turns.acquire()
            turns.callback(self._give_back)
            return await self._timed(call, ask)

    @contextlib.asynccontextmanager
    async def _unwatched(self, container_uuid: str) -> AsyncIterator[None]:
        begun = asyncio.get_running_loop().create_future()
        self._begun[container_uuid] = begun
        turn = asyncio.create_task(self._unwatched_turns.acquire())
        try:
            await asyncio.wait((turn, begun), return_when=asyncio.FIRST_COMPLETED)
            yield
        finally:
            del self._begun[container_uuid]
            begun.cancel()
            if not turn.cancel():
                self._unwatched_turns.release()

    def _give_back(self) -> None:
        if self._given > self._width.calls:
            self._given -= 1
            return
        self._turns.release()
        while self._given < self._width.calls:
            self._given += 1
            self._turns.release()

    async def _timed(self, call: str, ask: Callable[[], Awaitable[T]]) -> T:
        started = time.perf_counter()
        outcome = "failed"
        try:
            result = await ask()
            outcome = "ok"
            self._answered()
            now = time.perf_counter()
            self._width.took(now, now - started, all_in_use=self._turns.locked())
            return result
        except ArvadosNatsError as error:
            outcome = type(error).__name__.lower()
            self._failed(error)
            raise
        finally:
            log_metrics.CALLS.labels(call, outcome).inc()
            log_metrics.CALL_SECONDS.observe(time.perf_counter() - started)

    def _answered(self) -> None:
        self._failures = 0
        self._health.well(_PART)

    def _failed(self, error: ArvadosNatsError) -> None:
        if isinstance(error, NotFound):
            return
        self._width.failed()
        self._failures += 1
        if isinstance(error, Refused) or self._failures >= _FAILURES_IN_A_ROW:
            self._health.fault(_PART, error)
