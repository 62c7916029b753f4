# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""As many logins are decided at once as come to an end in time, whatever the machine (C9)."""

from __future__ import annotations

import random

import pytest

from authcallout.pace import Pace
from authcallout.waiting import Waiting

BUDGET, PATIENCE, STEP = 1.2, 2.0, 0.02


class Fixed(Pace):
    """As it was: always as many as are allowed."""

    @property
    def at_once(self) -> int:
        return self._most


def admitted(pace: Pace, *, clients: int, capacity: float, answer: float) -> int:
    """How many of `clients`, who come within 6 s and come back 2 s after each vain attempt, are in
    after 60 s. `capacity` logins a second are worked off, all under way alike, and each waits
    `answer` seconds for Arvados."""
    chance = random.Random(1)
    comes = {client: chance.uniform(0, 6) for client in range(clients)}
    asked: dict[int, float] = {}
    waiting = Waiting[int](BUDGET, 4000)
    under_way: list[list[float]] = []  # client, arrived, began, work that is left
    done = 0
    for now in (step * STEP for step in range(int(60 / STEP))):
        for client in [client for client, at in comes.items() if at <= now]:
            asked[client] = now
            comes[client] = now + PATIENCE + chance.uniform(0, 0.5)
            waiting.add(now, client)
        waiting.forget_late(now)
        while waiting and len(under_way) < pace.at_once:
            arrived, client = waiting.newest()
            under_way.append([client, arrived, now, 1.0])
        ready = [one for one in under_way if now - one[2] >= answer]
        for one in ready:
            one[3] -= STEP * capacity / len(ready)
        for one in [one for one in under_way if one[3] <= 0 or now - one[1] >= BUDGET]:
            under_way.remove(one)
            client, arrived = int(one[0]), one[1]
            pace.took(now, now - one[2], len(under_way) + 1, decided=one[3] <= 0)
            if one[3] <= 0 and client in comes and arrived == asked[client]:
                done += 1
                del comes[client]
        if not comes:
            break
    return done


@pytest.mark.parametrize(("capacity", "clients"), [(40, 800), (15, 300)])
def test_a_machine_that_is_short_of_time_still_lets_people_in(capacity: int, clients: int) -> None:
    """A thousand at once let hardly anybody in; now it is near what the machine can do."""
    assert admitted(Pace(1000, BUDGET), clients=clients, capacity=capacity, answer=0.05) == clients
    few = admitted(Fixed(1000, BUDGET), clients=clients, capacity=capacity, answer=0.05)
    assert few < clients / 2


@pytest.mark.parametrize("answer", [0.05, 0.5, 0.9])
def test_a_slow_arvados_is_no_reason_to_let_fewer_in(answer: float) -> None:
    """Where each waits for it alike, as many are under way as before."""
    pace = Pace(1000, BUDGET)
    assert admitted(pace, clients=1500, capacity=1000, answer=answer) == 1500
    assert pace.at_once >= 128


def test_there_are_bounds() -> None:
    """Never more than was allowed, and never nobody, also where nothing is answered at all."""
    pace = Pace(20, BUDGET)
    for n in range(1000):
        pace.took(n, 0.01, 20, decided=True)
    assert pace.at_once == 20
    for n in range(1000, 1100):
        pace.took(n, BUDGET, 20, decided=False)
    assert pace.at_once == 4
    for n in range(1100, 1200):
        pace.took(n, 0.01, 4 + n - 1100, decided=True)
    assert pace.at_once == 20
