# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The pretend cluster does what a real Arvados was recorded to do (golden/permissions.json).

After every step: the same log rows in the same order with the same attributes, one NOTIFY each,
and the same permission, trash and freezer tables.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from sandbox.cluster import open_cluster
from sandbox.model.config import ClusterConfig
from sandbox.servers.postgres import Database
from tests.support.golden_replay import Json, Replay, comparable


@pytest.fixture(scope="session")
def recording(golden: Path) -> Json:
    """The whole recording."""
    loaded: Json = json.loads((golden / "permissions.json").read_text())
    return loaded


@pytest.fixture
async def replay(database: Database, recording: Json) -> AsyncIterator[Replay]:
    """A cluster on which the recorded setup was made."""
    settings = recording["config"]
    config = ClusterConfig(
        cluster_id=recording["cluster_id"],
        system_root_token=settings["SystemRootToken"],
        anonymous_user_token=settings["Users.AnonymousUserToken"],
    )
    listener = await asyncpg.connect(database.dsn)
    async with open_cluster(database.dsn, config) as cluster:
        replay = Replay(cluster, listener, recording)
        await replay.start()
        yield replay
    await listener.close()


async def _follow(replay: Replay, step: Json, problems: list[str], title: str) -> None:
    logs: list[Json] = []
    for request in step["requests"]:
        await replay.send(request)
        logs += await replay.new_logs()
        replay.learn(logs, step["logs"])
    told = await replay.told(len(logs))
    _compare(problems, f"{title}: told", told, [str(row["id"]) for row in logs])
    ours = [comparable(replay.recorded(row)) for row in logs]
    theirs = [comparable(row) for row in step["logs"]]
    _compare(
        problems,
        f"{title}: rows",
        [(r["event_type"], r["object_uuid"]) for r in ours],
        [(r["event_type"], r["object_uuid"]) for r in theirs],
    )
    for mine, wanted in zip(ours, theirs, strict=False):
        what = f"{title}: {wanted['summary']}"
        _compare(problems, f"{what} keys", set(mine), set(wanted))
        for key, value in wanted.items():
            _compare_values(problems, f"{what} {key}", mine.get(key), value)


async def _compare_readers(
    replay: Replay, recording: Json, step: Json, problems: list[str]
) -> None:
    objects = recording["objects"]
    asked = {o["uuid"] for o in objects if o["type"] != "links" or o["name"] is not None}
    for question in ("readable", "readable_include_trash"):
        for label, indexes in step[question].items():
            title = f"step {step['n']}: {question} for {label}"
            ours = await replay.readable(label, include_trash=question != "readable")
            if indexes is None or ours is None:
                _compare(problems, title, ours, indexes)
                continue
            theirs = {objects[index]["uuid"] for index in indexes}
            _set_difference(problems, title, ours & asked, theirs & asked)


def _compare_values(problems: list[str], what: str, ours: object, theirs: object) -> None:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        _compare(problems, f"{what} keys", set(ours), set(theirs))
        for key in theirs.keys() & ours.keys():
            _compare(problems, f"{what} {key}", ours[key], theirs[key])
    else:
        _compare(problems, what, ours, theirs)


def _compare(problems: list[str], what: str, ours: object, theirs: object) -> None:
    if ours != theirs:
        problems.append(f"{what}:\n   ours   {ours}\n   theirs {theirs}")


def _set_difference(problems: list[str], what: str, ours: set, theirs: set) -> None:  # type: ignore[type-arg]
    if ours != theirs:
        problems.append(f"{what}: too many {sorted(ours - theirs)} missing {sorted(theirs - ours)}")


async def test_every_step_of_the_recording_is_repeated(replay: Replay, recording: Json) -> None:
    """Setup, all 57 steps and four life cycles leave the recorded rows and tables."""
    problems: list[str] = []
    wanted: dict[tuple[str, str], tuple[int, bool]] = {}
    await _follow(replay, recording["setup"], problems, "setup")
    for step in recording["steps"]:
        title = f"step {step['n']} {step['title']}"
        if step["n"]:
            await _follow(replay, step, problems, title)
        for user, target, level, traverse in step["permissions_set"]:
            wanted[user, target] = level, traverse
        for user, target in step["permissions_removed"]:
            wanted.pop((user, target), None)
        table = {(*key, *value) for key, value in wanted.items()}
        _set_difference(problems, f"{title}: permissions", await replay.permissions(), table)
        trashed = set(step["trashed_groups"])
        _set_difference(problems, f"{title}: trashed", await replay.trashed(), trashed)
        frozen = set(step["frozen_groups"])
        _set_difference(problems, f"{title}: frozen", await replay.frozen(), frozen)
        await _compare_readers(replay, recording, step, problems)
    for name, steps in recording["lifecycle"].items():
        for step in steps:
            await _follow(replay, step, problems, f"{name} {step['title']}")
    assert not problems, "\n".join(problems)
