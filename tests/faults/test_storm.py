# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One fault after the other on everything together; a checker reads what came of it.

Short by default: each fault once. `ARVADOS_NATS_FAULTS_MINUTES` goes on after that with faults by
chance, every third time with two at once, until so many minutes have passed since the command began
(no round begins after that). `ARVADOS_NATS_FAULTS_NAMED` takes those alone whose names hold one of
its words (`a;b`); `ARVADOS_NATS_FAULTS_SEED` has chance choose the same again.
`ARVADOS_NATS_FAULTS_TABLE` names a file for the table (docs/reliability.md), beside which the
history of each round that was not good is kept. It is written after each, and nothing that goes
wrong in one ends the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults import checker, faults
from tests.faults.checker import Bounds, Verdict
from tests.support.worlds import storm as storms
from tests.support.worlds.storm import Storm

pytestmark = [
    pytest.mark.storm,
    # nats-py, in the native reader, leaves the sockets of attempts that failed to the collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

_QUIET, _AFTER, _LONGEST, _MENDED = 120.0, 45.0, 180.0, 180.0
_BEGAN = time.monotonic()
_PAIRS = "two at once, of different parts"
_EVERY_THIRD = 3
_KEPT_LOG = 2_000_000

_MINUTES = float(os.environ.get("ARVADOS_NATS_FAULTS_MINUTES", "0"))
_TABLE = os.environ.get("ARVADOS_NATS_FAULTS_TABLE")
_NAMED = os.environ.get("ARVADOS_NATS_FAULTS_NAMED", "").split(";")
_SEED = int(os.environ.get("ARVADOS_NATS_FAULTS_SEED") or time.time_ns() % 10**6)


async def _one(storm: Storm, names: Sequence[str]) -> Verdict:
    name = " + ".join(names)
    storm.begin()
    await asyncio.sleep(1)
    storm.note("begin", fault=name)
    failed = []
    try:
        async with asyncio.timeout(_LONGEST), asyncio.TaskGroup() as tasks:
            for one in names:
                tasks.create_task(_played(storm, one))
    except Exception as error:
        failed.append(f"could not be done: {error!r}")
        await _mend(storm)
    storm.note("end", fault=name)
    await asyncio.sleep(1)
    if not await storm.writing(_AFTER):
        failed.append("not all that is written is written any more")
    await storm.settled(_AFTER)
    storm.heal()
    await asyncio.sleep(1)
    storm.note("over")
    history = checker.read(storm.history())
    last = max(step.t for step in history if step.do == "end")
    wanted = [s for s in history if s.do != "write" or s.t <= last + 1]
    verdict = checker.check(wanted, Bounds(late=_AFTER))
    failed += [*storm.broken, *storm.ended()]
    storm.broken = []
    verdict.failed += len(failed)
    verdict.examples = [f"{name}: {told}" for told in (*failed, *verdict.examples)]
    if _TABLE and (verdict.told or not verdict.good):
        kept = Path(f"{_TABLE}.{name.replace(' ', '-')}.{time.time():.0f}.jsonl")
        await asyncio.to_thread(kept.write_bytes, b"\n".join(storm.history()))
        if not verdict.good:  # what the services said of it, in lines of JSON
            for service in storm.stack.services.values():
                said = kept.with_suffix(f".{service.name}.log")
                await asyncio.to_thread(said.write_text, service.output[-_KEPT_LOG:])
    return verdict


async def _played(storm: Storm, name: str) -> None:
    await faults.FAULTS[name](storm)


async def _mend(storm: Storm) -> None:
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_MENDED):
            await storm.mend()


async def _one_after_all(storm: Storm, names: Sequence[str]) -> Verdict:
    """A round that cannot even be judged is one that failed; what follows begins with all well."""
    try:
        verdict = await _one(storm, names)
    except Exception as error:
        verdict = Verdict(failed=1, examples=[f"{names} could not be judged: {error!r}"])
    if not verdict.good:
        await _mend(storm)
    return verdict


def _added(to: Verdict, more: Verdict) -> Verdict:
    for column in (*checker.COLUMNS, "failed"):
        setattr(to, column, getattr(to, column) + getattr(more, column))
    if more.recovery > to.recovery:
        to.recovery, to.slowest = more.recovery, more.slowest
    to.examples += more.examples
    return to


async def _tell(found: dict[str, Verdict], rounds: int) -> str:
    bad = {name: verdict.examples for name, verdict in found.items() if not verdict.good}
    minutes = (time.monotonic() - _BEGAN) / 60
    told = f"{rounds} rounds in {minutes:.0f} minutes, seed {_SEED}; not good: {bad or 'none'}"
    slow = [f"{one.recovery:.1f} s: {name}: {one.slowest}" for name, one in found.items()]
    table = f"{checker.table(found)}\n{told}\n\nLast to read:\n{chr(10).join(slow)}\n"
    if _TABLE:
        await asyncio.to_thread(Path(_TABLE).write_text, table)
    return table


def _drawn(names: Sequence[str], rounds: int) -> list[str]:
    """One of these, or two that have nothing in common."""
    first = random.choice(names)
    others = [name for name in names if not faults.parts(name) & faults.parts(first)]
    return [first, random.choice(others)] if others and rounds % _EVERY_THIRD == 0 else [first]


@pytest.mark.timeout(60 * _MINUTES + len(faults.FAULTS) * (_LONGEST + 3 * _AFTER) + 600)
async def test_nothing_is_lost_whatever_fails(keys_folder: Path, tmp_path: Path) -> None:
    """Nothing lost, doubled, reordered or leaked, unless the reader was told; no long silence."""
    found: dict[str, Verdict] = {}
    rounds, table = 0, ""
    try:
        async with storms.running(keys_folder, tmp_path) as storm:
            assert await storm.reading(_QUIET), "readers do not read at all"
            random.seed(_SEED)  # faults choose, too
            all_names = [name for name in faults.FAULTS if any(word in name for word in _NAMED)]
            left = list(all_names)
            while left or time.monotonic() < _BEGAN + 60 * _MINUTES:
                rounds += 1
                names = [left.pop(0)] if left else _drawn(all_names, rounds)
                name = names[0] if len(names) == 1 else _PAIRS
                verdict = await _one_after_all(storm, names)
                found[name] = _added(found[name], verdict) if name in found else verdict
                table = await _tell(found, rounds)
    finally:
        print(f"\n{table}")  # noqa: T201  (what the run was for)
    assert all(verdict.good for verdict in found.values()), table
