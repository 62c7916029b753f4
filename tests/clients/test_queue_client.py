# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The dispatcher's view in Go: the whole queue, every change, and decisions that add up."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from sandbox.stack import Stack
from tests.clients import programs
from tests.clients.programs import Program, running


@pytest.fixture(scope="module")
def stack(own_stack: Stack) -> Stack:
    """Of this file alone: NATS goes away, and the whole queue is read."""
    return own_stack


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Sequence[str]:
    try:
        return programs.ready("go", tmp_path_factory.mktemp("go"))
    except programs.Missing as reason:
        pytest.skip(f"go: {reason}")


def decisions(program: Program, uuid: str) -> list[str]:
    """What was decided about one container, in order."""
    return [one["do"] for one in map(json.loads, program.lines) if one["uuid"] == uuid]


async def test_a_dispatcher_decides(stack: Stack, command: Sequence[str]) -> None:
    """Lock what waits, the most urgent first; start what is locked; forget what has ended."""
    cluster = stack.sandbox.cluster
    admin, alice = await cluster.user("boss", admin=True), await cluster.user("alice")
    low = await cluster.container_request(owner=alice, priority=1)
    environment = {
        "NATS_URL": stack.sandbox.nats.url,
        "ARVADOS_API_TOKEN": admin.token,
        "RECONCILE_SECONDS": "3",
    }
    async with running(command, "queue", environment=environment) as program:
        await program.says("caught up")
        await program.says(f"next: {low['container_uuid']}")
        high = await cluster.container_request(owner=alice, priority=999)
        uuid = high["container_uuid"]
        await program.says(f"next: {uuid}")
        await cluster.update(high, {"priority": 0}, alice)
        await program.until(lambda: decisions(program, uuid)[-1:] == ["hold"], "it is held")
        await cluster.update(high, {"priority": 5}, alice)
        await program.until(lambda: decisions(program, uuid)[-1:] == ["lock"], "it is wanted")
        await cluster.lock(uuid, cluster.root)
        await program.until(lambda: decisions(program, uuid)[-1:] == ["start"], "it is locked")
        await cluster.run(high)
        await program.until(lambda: decisions(program, uuid)[-1:] == ["watch"], "it runs")
        await stack.sandbox.nats.restart()
        await cluster.finish(high)
        await program.until(
            lambda: decisions(program, uuid)[-1:] == ["forget"], "it is over", within=60
        )
        assert decisions(program, low["container_uuid"]) == ["lock"]
