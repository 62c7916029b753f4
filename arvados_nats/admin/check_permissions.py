# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Hold the read rule against recorded answers of a real Arvados: `arvados-nats check permissions`.

Pure but for reading the file. A recording walks through changes of a cluster; after each it says
which object every user could GET. One such answer is a cell. The recorded database rows go
through `grants.fold` and `permissions.decide`, and the answers are compared: `looser` means that we
would show what Arvados hides, `stricter` the other way round, `asked` that the rule could not say.
Cells that the recording itself calls stale are counted apart (docs/facts/permission-rule.md, last
section).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from arvados_nats.admin.permission_recording import PLAIN, WITH_TRASH, Recording, World
from arvados_nats.errors import MALFORMED, BadInput
from arvados_nats.permissions.object_facts import ObjectFacts
from arvados_nats.permissions.rule import Decision, decide  # noqa: TID251  (a recording has its own moments)

_MAX_EXAMPLES = 20

Cell = tuple[int, str, str, int]
"""Step, label, question, index of the object."""


@dataclass(slots=True)
class Report:
    """Counts of cells; `cells` is the sum of agree, looser, stricter and asked."""

    agree: int = 0
    looser: int = 0
    stricter: int = 0
    asked: int = 0
    stale: int = 0
    seconds: float = 0.0
    examples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def cells(self) -> int:
        """Cells compared; stale ones are not among them."""
        return self.agree + self.looser + self.stricter + self.asked

    @property
    def passed(self) -> bool:
        """Whether our answers are Arvados' in every cell that was decided."""
        return self.cells > 0 and self.looser == 0 and self.stricter == 0

    def as_dict(self) -> dict[str, Any]:
        """What the command prints."""
        rate = round(self.cells / self.seconds) if self.seconds else 0
        return {
            "cells": self.cells,
            "agree": self.agree,
            "looser": self.looser,
            "stricter": self.stricter,
            "asked": self.asked,
            "stale": self.stale,
            "seconds": round(self.seconds, 3),
            "cells_per_second": rate,
            "mismatches": self.examples,
        }


def check(path: Path) -> Report:
    """Replay the file; BadInput when it is no recording."""
    started = time.perf_counter()
    try:
        recording = msgspec.json.decode(path.read_bytes(), type=Recording)
        report = replay(recording)
    except (*MALFORMED, KeyError, TypeError) as error:
        raise BadInput(f"not a recording of permissions: {error!r}") from error
    report.seconds = time.perf_counter() - started
    return report


def replay(recording: Recording) -> Report:
    """Walk the steps in order and compare every cell."""
    report, world = Report(), World(recording)
    stale = {
        (cell["step"], cell["label"], cell["question"], index)
        for cell in recording.stale_cells
        for index in cell["objects"]
    }
    for step in recording.steps:
        world.advance(step)
        for question in (PLAIN, WITH_TRASH):
            for label, readable in (step.get(question) or {}).items():
                if readable is not None:  # null: the token was refused
                    _compare(report, world, (step, label, question), stale)
    return report


def _compare(
    report: Report, world: World, where: tuple[dict[str, Any], str, str], stale: set[Cell]
) -> None:
    step, label, question = where
    expected = frozenset(step[question][label])
    identity, grants = world.reader(label)
    unasked = world.unasked(step, label, question, identity)
    include_trash, now, n = question == WITH_TRASH, world.now, step["n"]
    for index, facts in world.asked_about(question):
        if index in unasked:
            continue
        if (n, label, question, index) in stale:
            report.stale += 1
            continue
        decision = decide(identity, grants, facts, now, include_trash)
        if (decision is Decision.YES) == (index in expected) and decision is not Decision.ASK:
            report.agree += 1
        else:
            _note(report, (n, label, question, index), facts, decision)


def _note(report: Report, cell: Cell, facts: ObjectFacts, decision: Decision) -> None:
    if decision is Decision.ASK:
        report.asked += 1
    elif decision is Decision.YES:
        report.looser += 1
    else:
        report.stricter += 1
    if len(report.examples) < _MAX_EXAMPLES:
        step, label, question, _ = cell
        report.examples.append(
            {
                "step": step,
                "label": label,
                "question": question,
                "uuid": facts.uuid,
                "ours": decision.value,
            }
        )
