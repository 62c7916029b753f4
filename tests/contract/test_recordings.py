# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The recorded frames are what running services say today."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from sandbox.stack import Service, Stack
from tests.contract import situations
from tests.contract.situations import ALL, FRAMES


@pytest.fixture(scope="module")
async def replica(shared_stack: Stack) -> AsyncIterator[tuple[Service, str]]:
    async with situations.proxied(shared_stack) as made:
        yield made


@pytest.mark.parametrize("name", list(ALL))
async def test_a_second_recording_is_equal(
    stack: Stack, replica: tuple[Service, str], name: str
) -> None:
    """After a change of what is said: `python -m tests.contract.situations`."""
    proxy, address = replica
    if not (proxy.process and proxy.process.running):
        await proxy.start()
    was = (FRAMES / f"{name}.jsonl").read_text(encoding="utf-8")
    now = await situations.recorded(name, stack, proxy, address)
    assert list(map(json.loads, now.splitlines())) == list(map(json.loads, was.splitlines()))


def test_each_recording_has_its_situation() -> None:
    """None is left over."""
    assert {path.stem for path in FRAMES.glob("*.jsonl")} == set(ALL)
