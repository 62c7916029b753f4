# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What is done to every connection is done to each once a round, in portions."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.log_readers import MemoryWire
from wsproxy.transport.connections import Connections
from wsproxy.transport.pacing import spread
from wsproxy.transport.send_buffer import SendBuffer
from wsproxy.transport.send_buffers import SendBuffers


@pytest.mark.parametrize(("count", "portions"), [(0, 1), (1, 1), (3, 3), (1000, 5)])
async def test_everybody_once_in_portions_of_about_one_size(count: int, portions: int) -> None:
    """At most fifty of them a second, and an empty round takes its time as well."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    found = [list(portion) async for portion in spread(range(count), 0.1)]
    assert loop.time() - began >= 0.1
    assert len(found) == portions
    assert sorted(number for portion in found for number in portion) == list(range(count))
    assert max(map(len, found)) - min(map(len, found)) <= 1


class Ticking:
    """A connection that counts its ticks, and may end another's life at the first."""

    def __init__(self, connections: Connections) -> None:
        self.connections = connections
        self.send_buffer: SendBuffer = SendBuffers().open(MemoryWire(lambda _: None))
        self.ticks = 0

    def tick(self, now: float) -> None:
        self.ticks += 1
        for other in self.connections:
            if other is not self:
                self.connections.remove(other)

    def drain(self) -> None:
        raise AssertionError("not drained here")


async def test_a_connection_that_has_ended_is_not_ticked() -> None:
    """Also when it ends between the beginning of a round and its turn."""
    connections = Connections()
    both = [Ticking(connections), Ticking(connections)]
    for one in both:
        connections.add(one)
    running = asyncio.create_task(connections.run())
    async with asyncio.timeout(60):
        while max(one.ticks for one in both) < 2:  # noqa: ASYNC110  (looked at from outside)
            await asyncio.sleep(0.02)
    running.cancel()
    assert sorted(one.ticks for one in both) == [0, 2]
