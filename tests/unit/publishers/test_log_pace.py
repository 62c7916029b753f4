# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""When a log is looked at again."""

from __future__ import annotations

import pytest

from publishers.container_logs import pace
from publishers.container_logs.pace import Pace, Situation

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
