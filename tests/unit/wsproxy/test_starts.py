# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who waits for a turn to begin a subscription."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.support.log_readers import MemoryWire
from wsproxy.subscriptions.begun import Begun
from wsproxy.transport.failures import Tasks
from wsproxy.transport.fair import Fair
from wsproxy.transport.send_buffers import SendBuffers


class Starting:
    """A subscription that notes that it began."""

    def __init__(self, *, asks_arvados: bool) -> None:
        self.asks_arvados = asks_arvados
        self.began = False

    async def start(self) -> None:
        self.began = True

    def stop(self) -> None:
        """Nothing to end."""


async def test_who_asks_nats_alone_waits_for_no_turn() -> None:
    """Arvados hangs, and all turns are of those who ask it."""
    starts = Fair(1, 1)
    tasks = Tasks(SendBuffers().open(MemoryWire(lambda _: None)), "test")
    begun: Begun[str] = Begun(starts, tasks)
    log: Any = Starting(asks_arvados=True)
    events: Any = Starting(asks_arvados=False)
    async with starts.turn("somebody else"):
        begun.begin("log", log, "me", lambda _: None)
        begun.begin("events", events, "me", lambda _: None)
        for _ in range(5):
            await asyncio.sleep(0)
        assert (events.began, log.began) == (True, False)
    for _ in range(5):
        await asyncio.sleep(0)
    assert log.began
