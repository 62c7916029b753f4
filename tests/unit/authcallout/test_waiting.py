# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Beyond capacity logins are refused early, so that those that are answered are in time (C9)."""

from __future__ import annotations

import random
from collections import deque

import pytest

from authcallout.waiting import Waiting


def test_the_newest_goes_first_and_the_late_are_left_out() -> None:
    """Whoever waits for longer than clients do is not answered."""
    waiting = Waiting[str](patience=1.0, limit=10)
    assert waiting.add(0.0, "a") == []
    assert waiting.add(0.5, "b") == []
    assert waiting.add(1.0, "c") == ["a"]
    assert waiting.newest() == (1.0, "c")
    assert waiting.forget_late(1.6) == ["b"]
    assert not waiting


def test_no_more_wait_than_there_is_room_for() -> None:
    """The one that came first makes room."""
    waiting = Waiting[int](patience=1.0, limit=3)
    assert [late for number in range(5) for late in waiting.add(0.0, number)] == [0, 1]
    assert [waiting.newest()[1] for _ in range(3)] == [4, 3, 2]


@pytest.mark.parametrize("newest_first", [True, False])
def test_goodput_stays_near_capacity(newest_first: bool) -> None:
    """2,500 clients that give up after 2 s and come back, 40 answers a second: newest first all
    are in after little more than 2,500 / 40 s. In order of arrival, as it was, hardly any is."""
    patience, capacity, clients = 2.0, 40, 2500
    chance = random.Random(1)
    waiting = Waiting[int](patience=1.2, limit=5000)
    queue: deque[tuple[float, int]] = deque()
    comes = {client: chance.uniform(0, 6) for client in range(clients)}
    asked: dict[int, float] = {}
    admitted: set[int] = set()
    for step in range(120 * capacity):
        now = step / capacity
        for client in [client for client, at in comes.items() if at <= now]:
            asked[client] = now
            comes[client] = now + patience + chance.uniform(0, 0.5)
            if newest_first:
                waiting.add(now, client)
            else:
                queue.append((now, client))
        if newest_first:
            waiting.forget_late(now)
            if not waiting:
                continue
            at, client = waiting.newest()
        elif queue:
            at, client = queue.popleft()
        else:
            continue
        if at == asked[client] and now - at < patience and client in comes:
            admitted.add(client)
            del comes[client]
    assert (len(admitted) > 0.95 * clients) is newest_first
    assert newest_first or len(admitted) < 0.2 * clients
