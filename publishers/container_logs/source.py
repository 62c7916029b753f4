# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The log folder of one container in the controller's API: sizes, and ranges of bytes.

The controller serves it from the compute node's gateway while the container runs and from the saved
log collection afterwards, at the same offsets (docs/facts/arvados.md 4). Every call costs it two
calls of the API server and, while live, a connection to the node; so all containers together have a
limit of calls at a time, calls of one container come one after the other, and logs that nobody
watches leave half of the limit to those that somebody does.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from arvados_nats.arvados.client import Arvados, NotFound
from arvados_nats.arvados.tokens import Token
from arvados_nats.errors import ArvadosNatsError, Refused
from arvados_nats.service.ops import Health
from publishers.container_logs import metrics as log_metrics
from publishers.container_logs.containers import Container

T = TypeVar("T")

_PART = "controller's log API"
_FAILURES_IN_A_ROW = 20
"""Cut tunnels fail one container at a time; this many failures without an answer are more."""


class LogSource:
    """The log API as `token()` sees it, with at most `calls` calls at a time."""

    def __init__(
        self, arvados: Arvados, token: Callable[[], Token], health: Health, *, calls: int
    ) -> None:
        self._arvados = arvados
        self._token = token
        self._health = health
        self._failures = 0
        self._turns = asyncio.Semaphore(calls)
        self._unwatched_turns = asyncio.Semaphore(max(1, calls // 2))
        self._watched: Callable[[str], bool] = lambda container_uuid: True

    def prefer(self, watched: Callable[[str], bool]) -> None:
        """Let containers that are `watched` go first."""
        self._watched = watched

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

    async def read(self, container: Container, file: str, first: int, last: int) -> bytes:
        """Bytes `first` to `last`, both included, or fewer; none if the file is not there."""
        if container.request_uuid is None:
            return b""
        ask = partial(
            self._arvados.log_range, self._token(), container.request_uuid, container.uuid
        )
        return (await self._in_turn(container, "read", partial(ask, file, first, last))).data

    async def _in_turn(self, container: Container, call: str, ask: Callable[[], Awaitable[T]]) -> T:
        async with contextlib.AsyncExitStack() as turns:
            if not self._watched(container.uuid):
                await turns.enter_async_context(self._unwatched_turns)
            await turns.enter_async_context(self._turns)
            return await self._timed(call, ask)

    async def _timed(self, call: str, ask: Callable[[], Awaitable[T]]) -> T:
        started = time.perf_counter()
        outcome = "failed"
        try:
            result = await ask()
            outcome = "ok"
            self._answered()
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
        self._failures += 1
        if isinstance(error, Refused) or self._failures >= _FAILURES_IN_A_ROW:
            self._health.fault(_PART, error)
