# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Turns for what costs Arvados much."""

from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from wsproxy.transport.fair import Fair


@given(st.lists(st.sampled_from("abc"), max_size=30))
def test_one_user_has_never_all_turns(users: list[str]) -> None:
    """Two of three at once, each in its order; everybody has a turn in the end."""

    async def run() -> None:
        fair, running, done = Fair(3, 2), Counter[str](), list[int]()

        async def work(number: int, user: str) -> None:
            async with fair.turn(user):
                running[user] += 1
                assert running[user] <= 2
                assert running.total() <= 3
                await asyncio.sleep(0)
                running[user] -= 1
                done.append(number)

        async with asyncio.TaskGroup() as tasks:
            for number, user in enumerate(users):
                tasks.create_task(work(number, user))
        for one in set(users):
            own = [number for number in done if users[number] == one]
            assert own == sorted(own)
        assert len(done) == len(users)
        assert not fair._users

    asyncio.run(run())


async def test_full_is_said_of_a_user_or_of_all() -> None:
    """Who has all of theirs waits, others do not, until all turns are taken."""
    fair = Fair(3, 2)
    async with fair.turn("a"), fair.turn("a"):
        assert fair.full("a")
        assert not fair.full("b")
        async with fair.turn("b"):
            assert fair.full("c")
    assert not fair.full("a")
