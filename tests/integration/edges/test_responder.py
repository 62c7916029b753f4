# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Questions that wait for their turn, at a real NATS server."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from arvados_nats.nats import client as nats_client
from arvados_nats.nats import responder
from arvados_nats.nats.client import Message, Nats
from arvados_nats.service import keys
from sandbox.servers.nats_server import NatsServer
from tests.support.background import background

WITHIN = 60.0


SUBJECT = f"arvados.test.{secrets.token_hex(4)}"


@asynccontextmanager
async def answering(
    server: NatsServer, keys_folder: Path, handle: Callable[[Message], Awaitable[None]]
) -> AsyncIterator[Nats]:
    """One question at a time is answered, while its asker waits: for 0.2 s."""
    seed = keys.load(keys_folder, "publisher").text
    ready = asyncio.Event()
    async with (
        asyncio.timeout(WITHIN),
        nats_client.connect([server.url], name="test", seed=seed) as nats,
        background(
            responder.answer(
                nats, {SUBJECT: handle}, queue="test", at_once=1, wait=0.2, ready=ready.set
            )
        ),
    ):
        await ready.wait()
        yield nats


async def test_a_question_that_nobody_waits_for_is_left(
    nats_server: NatsServer, keys_folder: Path
) -> None:
    """Or with more of them than can be answered none would be that is still waited for."""
    begun: asyncio.Queue[bytes] = asyncio.Queue()
    go_on = asyncio.Event()

    async def handle(asked: Message) -> None:
        begun.put_nowait(asked.data)
        await go_on.wait()

    async with answering(nats_server, keys_folder, handle) as nats:
        for question in (b"1", b"2", b"3"):
            await nats.publish(SUBJECT, question, reply="nobody")
        await nats.flush()
        assert await begun.get() == b"1"
        waited = time.monotonic()
        while time.monotonic() - waited < 0.5:  # noqa: ASYNC110 (it is about time)
            await asyncio.sleep(0.05)
        go_on.set()
        await nats.publish(SUBJECT, b"4", reply="nobody")
        assert await begun.get() == b"4"


async def test_those_who_wait_in_vain_are_not_kept(
    nats_server: NatsServer, keys_folder: Path
) -> None:
    """While PostgreSQL hangs, questions come on and on."""
    begun = asyncio.Event()

    async def handle(_: Message) -> None:
        begun.set()
        await asyncio.Event().wait()

    def kept() -> int:
        return sum(task.get_name() == "answer" for task in asyncio.all_tasks())

    before = kept()
    async with answering(nats_server, keys_folder, handle) as nats:
        for _ in range(100):
            await nats.publish(SUBJECT, reply="nobody")
        await begun.wait()
        await nats.flush()
        while kept() - before > 1:  # noqa: ASYNC110 (tasks tell nobody)
            await asyncio.sleep(0.05)
