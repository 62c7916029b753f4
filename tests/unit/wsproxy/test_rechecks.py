# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Looks at a permission, however often there is a reason."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from tests.support.log_readers import MemoryWire
from wsproxy.subscriptions.subscription import Rechecks
from wsproxy.transport.failures import Tasks
from wsproxy.transport.send_buffers import SendBuffers


@given(st.lists(st.sampled_from(["told", "answered"]), max_size=40))
def test_one_look_at_a_time_and_one_after_the_last_reason(events: list[str]) -> None:
    """What was told while a question was under way may be younger than the answer."""

    async def run() -> None:
        tasks = Tasks(SendBuffers().open(MemoryWire(lambda _: None)), "test")
        rechecks, told, looks = Rechecks(), 0, list[int]()
        answers: list[asyncio.Future[None]] = []

        async def look() -> None:
            looks.append(told)
            answers.append(asyncio.get_running_loop().create_future())
            await answers[-1]

        async def settle() -> None:
            for _ in range(3):
                await asyncio.sleep(0)

        for event in events:
            if event == "told":
                told += 1
                rechecks.soon(tasks, look)
            elif answers and not answers[-1].done():
                answers[-1].set_result(None)
            await settle()
            assert len(answers) - sum(answer.done() for answer in answers) <= 1
            assert len(tasks._tasks) <= 1
        while answers and not answers[-1].done():
            answers[-1].set_result(None)
            await settle()
        assert (looks[-1] if looks else 0) == told
        assert not tasks._tasks

    asyncio.run(run())
