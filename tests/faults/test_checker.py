# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The checker finds each kind of fault that was planted into a good history, and no other."""

from __future__ import annotations

import random

import msgspec
import pytest

from tests.faults import checker
from tests.faults.checker import Bounds, Step, check

KINDS = ("lost", "silent", "doubled", "reordered", "leaked", "late")


def good(readers: int = 3, numbers: int = 50) -> list[Step]:
    """Everybody reads everything in order, a moment after it was written."""
    steps = [Step(0.0, "allow", "s", reader=f"r{r}") for r in range(readers)]
    for n in range(numbers):
        steps.append(Step(1.0 + n, "write", "s", n))
        steps += [Step(1.1 + n, "read", "s", n, reader=f"r{r}") for r in range(readers)]
    return [*steps, Step(2.0 + numbers, "over")]


def counts(steps: list[Step]) -> dict[str, int]:
    """What the checker says, without what is zero."""
    verdict = check(sorted(steps, key=lambda step: step.t), Bounds(late=10, revoked=2, held=6))
    return {kind: n for kind in KINDS if (n := getattr(verdict, kind))}


def test_a_good_history_is_good() -> None:
    """And stays so as JSON lines."""
    steps = good()
    assert counts(steps) == {}
    lines = [msgspec.json.encode(step) for step in steps]
    assert checker.read(random.sample(lines, len(lines))) != []
    assert check(checker.read(lines)).good


def _without(n: int) -> list[Step]:
    return [s for s in good() if not (s.do == "read" and s.n == n and s.reader == "r1")]


PLANTED: dict[str, tuple[list[Step], dict[str, int]]] = {
    "a number that one reader never gets": (_without(7), {"lost": 1, "silent": 1}),
    "the same, but told": (
        [*_without(7), Step(9.0, "gap", reader="r1")],
        {"lost": 1},
    ),
    "told long before": ([*_without(40), Step(2.5, "gap", reader="r1")], {"lost": 1, "silent": 1}),
    "told to another": ([*_without(7), Step(9.0, "gap", reader="r2")], {"lost": 1, "silent": 1}),
    "twice": ([*good(), Step(9.5, "read", "s", 8, reader="r1")], {"doubled": 1}),
    "twice after a gap": (
        [*good(), Step(9.4, "gap", reader="r1"), Step(9.5, "read", "s", 8, reader="r1")],
        {},
    ),
    "twice, and told at once": (
        [*good(), Step(9.5, "read", "s", 8, reader="r1"), Step(9.6, "gap", reader="r1")],
        {},
    ),
    "twice, and told late": (
        [*good(), Step(9.5, "read", "s", 8, reader="r1"), Step(30.0, "gap", reader="r1")],
        {"doubled": 1},
    ),
    "out of turn": ([*_without(7), Step(9.5, "read", "s", 7, reader="r1")], {"reordered": 1}),
    "out of turn, and nobody promised one": (
        [
            *_without(7),
            Step(0.0, "allow", "s", reader="r1", unordered=True),
            Step(9.5, "read", "s", 7, reader="r1"),
        ],
        {},
    ),
    "to nobody": ([*good(), Step(5.0, "read", "s", 3, reader="spy")], {"leaked": 1}),
    "after it was taken away": (
        [
            *good(1, 5),
            Step(3.5, "revoke", "s", reader="r0"),
            Step(9.0, "read", "s", 9, reader="r0"),
        ],
        {"leaked": 1},
    ),
    "after a permit ended": (
        [
            *good(1, 5),
            Step(2.0, "permit", "s", reader="guest"),
            Step(2.5, "read", "s", 1, reader="guest"),
            Step(3.0, "revoke", "s", reader="guest"),
            Step(4.9, "read", "s", 2, reader="guest"),
            Step(5.5, "read", "s", 4, reader="guest"),
        ],
        {"leaked": 1},
    ),
    "held up, and written before it was taken away": (
        [
            *good(1, 5),
            Step(0.0, "permit", "s", reader="guest"),
            Step(3.0, "begin", fault="f"),
            Step(3.5, "revoke", "s", reader="guest"),
            Step(4.0, "end", fault="f"),
            Step(9.0, "read", "s", 2, reader="guest"),
            Step(9.1, "read", "s", 3, reader="guest"),
        ],
        {"leaked": 1},
    ),
    "held up by nothing, though written before it was taken away": (
        [
            *good(1, 5),
            Step(0.0, "permit", "s", reader="guest"),
            Step(3.5, "revoke", "s", reader="guest"),
            Step(9.0, "read", "s", 2, reader="guest"),
        ],
        {"leaked": 1},
    ),
    "held up for longer than the fault explains": (
        [
            *good(1, 5),
            Step(0.0, "permit", "s", reader="guest"),
            Step(3.0, "begin", fault="f"),
            Step(3.5, "revoke", "s", reader="guest"),
            Step(4.0, "end", fault="f"),
            Step(9.9, "read", "s", 1, reader="guest"),
            Step(10.1, "read", "s", 2, reader="guest"),
        ],
        {"leaked": 1},
    ),
    "on its way when it was taken away": (
        [s for s in good(1, 5) if s.n < 4 or s.do != "read"]
        + [Step(5.0, "revoke", "s", reader="r0")],
        {},
    ),
    "late": ([*_without(49), Step(80.0, "read", "s", 49, reader="r1")], {"late": 1}),
    "late, but the fault lasted": (
        [
            *_without(49),
            Step(49.0, "begin", fault="f"),
            Step(75.0, "end", fault="f"),
            Step(80.0, "read", "s", 49, reader="r1"),
        ],
        {},
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_fault_is_found(planted: str) -> None:
    """Exactly as often as it was planted."""
    steps, wanted = PLANTED[planted]
    assert counts(steps) == wanted


def test_recovery_is_measured_from_the_end_of_the_fault() -> None:
    """Until the last of what was written before has been read."""
    steps = [
        Step(0.0, "allow", "s", reader="r"),
        Step(1.0, "begin", fault="f"),
        Step(2.0, "write", "s", 1),
        Step(3.0, "end", fault="f"),
        Step(4.5, "read", "s", 1, reader="r"),
    ]
    verdict = check(steps)
    assert verdict.recovery == 1.5
    assert "| f | 1 | 1 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 1.5 |" in checker.table({"f": verdict})


@pytest.mark.parametrize("seed", range(20))
def test_faults_planted_at_random_are_all_found(seed: int) -> None:
    """Reads taken out are lost and silent; reads put in again are doubled."""
    chance = random.Random(seed)
    steps = good()
    reads = [step for step in steps if step.do == "read"]
    lost = chance.sample(reads, chance.randrange(10))
    kept = [step for step in steps if step not in lost]
    doubled = chance.sample([s for s in reads if s not in lost], chance.randrange(10))
    again = [Step(60.0, "read", "s", s.n, reader=s.reader) for s in doubled]
    wanted = {"lost": len(lost), "silent": len(lost), "doubled": len(doubled)}
    assert counts([*kept, *again]) == {kind: n for kind, n in wanted.items() if n}
