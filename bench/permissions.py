# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The permission rule alone: recorded cells replayed a second, and decisions a second.

`cells_per_second` is `arvados-nats check permissions`: reading the file, walking the recorded
database through its steps, and judging every cell. `decisions_per_second` is `decide` alone, on the
grants and objects of the recording's last step, which is what a proxy does per event and reader.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import msgspec

from arvados_nats.permissions import decide
from bench import figures, processes
from siteadmin import check_permissions
from siteadmin.permission_recording import PLAIN, Recording, World

_RECORDING = Path(__file__).parents[1] / "tests" / "golden" / "permissions.json"


def _decisions(recording: Recording, at_least: float) -> float:
    """Decisions a second over all readers and objects of the last step."""
    world = World(recording)
    for step in recording.steps:
        world.advance(step)
    readers = [world.reader(label) for label, known in step[PLAIN].items() if known is not None]
    objects = [facts for _, facts in world.asked_about(PLAIN)]
    now, done, began = world.now, 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < at_least:
        for identity, grants in readers:
            for facts in objects:
                decide(identity, grants, facts, now, True)
        done += len(readers) * len(objects)
    return done / elapsed


def measure(path: Path, rounds: int) -> dict[str, Any]:
    """Medians over the rounds, after one round that is not counted."""
    recording = msgspec.json.decode(path.read_bytes(), type=Recording)
    found = []
    for number in range(rounds + 1):
        report = check_permissions.check(path)
        decisions = _decisions(recording, 1.0)
        if number:
            found.append(
                {
                    "cells_per_second": report.cells / report.seconds,
                    "replay_s": report.seconds,
                    "decisions_per_second": decisions,
                }
            )
    return {
        "bench": "permissions",
        "cells": report.cells,
        "looser": report.looser,
        "stricter": report.stricter,
        "asked": report.asked,
        **figures.medians(found),
        "load": processes.load(),
    }


def main(arguments: list[str]) -> dict[str, Any]:
    """Options: another recording, and the number of rounds."""
    parser = argparse.ArgumentParser(prog="python -m bench permissions", description=__doc__)
    parser.add_argument("--recording", type=Path, default=_RECORDING)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    report = measure(options.recording, options.rounds)
    for line in figures.lines(report):
        print(line)
    return report
