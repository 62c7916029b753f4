# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""When a log is looked at again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from publishers.container_logs import pace
from publishers.container_logs.pace import Pace, Situation, Width

PACE = Pace(fast=0.25, slow=5.0)


@pytest.mark.parametrize(
    ("situation", "longest"),
    [
        pytest.param(Situation(), 5.0, id="nobody watches"),
        pytest.param(Situation(watched=True), 0.25, id="somebody watches"),
        pytest.param(Situation(holds_back=True), 0.25, id="half a line waits"),
        pytest.param(Situation(more=True), 0.0, id="there is more to read"),
        pytest.param(Situation(more=True, watched=True, tries=1), 0.25, id="failed once"),
        pytest.param(Situation(tries=3), 1.0, id="failed three times"),
        pytest.param(Situation(tries=100), 5.0, id="failed for long"),
        pytest.param(Situation(watched=True, tries=100), 2.0, id="failed for long, watched"),
    ],
)
def test_delay(situation: Situation, longest: float) -> None:
    """Never later than the pace says, and not much earlier."""
    for _ in range(100):
        assert longest * 0.8 <= pace.delay(PACE, situation) <= longest


@pytest.mark.parametrize(("tailed", "seconds"), [(1, 5.0), (100, 5.0), (1000, 50.0)])
def test_many_containers_that_nobody_watches(tailed: int, seconds: float) -> None:
    """Together they cost the controller no more looks than allowed."""
    assert pace.slow_interval(PACE, tailed) == seconds
    assert pace.delay(PACE, Situation(tailed=tailed)) <= seconds
    assert pace.delay(PACE, Situation(tailed=tailed, watched=True)) <= 0.25


def test_jitter() -> None:
    """Containers that began together do not stay in step."""
    assert len({pace.delay(PACE, Situation()) for _ in range(20)}) > 10


def test_slow_pace_that_is_fast() -> None:
    """Failures wait at least as long as the watched do, however fast the slow pace."""
    assert pace.delay(Pace(fast=0.01, slow=0.02), Situation(tries=50)) > 1


@pytest.mark.parametrize(
    ("seconds", "most"),
    [
        pytest.param(lambda calls: 0.05, 8, id="room for all"),
        pytest.param(lambda calls: 0.01 * calls, 3, id="one after the other"),
        pytest.param(lambda calls: 0.02 * max(1, calls - 3), 5, id="room for four"),
        pytest.param(lambda calls: 1.0 if calls > 2 else 0.01, 3, id="room for none"),
    ],
)
def test_more_calls_while_they_take_no_longer(seconds: Callable[[int], float], most: int) -> None:
    """Never more than four times as many, nor so many that each takes twice as long."""
    width, now, seen = Width(2), 0.0, set()
    for _ in range(5000):
        took = seconds(width.calls)
        now += took / width.calls
        width.took(now, took, all_in_use=True)
        seen.add(width.calls)
    assert max(seen) == most


def test_calls_go_back_to_few() -> None:
    """At once when one fails, and step by step when Arvados has become slow for all; nor are there
    more than are used."""
    width = Width(2)
    for _ in range(1000):
        width.took(0.0, 0.05, all_in_use=False)
    assert width.calls == 2
    for _ in range(1000):
        width.took(0.0, 0.05, all_in_use=True)
    assert width.calls == 8
    for _ in range(200):
        width.took(0.0, 0.2, all_in_use=True)
    assert width.calls < 5
    for _ in range(1000):
        width.took(0.0, 0.2, all_in_use=True)
    width.failed()
    assert width.calls == 2


def test_how_long_calls_take_is_measured_again() -> None:
    """What was slow at the start, or has become quicker, does not stand for ever."""
    width, seen = Width(2), []
    for number in range(4000):
        seconds = 0.2 if number < 100 else 0.02 * width.calls
        width.took(number / 20, seconds, all_in_use=True)
        seen.append(width.calls)
    assert 2 in seen[-2000:]
    assert max(seen[-1000:]) == 3
