# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The programs of docs/clients, in every language, while others answer or nobody does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack

from arvados_nats.contract import streams, subjects
from arvados_nats.nats.client import Message
from tests.clients.conftest import World
from tests.clients.programs import Program, running


async def test_an_answer_that_breaks_off_is_asked_for_again(world: World, program: Program) -> None:
    """Who answers dies in the midst of it: live goes on, and the next answer is waited for."""
    made = await world.make()
    await program.tells(made)
    await program.says("caught up", program.times("caught up") + 1)
    async with world.unanswered() as nats:

        async def half(message: Message) -> None:
            await nats.publish(message.reply, b"", headers={"Arvados-Gap": "half an answer"})

        answering = await nats.subscribe(subjects.API_EVENTS, half)
        await program.says("gap: half an answer")
        await answering.unsubscribe()
    made += await world.make()
    await program.tells(made)
    await program.says("caught up", program.times("caught up") + 1)


async def test_an_answer_that_is_not_in_order_tells_each_event_once(
    world: World, program: Program
) -> None:
    """Twice, in another order, among messages of a later release; then it goes on as ever."""
    made = await world.make()
    await program.tells(made)
    async with world.unanswered() as nats:
        info = await nats.stream_info(streams.EVENTS)
        assert info is not None

        async def strange(message: Message) -> None:
            cursor = json.loads(message.data)["cursor"]
            for number in (1, 1, 3, 2, 3):
                headers = {"Nats-Sequence": f"{10**9 + number}", "Arvados-Cursor": cursor}
                event = json.dumps({"object_uuid": f"h{number}"}).encode()
                await nats.publish(message.reply, event, headers=headers)
            for later in (b"", b"later", b'{"later": 1}'):
                await nats.publish(message.reply, later, headers={"Arvados-Later": "1"})
            end = {"Arvados-End": cursor, "Arvados-More": "false"}
            end["Nats-Sequence"] = str(info["state"]["last_seq"])
            await nats.publish(message.reply, b"", headers=end)

        answering = await nats.subscribe(subjects.API_EVENTS, strange)
        await program.says("caught up", program.times("caught up") + 1)
        await program.tells([*made, "h1", "h3", "h2"])
        await answering.unsubscribe()
    more = await world.make()
    await program.tells([*made, "h1", "h3", "h2", *more])


async def test_an_answer_that_is_not_whole_tells_each_byte_once(
    world: World, command: Sequence[str]
) -> None:
    """Pieces twice, in another order, among messages of a later release; where one is missing the
    rest is asked for again."""
    cluster = world.stack.sandbox.cluster
    request = await cluster.container_request(owner=world.project, by=world.bob)
    content, asked = b"0123456789", list[int]()
    async with world.unanswered() as nats:

        async def strange(message: Message) -> None:
            asked.append(json.loads(message.data).get("offset", 0))
            runs = [(0, 4), (0, 4), (2, 6), (1, 3)]
            # The first question is where the file is heard, the second for its beginning.
            for first, last in [*runs, (8, 10) if len(asked) < 3 else (6, 10)]:
                headers = {"Arvados-Offset": str(first), "Arvados-Epoch": "0"}
                await nats.publish(message.reply, content[first:last], headers=headers)
                await nats.publish(message.reply, b"later", headers={"Arvados-Later": "1"})
            end = {"Arvados-End": "10", "Arvados-Epoch": "0", "Arvados-More": "false"}
            await nats.publish(message.reply, b"", headers={**end, "Arvados-Ended": "true"})

        answering = await nats.subscribe(subjects.API_LOGS, strange)
        async with running(
            command, "log", request.uuid, "stdout.txt", environment=world.environment()
        ) as program:
            assert await program.ends() == 0, program.said
            assert bytes(program.output) == content
            assert asked == [0, 0, 6]
        await answering.unsubscribe()


async def test_a_log_is_waited_for_while_nobody_answers(
    world: World, command: Sequence[str]
) -> None:
    """Begun at such a time, the program says so and goes on trying."""
    cluster = world.stack.sandbox.cluster
    request = await cluster.container_request(owner=world.project, by=world.bob)
    container = await cluster.run(request)
    await cluster.write_log(container, "stdout.txt", b"one\n")
    arguments = ("log", request.uuid, "stdout.txt")
    async with AsyncExitStack() as both:
        async with world.unanswered():
            program = await both.enter_async_context(
                running(command, *arguments, environment=world.environment())
            )
            await program.says("history")
            assert program.process.returncode is None
        await cluster.write_log(container, "stdout.txt", b"two\n")
        await cluster.finish(request)
        assert await program.ends() == 0, program.said
        assert bytes(program.output) == b"one\ntwo\n"


async def test_history_is_asked_for_however_many_live_messages_come(
    world: World, command: Sequence[str]
) -> None:
    """Not answered when it is back, it asks again, and now and then from then on: live messages
    that follow say nothing of those that are lost."""
    environment = world.environment() | {"RECONCILE_SECONDS": "2"}
    made: list[str] = []

    async def write() -> None:
        while True:
            made.extend(await world.make())
            await asyncio.sleep(0.2)

    async with (
        running(command, "events", world.project.uuid, environment=environment) as program,
        asyncio.TaskGroup() as tasks,
    ):
        await program.says("caught up")
        writing = tasks.create_task(write())
        async with world.unanswered():
            await world.kick()
            await program.says("connected", 2)
            await program.says("history", program.times("history") + 1)
        await program.says("caught up", program.times("caught up") + 2)
        writing.cancel()
        await program.until(lambda: set(made) <= set(program.objects), "tells all")
        assert sorted(made) == sorted(program.objects)
