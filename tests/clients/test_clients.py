# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The programs of docs/clients, in every language that is installed, through all that can befall.

Each of them says the same words about its connection, so one test serves all. A language that is
not installed is skipped, and pytest's summary says so.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from arvados_nats.contract import subjects
from tests.clients.conftest import World
from tests.clients.programs import Program, running


async def test_what_happens_while_it_is_away_is_told(world: World, program: Program) -> None:
    """Live, cut in the midst of changes, and live again: every event once and in order."""
    made = await world.make(3)
    await program.tells(made)
    changing = asyncio.create_task(world.make(30))
    await world.kick()
    await program.says("disconnected")
    made += await changing
    await program.says("connected", 2)
    await program.tells(made)
    made += await world.make(2)
    await program.tells(made)


async def test_a_permission_is_lost_and_regained(world: World, program: Program) -> None:
    """Nothing is told meanwhile; what was missed is told when it may be told again."""
    cluster = world.stack.sandbox.cluster
    made = await world.make()
    await program.tells(made)
    denied = program.times("denied")
    await cluster.unshare(world.project, world.alice)
    await program.says("denied", denied + 1)
    missed = await world.make(2)
    connections = program.times("connected")
    other = await cluster.project(owner=world.bob)
    await cluster.share(other, world.alice)  # a change of grants: it is cut once more
    await program.says("connected", connections + 1)
    await program.tells(made)
    await cluster.share(world.project, world.alice)
    await program.tells(made + missed)
    made += missed + await world.make()
    await program.tells(made)


async def test_history_that_is_gone_on_return_is_told_as_a_gap(
    world: World, program: Program
) -> None:
    """What the stream forgot meanwhile is named as missing; what it has follows, and what comes."""
    made = await world.make(2)
    await program.tells(made)
    callout = world.stack.services["authcallout"]
    await callout.stop()
    try:
        await world.kick()
        await program.says("disconnected")
        await world.forget(await world.make(2))
        made += await world.make(2)
    finally:
        await callout.start()
    await program.says("gap", within=60)
    await program.tells(made)
    made += await world.make()
    await program.tells(made)


async def test_the_callout_service_is_down_for_some_seconds(world: World, program: Program) -> None:
    """Cut while nobody can let it in, it goes on trying, and has missed nothing in the end."""
    callout = world.stack.services["authcallout"]
    made = await world.make()
    await program.tells(made)
    await callout.stop()
    try:
        await world.kick()
        await program.says("disconnected")
        made += await world.make(2)
        await program.says("refused", 2)
    finally:
        await callout.start()
    await program.says("connected", 2, within=60)
    await program.tells(made)
    made += await world.make()
    await program.tells(made)


async def test_a_refused_token_is_told_and_tried_slowly(
    world: World, command: Sequence[str]
) -> None:
    """A wrong token: the program says so, does not end, and does not storm the servers."""
    wrong = world.alice.token[:-4] + "oops"
    before = world.stack.services["authcallout"].output.count("callout.refused")
    async with running(
        command, "events", world.project.uuid, environment=world.environment(wrong)
    ) as program:
        await program.says("refused")
        await asyncio.sleep(2)
        assert program.process.returncode is None
        assert not program.output
    refused = world.stack.services["authcallout"].output.count("callout.refused") - before
    assert 1 <= refused <= 8


async def test_a_token_without_its_uuid_is_told(world: World, command: Sequence[str]) -> None:
    """At once, instead of an inbox that no answer would ever come to (C5)."""
    environment = world.environment(world.alice.token.rpartition("/")[2])
    async with running(command, "events", world.project.uuid, environment=environment) as program:
        assert await program.ends() != 0
        assert program.times("not a token of the form v2/")


async def test_a_token_that_dies_is_cut(world: World, command: Sequence[str]) -> None:
    """After a logout the program hears nothing more and is refused."""
    cluster = world.stack.sandbox.cluster
    own = await cluster.token(world.alice)
    async with running(
        command, "events", world.project.uuid, environment=world.environment(own.token)
    ) as program:
        await program.says("caught up")
        made = await world.make()
        await program.tells(made)
        await cluster.logout(own)
        await program.says("refused")
        await world.make()
        await program.tells(made)


async def test_what_no_service_sends_is_left_out(world: World, program: Program) -> None:
    """No sequence, no number, no JSON: the program says so, goes on, and tells what is true."""
    made = await world.make()
    await program.tells(made)
    share = world.project.uuid
    subject = f"arvados.live.{share}.{share}.{made[0]}.event.collection.{made[0]}.update"
    await world.live(
        (subject, {}, b'{"uuid": "forged"}'),
        (subject, {"Arvados-Offset": "0", "Arvados-Epoch": "0"}, b"forged"),
        (subject, {"Nats-Sequence": "many"}, b'{"uuid": "forged"}'),
        (subject, {"Nats-Sequence": "99999999"}, b"forged"),
        (subject, {"Nats-Sequence": "99999999"}, b""),
    )
    await program.says("left out", 5)
    made += await world.make()
    await program.tells(made)


async def test_bytes_of_another_container_are_left_out(
    world: World, command: Sequence[str]
) -> None:
    """As answers about another one are, whoever would have them heard on the live subject."""
    cluster = world.stack.sandbox.cluster
    request = await cluster.container_request(owner=world.project, by=world.bob)
    container = await cluster.run(request)
    pieces = [b"piece %05d\n" % number * 50 for number in range(4)]
    for piece in pieces[:2]:
        await cluster.write_log(container, "stdout.txt", piece)
    said = len(b"".join(pieces[:2]))
    share = world.project.uuid
    subject = subjects.live_log(share, share, request.uuid, container.uuid, "stdout.txt")
    place = {"Arvados-File": "stdout.txt", "Arvados-Offset": f"{said}", "Arvados-Epoch": "0"}
    other = {"Arvados-Container": "zzzzz-dz642-000000000000001", "Nats-Sequence": "1"}
    async with running(
        command, "log", request.uuid, "stdout.txt", environment=world.environment()
    ) as program:
        await program.until(lambda: len(program.output) >= said, "tells what is there")
        await world.live(
            (subject, place, b"forged"),
            (subject, place | other, b"forged"),
            (subject, {"Nats-Sequence": "1"}, b"forged"),
        )
        await program.says("left out", 3)
        for piece in pieces[2:]:
            await cluster.write_log(container, "stdout.txt", piece)
        await cluster.finish(request)
        assert await program.ends() == 0, program.said
        assert bytes(program.output) == b"".join(pieces)


async def test_a_log_is_read_to_its_end(world: World, command: Sequence[str]) -> None:
    """Begun in the midst of writing and cut once: every byte once, and the program ends."""
    cluster = world.stack.sandbox.cluster
    request = await cluster.container_request(owner=world.project, by=world.bob)
    container = await cluster.run(request)
    pieces = [b"piece %05d\n" % number * 50 for number in range(60)]
    for piece in pieces[:20]:
        await cluster.write_log(container, "stdout.txt", piece)
    async with running(
        command, "log", request.uuid, "stdout.txt", environment=world.environment()
    ) as program:
        await program.says("connected")
        for number, piece in enumerate(pieces[20:]):
            await cluster.write_log(container, "stdout.txt", piece)
            if number == 20:
                await world.kick()
        await cluster.finish(request)
        assert await program.ends() == 0, program.said
        assert bytes(program.output) == b"".join(pieces)


async def test_a_token_is_renewed_on_the_open_connection(
    world: World, command: Sequence[str], tmp_path: Path
) -> None:
    """Out of a file, while the inbox has the user's name: nothing is missed, live or asked for,
    whether the new token is there before the old one ends or only a while later (A2)."""
    cluster, file = world.stack.sandbox.cluster, tmp_path / "token"
    first, second, third = [await cluster.token(world.alice) for _ in range(3)]
    file.write_text(first.token)
    environment = world.environment("none") | {
        "ARVADOS_API_TOKEN_FILE": str(file),
        "ARVADOS_USER_UUID": world.alice.uuid,
    }
    async with running(command, "events", world.project.uuid, environment=environment) as program:
        await program.says("caught up")
        made = await world.make()
        await program.tells(made)
        file.write_text(second.token)
        await cluster.logout(first)
        await program.says("connected", 2)
        made += await world.make()
        await program.tells(made)
        await program.says("caught up", program.times("caught up") + 2)
        assert not program.times("closed")
        file.unlink()  # whoever renews it is between two steps
        await cluster.logout(second)
        await program.says("disconnected", 2)
        made += await world.make(2)
        file.write_text(third.token)
        await program.tells(made)


async def test_what_a_newer_server_says_and_the_largest_event_are_told(
    world: World, program: Program
) -> None:
    """Fields and headers that are not known do no harm."""
    subject = (
        f"arvados.live.{world.project.uuid}.{world.project.uuid}.later.event.other.later.later"
    )
    event = {"object_uuid": "later", "event_type": "later", "later": {"text": "x" * 700_000}}
    headers = {"Nats-Sequence": "99999999", "Arvados-Later": "yes"}
    await world.live((subject, headers, json.dumps(event).encode()))
    await program.tells(["later"])
    assert program.events == [event]
    made = await world.make()
    await program.tells(["later", *made])
