# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One question at a time for each key."""

from __future__ import annotations

import asyncio

import pytest

from arvados_nats.errors import Unavailable
from arvados_nats.single_flight import SingleFlight


class Asked:
    """Counts questions; each is answered when the test says so."""

    def __init__(self) -> None:
        self.flights = SingleFlight[str, int]("test")
        self.questions: list[asyncio.Future[int]] = []

    async def _work(self) -> int:
        self.questions.append(asyncio.get_running_loop().create_future())
        return await self.questions[-1]

    async def start(self, key: str = "k") -> asyncio.Task[int]:
        task = asyncio.create_task(self.flights.ask(key, self._work))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return task


async def test_all_who_ask_meanwhile_get_one_answer() -> None:
    """Another key is another question, and a later one is asked anew."""
    asked = Asked()
    both = [await asked.start(), await asked.start()]
    other = await asked.start("other")
    assert len(asked.questions) == len(asked.flights) == 2
    asked.questions[0].set_result(7)
    assert [await task for task in both] == [7, 7]
    assert "k" not in asked.flights
    later = await asked.start()
    for question in asked.questions[1:]:
        question.set_result(8)
    assert await other == await later == 8


async def test_an_error_is_everybodys_and_is_not_kept() -> None:
    """The next who asks tries again."""
    asked = Asked()
    both = [await asked.start(), await asked.start()]
    asked.questions[0].set_exception(Unavailable("no"))
    for task in both:
        with pytest.raises(Unavailable):
            await task
    again = await asked.start()
    asked.questions[1].set_result(1)
    assert await again == 1


async def test_who_gives_up_takes_the_answer_from_nobody() -> None:
    """An error that nobody waits for any more makes no noise."""
    asked = Asked()
    first, second = await asked.start(), await asked.start()
    first.cancel()
    asked.questions[0].set_result(3)
    assert await second == 3
    lonely = await asked.start()
    lonely.cancel()
    asked.questions[1].set_exception(Unavailable("no"))
    await asyncio.sleep(0)


async def test_what_is_forgotten_answers_only_those_who_asked() -> None:
    """Who asks from then on gets an answer that is no older."""
    asked = Asked()
    old = await asked.start()
    asked.flights.forget(lambda key: key == "k")
    new = await asked.start()
    asked.questions[0].set_result(1)
    assert await old == 1
    assert "k" in asked.flights
    asked.questions[1].set_result(2)
    assert await new == 2
