# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who listens and who asks, with the services at work: nobody forges; a token may be renewed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from arvados_nats.contract import streams, subjects
from authcallout.admissions import USER_INFO
from sandbox.stack import Stack
from tests.support.clients.native import connected
from tests.support.clients.native_answers import EVENTS, LOGS, ask, eventually, native, trusted
from tests.support.waiting import until

ASKED = (subjects.API_WHOAMI, EVENTS, LOGS, USER_INFO)


@asynccontextmanager
async def nats_py(stack: Stack, **options: Any) -> AsyncIterator[Client]:
    """The library as its users have it."""

    async def failed(_: Exception) -> None: ...

    client = await nats.connect(stack.sandbox.nats.url, error_cb=failed, **options)
    try:
        yield client
    finally:
        await client.close()


@pytest.mark.parametrize("asks", [False, True], ids=["listens", "asks"])
async def test_no_answer_is_heard_as_another_users_event(stack: Stack, asks: bool) -> None:
    """Every service is asked to answer on the owner's live subjects, with bytes of the sender."""
    cluster = stack.sandbox.cluster
    owner, mallory = await cluster.user("owner"), await cluster.user("mallory")
    request = await cluster.container_request("mine", owner=mallory)
    container = await cluster.run(request)
    await cluster.write_log(container, "stdout.txt", b"FORGED\n")
    async with native(stack, mallory) as honest:
        await eventually(lambda: _has_bytes(honest, request.uuid))
    target = await cluster.collection(owner=owner)
    live = f"arvados.live.{owner.uuid}.{owner.uuid}.{target.uuid}"
    replies = (
        f"{live}.event.collection.{target.uuid}.update",
        f"{live}.log.zzzzz-dz642-000000000000001.stdout_txt",
        f"_INBOX_{owner.uuid}.x",
        f"_INBOX_{owner.token_uuid}.x",
        *ASKED,
    )
    payload = json.dumps({"uuid": request.uuid, "file": "stdout.txt"}).encode()
    async with (
        connected(stack, owner) as victim,
        connected(stack, owner, asks=True) as waiting,
        connected(stack, mallory, asks=asks) as sender,
    ):
        await victim.listen(f"arvados.live.{owner.uuid}.>")
        await waiting.listen(f"{waiting.nats._client.new_inbox()}.*")
        for subject in ASKED:
            for reply in replies:
                await sender.nats.publish(subject, payload, reply=reply)
        await sender.flush()
        made = await cluster.collection(owner=owner)  # what is heard then came after all that
        await until(lambda: victim.heard_of(made.uuid), "the owner hears of their own")
        assert not [one for one in victim.heard if b"FORGED" in one.data]
        assert {one.subject.split(".")[-2] for one in victim.heard} <= {made.uuid, target.uuid}
        assert (await ask(waiting.nats, EVENTS, objects=[made.uuid])).objects == [made.uuid]
        assert waiting.heard == []


async def _has_bytes(asking: Any, uuid: str) -> bytes:
    return (await ask(asking, LOGS, uuid=uuid, file="stdout.txt")).bytes


async def test_a_connection_that_renews_its_token_asks_on(stack: Stack) -> None:
    """The inbox is the user's, so a library keeps it over the change of tokens (A2)."""
    cluster = stack.sandbox.cluster
    alice = await cluster.user("alice")
    first, second = await cluster.token(alice), await cluster.token(alice)
    options = {"max_reconnect_attempts": -1, "reconnect_time_wait": 0.1}
    back = asyncio.Event()

    async def reconnected() -> None:
        back.set()

    async with nats_py(
        stack,
        user="api",
        password=first.token,
        inbox_prefix=f"_INBOX_{alice.uuid}".encode(),
        reconnected_cb=reconnected,
        **options,
    ) as asking:
        assert json.loads((await asking.request("arvados.api.whoami", timeout=10)).data)
        asking.options["password"] = second.token
        await cluster.logout(first)
        await asyncio.wait_for(back.wait(), 60)
        answer = json.loads((await asking.request("arvados.api.whoami", timeout=10)).data)
        assert answer["token_uuid"] == second.token_uuid
        assert answer["inbox_prefix"] == f"_INBOX_{alice.uuid}"


async def test_an_admin_uses_ordered_consumers_and_single_messages(stack: Stack) -> None:
    """As nats-py does by itself: a consumer without a name, and STREAM.MSG.GET (A2)."""
    cluster = stack.sandbox.cluster
    boss = await cluster.user("boss", admin=True)
    made = await cluster.collection(owner=boss)
    subject = subjects.event(made.uuid, "create")
    async with trusted(stack) as inside:
        await eventually(lambda: inside.last(streams.EVENTS, subject))
    inbox = f"_INBOX_{boss.token_uuid}".encode()
    async with nats_py(stack, token=boss.token, inbox_prefix=inbox) as admin:
        js = admin.jetstream()
        heard: asyncio.Queue[Msg] = asyncio.Queue()
        await js.subscribe(subject, stream=streams.EVENTS, ordered_consumer=True, cb=heard.put)
        assert (await asyncio.wait_for(heard.get(), 60)).subject == subject
        assert (await js.get_last_msg(streams.EVENTS, subject)).subject == subject
