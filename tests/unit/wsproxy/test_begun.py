# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The subscriptions of one connection."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.support.log_readers import MemoryWire
from wsproxy.subscriptions.begun import Begun
from wsproxy.transport.failures import Tasks
from wsproxy.transport.fair import Fair
from wsproxy.transport.send_buffers import SendBuffers


class Waiting:
    """A subscription that notes in which order it is started and stopped."""

    asks_arvados = True

    def __init__(self) -> None:
        self.told: list[str] = []

    async def start(self) -> None:
        self.told.append("start")

    def stop(self) -> None:
        self.told.append("stop")


async def test_what_waits_for_its_turn_never_begins_once_all_were_stopped() -> None:
    """Nobody would stop it any more: what it opened would stay open for good."""
    starts, waiting = Fair(1, 1), Waiting()
    tasks = Tasks(SendBuffers().open(MemoryWire(lambda _: None)), "test")
    begun: Begun[str] = Begun(starts, tasks)
    subscription: Any = waiting
    async with starts.turn("me"):
        begun.begin("a", subscription, "me", lambda _: None)
        await asyncio.sleep(0)
        begun.stop_all()
    for _ in range(5):
        await asyncio.sleep(0)
    assert waiting.told == ["stop"]
