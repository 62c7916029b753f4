# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The state of one object for native clients: `arvados.api.object.<uuid>`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from arvados_nats.nats.client import Message, Nats
from sandbox.model.actors import Actor
from sandbox.stack import Stack
from tests.support.clients import v1
from tests.support.clients.native import connected
from tests.support.clients.native_answers import Answer, ask
from tests.support.waiting import until

NOBODY = "zzzzz-4zz18-000000000000001"


@pytest.fixture
async def alice(stack: Stack) -> Actor:
    return await stack.sandbox.cluster.user("alice")


async def look(nats: Nats, uuid: str, **request: Any) -> Answer:
    return await ask(nats, f"arvados.api.object.{uuid}", **request)


def record(answer: Answer) -> dict[str, Any]:
    (part,) = answer.parts
    found: dict[str, Any] = json.loads(part.data)
    return found


async def heard(nats: Nats, subject: str) -> asyncio.Queue[Message]:
    queue: asyncio.Queue[Message] = asyncio.Queue()
    await nats.subscribe(subject, queue.put)
    await nats.flush()
    return queue


@pytest.mark.parametrize("kind", ["collection", "group", "container_request", "container"])
async def test_the_state_is_that_of_a_socket(stack: Stack, alice: Actor, kind: str) -> None:
    """The same record, under the same etag, without a token."""
    cluster = stack.sandbox.cluster
    request = await cluster.container_request("job", owner=alice)
    container = await cluster.run(request)
    made = {
        "collection": await cluster.collection(owner=alice),
        "group": await cluster.project(owner=alice),
        "container_request": request,
        "container": container,
    }[kind]
    async with v1.connected(f"ws://127.0.0.1:{stack.proxy_port}", alice) as socket:
        await socket.subscribe("a", object={"uuid": made.uuid})
        state = await socket.until("object")
    async with connected(stack, alice, asks=True) as client:
        answer = await look(client.nats, made.uuid)
        assert (record(answer), answer.end["Arvados-Etag"]) == (state["record"], state["etag"])
        known = await look(client.nats, made.uuid, etag=state["etag"])
        assert (known.parts, known.end["Arvados-Etag"]) == ([], state["etag"])


async def test_changes_join_the_state(stack: Stack, alice: Actor) -> None:
    """What is heard on the subject that the answer names, from its sequence on, is all there is;
    what is older than the record, which may be ahead of its place, changes nothing."""
    cluster = stack.sandbox.cluster
    made = await cluster.collection(owner=alice)
    names = [f"{made.uuid} {number}" for number in range(4)]
    async with (
        connected(stack, alice) as listening,
        connected(stack, alice, asks=True) as client,
    ):
        subject = (await look(client.nats, made.uuid)).end["Arvados-Live"]
        live = await heard(listening.nats, subject)
        for name in names[:3]:
            await cluster.update(made, {"name": name}, alice)
        answer = await look(client.nats, made.uuid)
        state, place = record(answer), int(answer.end["Nats-Sequence"])
        assert state["name"] == names[2]
        await cluster.update(made, {"name": names[3]}, alice)
        while state["name"] != names[3]:
            message = await asyncio.wait_for(live.get(), 60)
            new = json.loads(message.data)["properties"]["new_attributes"]
            if int(message.headers["Nats-Sequence"]) > place:
                state = max(state, new, key=lambda one: one["modified_at"])
            assert state["name"] in names[2:]


async def test_a_request_and_its_container_are_heard_under_one_subject(
    stack: Stack, alice: Actor
) -> None:
    """From Committed to Final, with the exit code in the record."""
    cluster = stack.sandbox.cluster
    request = await cluster.container_request("job", owner=alice)
    async with (
        connected(stack, alice) as listening,
        connected(stack, alice, asks=True) as client,
    ):
        first = await look(client.nats, request.uuid)
        assert record(first)["container"]["state"] == "Queued"
        live = await heard(listening.nats, first.end["Arvados-Live"])
        container = await cluster.run(request)
        await cluster.finish(container, exit_code=3)
        seen: set[str] = set()

        def final() -> bool:
            while not live.empty():
                event = json.loads(live.get_nowait().data)
                seen.add(event["properties"]["new_attributes"].get("state", ""))
            return "Final" in seen

        await until(final, "the request is Final")
        assert {"Running", "Complete"} <= seen
        last = record(await look(client.nats, request.uuid))
        assert (last["state"], last["container"]["exit_code"]) == ("Final", 3)
        alone = await look(client.nats, container.uuid)
        assert alone.end["Arvados-Live"].startswith(f"arvados.live.{alice.uuid}.*.{request.uuid}.")


async def test_hidden_and_missing_look_alike(stack: Stack, alice: Actor) -> None:
    """And what was shared is told until it is not."""
    cluster = stack.sandbox.cluster
    bob = await cluster.user("bob")
    hidden = await cluster.collection(owner=bob)
    async with connected(stack, alice, asks=True) as client:
        answers = [await look(client.nats, uuid) for uuid in (hidden.uuid, NOBODY)]
        assert answers[0].error == answers[1].error
        assert answers[0].error["code"] == "not_readable"
        await cluster.share(hidden, alice)

        async def name() -> str | None:
            answer = await look(client.nats, hidden.uuid)
            return None if answer.error else str(record(answer)["name"])

        assert await name()
        await cluster.unshare(hidden, alice)
        assert await name() is None


@pytest.mark.parametrize(
    ("uuid", "payload", "says"),
    [
        ("zzzzz-o0j2j-000000000000001", b"", "have a state that can be followed"),
        ("nonsense", b"", "have a state that can be followed"),
        (NOBODY, b"{", "no JSON"),
        (NOBODY, b'{"etags": 1}', "etag"),
    ],
)
async def test_wrong_requests(
    stack: Stack, alice: Actor, uuid: str, payload: bytes, says: str
) -> None:
    """Each is told what to do instead."""
    async with connected(stack, alice, asks=True) as client:
        answer = await ask(client.nats, f"arvados.api.object.{uuid}", payload)
        assert answer.error["code"] == "bad_request"
        assert says in answer.error["error"]
