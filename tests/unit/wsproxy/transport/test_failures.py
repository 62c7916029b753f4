# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A failed task ends its connection and no other."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.support.log_readers import MemoryWire
from wsproxy.transport import failures
from wsproxy.transport.close_codes import CloseCode
from wsproxy.transport.send_buffers import SendBuffers


class ClosingWire(MemoryWire):
    """A wire that remembers how it was closed."""

    closed: tuple[int, str] | None = None

    def close(self, code: int, reason: str) -> None:
        self.closed = code, reason


async def _fail() -> None:
    raise KeyError("a mistake")


async def _wait() -> None:
    await asyncio.Event().wait()


async def test_a_failure_closes_to_come_back(caplog: pytest.LogCaptureFixture) -> None:
    """The client resumes; the log has the traceback."""
    wire = ClosingWire(lambda _: None)
    task = asyncio.create_task(_fail())
    failures.end_with(SendBuffers().open(wire), task)
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert wire.closed is not None and wire.closed[0] == CloseCode.RESYNC
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert record.exc_info and isinstance(record.exc_info[1], KeyError)


async def test_a_task_that_ends_or_is_cancelled_closes_nothing() -> None:
    """Only a mistake does."""
    wire = ClosingWire(lambda _: None)
    send_buffer = SendBuffers().open(wire)
    done, waiting = asyncio.create_task(asyncio.sleep(0)), asyncio.create_task(_wait())
    for task in (done, waiting):
        failures.end_with(send_buffer, task)
    await done
    waiting.cancel()
    await asyncio.wait([waiting])
    await asyncio.sleep(0)
    assert wire.closed is None


async def test_a_key_is_the_tasks_that_came_last() -> None:
    """What was cancelled ends later, when another may have its key."""
    tasks = failures.Tasks(SendBuffers().open(ClosingWire(lambda _: None)), "test")
    index: dict[str, asyncio.Task[None]] = {}
    tasks.keep(index, "a", _wait())
    former = index.pop("a")
    former.cancel()
    tasks.keep(index, "a", _wait())
    await asyncio.wait([former])
    await asyncio.sleep(0)
    assert index.keys() == {"a"}
    tasks.end()
    await asyncio.wait([index["a"]])
    await asyncio.sleep(0)
    assert not index
