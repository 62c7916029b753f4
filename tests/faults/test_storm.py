# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One fault after the other on everything together; a checker reads what came of it.

Short by default: each fault once. `ARVADOS_NATS_FAULTS_MINUTES` goes on after that for so long with
faults by chance; `ARVADOS_NATS_FAULTS_NAMED` takes those alone whose names hold one of its words
(`a;b`); `ARVADOS_NATS_FAULTS_TABLE` names a file for the table (docs/reliability.md), beside which
the history of each fault that was not good is kept. It is written after each, and nothing that goes
wrong in one ends the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from pathlib import Path

import pytest

from tests.faults import checker, faults
from tests.faults.checker import Bounds, Verdict
from tests.support.worlds import storm as storms
from tests.support.worlds.storm import Storm

pytestmark = pytest.mark.storm

_QUIET, _AFTER, _LONGEST = 120.0, 45.0, 180.0

_MINUTES = float(os.environ.get("ARVADOS_NATS_FAULTS_MINUTES", "0"))
_TABLE = os.environ.get("ARVADOS_NATS_FAULTS_TABLE")
_NAMED = os.environ.get("ARVADOS_NATS_FAULTS_NAMED", "").split(";")


async def _one(storm: Storm, name: str) -> Verdict:
    storm.begin()
    await asyncio.sleep(1)
    storm.note("begin", fault=name)
    failed = []
    try:
        async with asyncio.timeout(_LONGEST):
            await faults.FAULTS[name](storm)
    except Exception as error:
        failed.append(f"could not be done: {error!r}")
        await storm.mend()
    storm.note("end", fault=name)
    await asyncio.sleep(1)
    if not await storm.writing(_AFTER):
        failed.append("not all that is written is written any more")
    await storm.settled(_AFTER)
    storm.note("over")
    history = checker.read(storm.history())
    last = max(step.t for step in history if step.do == "end")
    wanted = [s for s in history if s.do != "write" or s.t <= last + 1]
    verdict = checker.check(wanted, Bounds(late=_AFTER))
    failed += storm.broken
    storm.broken = []
    verdict.failed += len(failed)
    verdict.examples += failed
    if _TABLE and (verdict.told or not verdict.good):
        kept = Path(f"{_TABLE}.{name.replace(' ', '-')}.{time.time():.0f}.jsonl")
        await asyncio.to_thread(kept.write_bytes, b"\n".join(storm.history()))
    return verdict


async def _one_after_all(storm: Storm, name: str) -> Verdict:
    """A round that cannot even be judged is one that failed; what follows begins with all well."""
    try:
        verdict = await _one(storm, name)
    except Exception as error:
        verdict = Verdict(failed=1, examples=[f"could not be judged: {error!r}"])
    if not verdict.good:
        with contextlib.suppress(Exception):
            await storm.mend()
    return verdict


def _added(to: Verdict, more: Verdict) -> Verdict:
    for column in (*checker.COLUMNS, "failed"):
        setattr(to, column, getattr(to, column) + getattr(more, column))
    to.recovery = max(to.recovery, more.recovery)
    to.examples += more.examples
    return to


async def _tell(found: dict[str, Verdict], rounds: int) -> str:
    bad = {name: verdict.examples for name, verdict in found.items() if not verdict.good}
    table = f"{checker.table(found)}\n{rounds} rounds; not good: {bad or 'none'}\n"
    if _TABLE:
        await asyncio.to_thread(Path(_TABLE).write_text, table)
    return table


@pytest.mark.timeout(60 * _MINUTES + len(faults.FAULTS) * (_LONGEST + 3 * _AFTER) + 600)
async def test_nothing_is_lost_whatever_fails(keys_folder: Path, tmp_path: Path) -> None:
    """Nothing lost, doubled, reordered or leaked, unless the reader was told; no long silence."""
    found: dict[str, Verdict] = {}
    rounds, table = 0, ""
    try:
        async with storms.running(keys_folder, tmp_path) as storm:
            assert await storm.reading(_QUIET), "readers do not read at all"
            chance, until = random.Random(), time.monotonic() + 60 * _MINUTES
            all_names = [name for name in faults.FAULTS if any(word in name for word in _NAMED)]
            names = list(all_names)
            while names or time.monotonic() < until:
                name = names.pop(0) if names else chance.choice(all_names)
                verdict = await _one_after_all(storm, name)
                rounds += 1
                found[name] = _added(found[name], verdict) if name in found else verdict
                table = await _tell(found, rounds)
    finally:
        print(f"\n{table}")  # noqa: T201  (what the run was for)
    assert all(verdict.good for verdict in found.values()), table
