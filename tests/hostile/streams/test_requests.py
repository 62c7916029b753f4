# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Somebody who asks over NATS without end, and everybody else."""

from __future__ import annotations

import pytest

from arvados_nats.contract import subjects
from arvados_nats.nats.client import Message
from sandbox.stack import Stack
from tests.support.clients import v1
from tests.support.clients.native import connected, lets_in_at_last

FLOOD = 60_000


@pytest.mark.timeout(300)
@pytest.mark.parametrize("what", [subjects.API_EVENTS, subjects.API_WHOAMI])
async def test_a_flood_of_requests_stands_before_nothing_else(stack: Stack, what: str) -> None:
    """An event and a login pass while most of it still waits."""
    cluster = stack.sandbox.cluster
    alice, bob = await cluster.user("alice"), await cluster.user("bob")
    base = f"ws://127.0.0.1:{stack.proxy_port}"
    answered = set[str]()

    async def note(message: Message) -> None:
        answered.add(message.subject)

    async with (
        connected(stack, alice, asks=True) as asker,
        v1.connected(base, bob) as reader,
    ):
        await reader.subscribe("all", events={})
        reply = f"{subjects.inbox_prefix(alice.token_uuid or alice.uuid)}.flood"
        await asker.nats.subscribe(f"{reply}.>", note)
        await asker.flush()
        for number in range(FLOOD):
            await asker.nats.publish(what, b"{}", reply=f"{reply}.{number}")
        await asker.flush()
        before = len(answered)  # on a busy machine asking takes its time, too
        made = await cluster.collection("meanwhile", owner=bob)
        newcomer = await cluster.user("carol")
        assert await lets_in_at_last(stack, newcomer.token)
        await reader.until_true(lambda: any(made.uuid in str(e) for e in reader.of("event")))
        assert len(answered) - before < FLOOD * 3 // 4
