# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What fails in one connection ends that connection, loudly; never in silence.

A mistake of ours must not leave a client waiting for ever, nor touch anybody else's connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol, TypeVar

from wsproxy import metrics
from wsproxy.transport.close_codes import CloseCode
from wsproxy.transport.send_buffer import SendBuffer

logger = logging.getLogger(__name__)


class _HasSendBuffer(Protocol):
    @property
    def send_buffer(self) -> SendBuffer:
        """The connection's outgoing side."""


_Session = TypeVar("_Session", bound=_HasSendBuffer)
_Key = TypeVar("_Key")


def each(sessions: Iterable[_Session], act: Callable[[_Session], None]) -> None:
    """Let `act` happen to all of them: one that fails ends, and the others get their turn."""
    for session in tuple(sessions):
        try:
            act(session)
        except Exception as error:
            end(session.send_buffer, error)


def end(send_buffer: SendBuffer, error: BaseException) -> None:
    """Close the connection; the client is to come back and resume."""
    logger.error("connection failed", extra={"action": "connection.failed"}, exc_info=error)
    metrics.cut_sockets.labels("failure").inc()
    try:
        send_buffer.close(CloseCode.RESYNC, "the server has made a mistake")
    except Exception:
        send_buffer.abort()


class Tasks:
    """Tasks of one connection: they end with it, and it with the first of them that fails."""

    def __init__(self, send_buffer: SendBuffer, name: str) -> None:
        self._send_buffer = send_buffer
        self._name = name
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin one."""
        task = asyncio.create_task(work, name=self._name)
        end_with(self._send_buffer, task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def keep(
        self, index: dict[_Key, asyncio.Task[None]], key: _Key, work: Coroutine[Any, Any, None]
    ) -> None:
        """Begin one that stands in `index` while it runs; its key may be another's by then."""
        task = index[key] = self.spawn(work)

        def over(task: asyncio.Task[None]) -> None:
            if index.get(key) is task:
                del index[key]

        task.add_done_callback(over)

    def end(self) -> None:
        """Cancel all."""
        for task in self._tasks:
            task.cancel()


def end_with(send_buffer: SendBuffer, task: asyncio.Task[Any]) -> None:
    """Close the connection if `task` fails."""

    def done(task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            end(send_buffer, error)

    task.add_done_callback(done)
