# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The permission rule: recorded cells replayed a second, and decisions a second.

`cells_per_second` is `arvados-nats check permissions`: reading the file, walking the recorded
database through its steps, and judging every cell. `decisions_per_second` is `decide` alone, on the
grants and objects of the recording's last step, which is what a proxy does per event and reader.
`--peer arvados-ws`: beside that, what it takes to deliver events about objects that nobody was told
of before (`fresh`): calls of Arvados' API, delays, deliveries and frames per second of CPU.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import msgspec

from arvados_nats.admin import check_permissions
from arvados_nats.admin.permission_recording import PLAIN, Recording, World
from arvados_nats.permissions.rule import decide
from bench import figures
from bench.worlds import fresh

_RECORDING = Path(__file__).parents[2] / "tests" / "golden" / "permissions.json"


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


def _rule(path: Path, rounds: int) -> dict[str, Any]:
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
        "cells": report.cells,
        "looser": report.looser,
        "stricter": report.stricter,
        "asked": report.asked,
        **figures.medians(found),
    }


async def _beside(options: argparse.Namespace) -> dict[str, Any]:
    found = await fresh.against_arvados_ws(
        options.users, options.sockets, options.objects, options.rounds
    )
    ours, theirs = found["ours"], found["arvados_ws"]
    report: dict[str, Any] = {
        f"{side}_{name}": value for side, values in found.items() for name, value in values.items()
    }
    return report | {
        ratio: figures.ratio(ours[name], theirs[name])
        for ratio, name in figures.RATIOS.items()
        if name in ours and name in theirs
    }


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    report = _rule(options.recording, options.rounds)
    return report | await _beside(options) if options.peer else report


SHORT = {"rounds": 1, "objects": 2}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options: another recording, the number of rounds, the peer."""
    parser.add_argument("--recording", type=Path, default=_RECORDING, help="of a real Arvados")
    parser.add_argument("--rounds", type=int, default=5, help="counted, after one that is not")
    parser.add_argument("--peer", choices=("arvados-ws",), help="measure this server as well")
    parser.add_argument("--users", type=int, default=40, help="beside the peer: its users")
    parser.add_argument("--sockets", type=int, default=200, help="beside the peer: of each side")
    parser.add_argument("--objects", type=int, default=5, help="beside the peer: in a round")
