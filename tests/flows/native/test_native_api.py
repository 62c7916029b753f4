# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""History for native clients: `arvados.api.events` and `arvados.api.logs`, and who may have it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from arvados_nats.contract import streams, subjects
from arvados_nats.nats.client import Nats
from sandbox.model.actors import Actor
from sandbox.model.records import Record
from sandbox.stack import Stack
from tests.support.clients.documented import arvados_live
from tests.support.clients.native import connected
from tests.support.clients.native_answers import (
    EVENTS,
    LOGS,
    all_events,
    ask,
    eventually,
    native,
    trusted,
)
from tests.support.waiting import until

NOBODY = "zzzzz-xvhdp-000000000000001"


@dataclass(frozen=True, slots=True)
class World:
    """Bob's project, which alice may read, and one that they may not."""

    stack: Stack
    alice: Actor
    bob: Actor
    shared: Record
    hidden: Record


@pytest.fixture
async def world(stack: Stack) -> World:
    cluster = stack.sandbox.cluster
    alice, bob = await cluster.user("alice"), await cluster.user("bob")
    shared = await cluster.project(owner=bob)
    hidden = await cluster.project(owner=bob)
    await cluster.share(shared, alice)
    return World(stack, alice, bob, shared, hidden)


@pytest.fixture
async def nats(world: World) -> AsyncIterator[Nats]:
    """Alice's connection."""
    async with native(world.stack, world.alice) as connection:
        yield connection


async def make(world: World, count: int, project: Record | None = None) -> list[str]:
    """Collections of bob; their uuids in the order of their events, which are in the stream."""
    cluster = world.stack.sandbox.cluster
    owner = project or world.shared
    made = [await cluster.collection(owner=owner, by=world.bob) for _ in range(count)]
    async with trusted(world.stack) as nats:
        last = subjects.event(made[-1].uuid, "create")
        await eventually(lambda: nats.last(streams.EVENTS, last))
    return [one.uuid for one in made]


# Events.


async def test_events_are_those_that_come_live(world: World, nats: Nats) -> None:
    """The same JSON, the same sequence and no facts of the rule or other readers."""
    async with connected(world.stack, world.alice) as listening:
        share = owner = world.shared.uuid
        await listening.listen(f"arvados.live.{share}.{owner}.*.event.>")
        (made,) = await make(world, 1)
        await until(lambda: listening.heard, "it comes")
    (heard,) = listening.heard
    answer = await ask(nats, EVENTS, objects=[made])
    assert answer.events == [json.loads(heard.data)]
    assert answer.parts[0].headers["Nats-Sequence"] == heard.headers["Nats-Sequence"]
    assert answer.events[0]["audience"] == [[world.shared.uuid, made]]
    assert answer.events[0]["facts"] == {}


async def test_pages_join(world: World, nats: Nats) -> None:
    """Small pages give every event once and in order; a cursor inside a page resumes after it."""
    made = await make(world, 23)
    found = await all_events(nats, owners=[world.shared.uuid], limit=5)
    assert [event["object_uuid"] for event in found] == made
    page = await ask(nats, EVENTS, owners=[world.shared.uuid], limit=10)
    assert page.more
    inside = page.parts[3].headers["Arvados-Cursor"]
    assert (await ask(nats, EVENTS, owners=[world.shared.uuid], cursor=inside)).objects == made[4:]


async def test_bytes_are_bounded(world: World, nats: Nats) -> None:
    """A page ends when it is large enough, and says that there is more."""
    made = await make(world, 6)
    page = await ask(nats, EVENTS, owners=[world.shared.uuid], max_bytes=1000)
    assert page.more
    assert 0 < len(page.parts) < 6
    rest = await ask(nats, EVENTS, owners=[world.shared.uuid], cursor=page.end["Arvados-End"])
    assert page.objects + rest.objects == made


async def test_now_is_a_place_to_begin(world: World, nats: Nats) -> None:
    """`begin: now` gives a cursor and no event; later events follow it."""
    await make(world, 2)
    page = await ask(nats, EVENTS, begin="now")
    assert (page.parts, page.more) == ([], False)
    later = await make(world, 2)
    assert (await ask(nats, EVENTS, cursor=page.end["Arvados-End"])).objects == later


async def test_filters(world: World, nats: Nats) -> None:
    """Kinds by either name, event types, owners and objects; all of them must match."""
    cluster = world.stack.sandbox.cluster
    first, second = await make(world, 2)
    await cluster.update(first, {"name": "renamed"}, world.bob)
    project = await cluster.project(owner=world.shared, by=world.bob)
    async with trusted(world.stack) as inside:
        await eventually(
            lambda: inside.last(streams.EVENTS, subjects.event(project.uuid, "create"))
        )
    owner = [world.shared.uuid]

    async def found(**filters: Any) -> list[str]:
        return [event["object_uuid"] for event in await all_events(nats, **filters)]

    assert await found(owners=owner) == [first, second, first, project.uuid]
    assert await found(owners=owner, kinds=["group"]) == [project.uuid]
    assert await found(owners=owner, kinds=["arvados#collection"], event_types=["update"]) == [
        first
    ]
    assert await found(objects=[second, first], event_types=["create"]) == [first, second]
    assert await found(owners=[world.bob.uuid], objects=[first]) == []


async def test_nothing_of_others(world: World, nats: Nats) -> None:
    """What is not shared is not told, also to one who names it; nor how many there were."""
    hidden = await make(world, 3, world.hidden)
    shared = await make(world, 1)
    assert (await ask(nats, EVENTS, objects=hidden)).parts == []
    assert (await ask(nats, EVENTS, owners=[world.hidden.uuid])).parts == []
    seen = {event["object_uuid"] for event in await all_events(nats, limit=1000)}
    assert set(shared) <= seen
    assert not seen & {*hidden, world.hidden.uuid}


async def test_taken_away_and_given_back(world: World) -> None:
    """The first request after the commit is judged by it; what was kept is told when it may be."""
    cluster = world.stack.sandbox.cluster
    made = await make(world, 3)
    assert await _seen(world) == made
    await cluster.unshare(world.shared, world.alice)
    assert await _seen(world) == []
    await cluster.share(world.shared, world.alice)
    assert await _seen(world) == made


async def _seen(world: World) -> list[str]:
    """What alice is told of the project, on a connection that no change has cut."""
    async with native(world.stack, world.alice) as nats:
        return (await ask(nats, EVENTS, owners=[world.shared.uuid])).objects


async def test_scopes_narrow_history(world: World) -> None:
    """A token for collections reads their events and no others, and no logs."""
    cluster = world.stack.sandbox.cluster
    request = await cluster.container_request("scoped", owner=world.shared, by=world.bob)
    (made,) = await make(world, 1)
    scoped = await cluster.token(world.alice, scopes=["GET /arvados/v1/collections/"])
    async with native(world.stack, scoped) as nats:
        assert (await ask(nats, EVENTS, owners=[world.shared.uuid])).objects == [made]
        assert (await ask(nats, LOGS, uuid=request.uuid)).error["code"] == "not_readable"
    requests = "GET /arvados/v1/container_requests/"
    narrow = await cluster.token(world.alice, scopes=[requests])
    async with native(world.stack, narrow) as nats:
        assert (await ask(nats, LOGS, uuid=request.uuid)).error["code"] == "not_readable"
    wide = await cluster.token(world.alice, scopes=[requests, "GET /arvados/v1/containers/"])
    async with native(world.stack, wide) as nats:
        assert not (await ask(nats, LOGS, uuid=request.uuid)).error


FORGED = "zzzzz-tpzed-000000000000001/zzzzz-gj3su-000000000000001/ab"


@pytest.mark.parametrize("subject", [EVENTS, LOGS])
@pytest.mark.parametrize(
    ("name", "account"),
    [
        ("Nats-Request-Info", "REQUESTS"),
        ("nats-request-info", "REQUESTS"),
        ("NATS-REQUEST-INFO", "ARVADOS"),
        (" Nats-Request-Info", "REQUESTS"),
    ],
)
async def test_forged_senders(
    world: World, nats: Nats, subject: str, name: str, account: str
) -> None:
    """The server's header stands, and one that only looks like it is refused: nobody is bob."""
    (hidden,) = await make(world, 1, world.hidden)
    forged = json.dumps({"acc": account, "user": FORGED.replace(FORGED[:27], world.bob.uuid)})
    payload = json.dumps({"objects": [hidden]} if subject == EVENTS else {"uuid": NOBODY}).encode()
    reply = await nats.request(subject, payload, headers={name: forged})
    assert reply.data == b"" or "error" in json.loads(reply.data)
    assert hidden.encode() not in reply.data


async def test_a_request_from_inside_is_refused(world: World) -> None:
    """Without the server's word on who asks there is no answer, whatever the headers say."""
    async with trusted(world.stack) as nats:
        for subject in (EVENTS, LOGS):
            answer = await ask(nats, subject)
            assert answer.error["code"] == "bad_request"
            assert "who sent it" in answer.error["error"]


@pytest.mark.parametrize(
    ("subject", "payload", "says"),
    [
        (EVENTS, b"{", "no JSON; send JSON like"),
        (EVENTS, b"\xff", "no JSON; send JSON like"),
        (EVENTS, b"[]", "Expected `object`"),
        (EVENTS, b'{"limit": 1001}', "<= 1000"),
        (EVENTS, b'{"limit": 0}', ">= 1"),
        (EVENTS, b'{"max_bytes": 99999999}', "max_bytes"),
        (EVENTS, b'{"owner": "x"}', "unknown field `owner`"),
        (EVENTS, b'{"kinds": ["banana"]}', "no kinds of objects: banana"),
        (EVENTS, b'{"owners": ["my project"]}', "owners: not a uuid: 'my project'"),
        (EVENTS, b'{"objects": [""]}', "objects: not a uuid"),
        (EVENTS, b'{"cursor": "made-up"}', "not a cursor of this cluster"),
        (EVENTS, b'{"begin": "yesterday"}', "$.begin"),
        (LOGS, b"{}", "missing required field `uuid`"),
        (LOGS, b'{"uuid": "zzzzz-4zz18-000000000000001"}', "uuid: name a container"),
        (LOGS, b'{"uuid": "nonsense"}', "uuid: name a container"),
        (LOGS, b'{"uuid": "zzzzz-dz642-000000000000001", "offset": -1}', "$.offset"),
        (LOGS, b'{"uuid": "zzzzz-dz642-000000000000001", "file": "a\\nb"}', "file: send the name"),
        (
            LOGS,
            b'{"uuid": "zzzzz-dz642-000000000000001", "container": "x"}',
            "container: goes with",
        ),
    ],
)
async def test_bad_requests_are_told_what_to_do(
    nats: Nats, subject: str, payload: bytes, says: str
) -> None:
    """Each with words that help; none of them ends the service."""
    answer = await ask(nats, subject, payload)
    assert answer.error["code"] == "bad_request"
    assert not answer.error["temporary"]
    assert says in answer.error["error"]


async def test_many_requests_at_once(world: World, nats: Nats) -> None:
    """Each has a whole answer, or is told to wait; afterwards all is as before."""
    made = await make(world, 4)
    answers = await asyncio.gather(
        *(ask(nats, EVENTS, owners=[world.shared.uuid]) for _ in range(40))
    )
    good = [answer for answer in answers if not answer.error]
    assert len(good) >= 8
    assert all(answer.objects == made for answer in good)
    assert {answer.error["code"] for answer in answers if answer.error} <= {"busy"}
    assert (await ask(nats, EVENTS, owners=[world.shared.uuid])).objects == made


async def test_history_joins_live_while_events_are_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The documented client: connected in the midst of writing, it tells every event once."""
    cluster = world.stack.sandbox.cluster
    followed = arvados_live.Events(world.shared.uuid)
    followed.place = {"begin": "oldest"}
    told: list[tuple[str, str]] = []
    made: list[str] = []
    count = 150

    async def write() -> None:
        for number in range(count):
            one = await cluster.collection(f"c{number}", owner=world.shared, by=world.bob)
            made.append(one.uuid)
            await asyncio.sleep(0.002)

    writing = asyncio.create_task(write())
    await eventually(lambda: _true(len(made) > 30))
    monkeypatch.setattr(arvados_live, "token_now", lambda: world.alice.token)
    connection = arvados_live.Connection(world.stack.sandbox.nats.url)
    await connection.open()
    try:
        async with asyncio.timeout(60):
            async for event in followed.follow(connection):
                told.append((event["uuid"], event["object_uuid"]))
                if len(told) % 40 == 0:
                    await connection.messages.put(None)  # as after an interruption
                if len(told) == count:
                    break
    finally:
        await connection.close()
    await writing
    assert [uuid for _, uuid in told] == made
    assert len({uuid for uuid, _ in told}) == len(told)


async def _true(value: object) -> object:
    return value


# Logs.


async def running(world: World, owner: Record | None = None, **given: Any) -> tuple[Record, Record]:
    """A request of bob and its container, which runs."""
    cluster = world.stack.sandbox.cluster
    request = await cluster.container_request(owner=owner or world.shared, by=world.bob, **given)
    return request, await cluster.run(request)


async def stored(nats: Nats, request: Record, file: str, size: int) -> None:
    """Return when the stream has so many bytes of a file."""

    async def look() -> bool:
        answer = await ask(nats, LOGS, uuid=request.uuid)
        if answer.error:
            return False
        found = json.loads(answer.parts[0].data)["files"].get(file, {"size": 0})
        return bool(found["size"] >= size)

    await eventually(look, within=60)


LINES = b"".join(b"line %06d of the log\n" % number for number in range(20_000))


async def test_a_log_by_pages(world: World, nats: Nats) -> None:
    """By request and by container, with the headers of the stream; the end says where to go on."""
    cluster = world.stack.sandbox.cluster
    request, container = await running(world)
    await cluster.write_log(container, "stdout.txt", LINES)
    await stored(nats, request, "stdout.txt", len(LINES))
    for uuid in (request.uuid, container.uuid):
        data, place, answers = b"", 0, 0
        more = True
        while more:
            page = await ask(
                nats, LOGS, uuid=uuid, file="stdout.txt", max_bytes=100_000, offset=place
            )
            data += page.bytes
            place = int(page.end["Arvados-End"])
            more, answers = page.more, answers + 1
            assert page.end["Arvados-Container"] == container.uuid
        assert data == LINES
        assert answers == len(LINES) // 100_000 + 1
        assert not page.ended
    assert page.parts[0].headers["Arvados-File"] == "stdout.txt"
    assert page.parts[0].headers["Arvados-Epoch"] == "0"
    await cluster.finish(request)
    done = await eventually(lambda: _ended(nats, request))
    assert int(done.end["Arvados-End"]) == len(LINES)


async def _ended(nats: Nats, request: Record) -> Any:
    answer = await ask(nats, LOGS, uuid=request.uuid, file="stdout.txt", offset=len(LINES) - 10)
    return answer if answer.ended else None


async def test_forbidden_and_missing_look_alike(world: World, nats: Nats) -> None:
    """Bob's hidden container, one that never was, an attempt that never was: the same no."""
    request, container = await running(world, world.hidden)
    open_request, _ = await running(world)
    asked: list[dict[str, Any]] = [
        {"uuid": request.uuid},
        {"uuid": container.uuid},
        {"uuid": NOBODY},
        {"uuid": "zzzzz-dz642-000000000000001"},
        {"uuid": request.uuid, "file": "stdout.txt"},
        {"uuid": open_request.uuid, "container": container.uuid},
    ]
    errors = [(await ask(nats, LOGS, json.dumps(one).encode())).error for one in asked]
    assert all(error == errors[0] for error in errors)
    assert errors[0]["code"] == "not_readable"


async def test_a_moved_request_hides_its_log_at_once(world: World, nats: Nats) -> None:
    """The container's own events tell nothing of the move; the database does."""
    cluster = world.stack.sandbox.cluster
    request, container = await running(world)
    assert not (await ask(nats, LOGS, uuid=container.uuid)).error
    await cluster.move(request, world.hidden, by=world.bob)
    assert (await ask(nats, LOGS, uuid=container.uuid)).error["code"] == "not_readable"
    await cluster.share(request, world.alice)
    async with native(world.stack, world.alice) as again:
        assert not (await ask(again, LOGS, uuid=container.uuid)).error


async def test_what_left_the_stream_is_told(world: World, nats: Nats) -> None:
    """From which offset the stream has it, and where Arvados has the rest; then the bytes."""
    cluster = world.stack.sandbox.cluster
    request, container = await running(world)
    await cluster.write_log(container, "stdout.txt", LINES)
    await stored(nats, request, "stdout.txt", len(LINES))
    subject = subjects.log(container.uuid, "stdout.txt")
    async with trusted(world.stack) as inside:
        chunks = [message async for message in inside.history(streams.LOGS, subject)]
        body = {"filter": subject, "seq": chunks[2].sequence}
        await inside.js_api(f"STREAM.PURGE.{streams.LOGS}", body)
    begins = len(chunks[0].data) + len(chunks[1].data)
    page = await ask(nats, LOGS, uuid=request.uuid, file="stdout.txt", offset=5, max_bytes=2**22)
    (gap,) = page.gaps
    assert gap["Arvados-Gap"] == f"5-{begins}"
    assert gap["Arvados-Log-Path"] == (
        f"/arvados/v1/container_requests/{request.uuid}/log/{container.uuid}/stdout.txt"
    )
    assert page.bytes == LINES[begins:]


async def test_a_log_joins_live_while_it_is_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The documented client: every byte once, to the end of the container."""
    cluster = world.stack.sandbox.cluster
    request, container = await running(world)
    pieces = [b"piece %05d\n" % number * 20 for number in range(120)]
    started = asyncio.Event()

    async def write() -> None:
        for number, piece in enumerate(pieces):
            await cluster.write_log(container, "stderr.txt", piece)
            if number == 20:
                started.set()
            await asyncio.sleep(0.01)
        await cluster.finish(request)

    writing = asyncio.create_task(write())
    await started.wait()
    monkeypatch.setattr(arvados_live, "token_now", lambda: world.alice.token)
    connection = arvados_live.Connection(world.stack.sandbox.nats.url)
    await connection.open()
    try:
        async with asyncio.timeout(40):
            followed = arvados_live.Log(request.uuid, "stderr.txt")
            data = b"".join([piece async for piece in followed.follow(connection)])
    finally:
        await connection.close()
    await writing
    assert data == b"".join(pieces)


async def test_a_request_after_a_retry(world: World, nats: Nats) -> None:
    """The present container by default, an earlier attempt by its name; both are listed."""
    cluster = world.stack.sandbox.cluster
    request, first = await running(world, container_count_max=3)
    await cluster.write_log(first, "stderr.txt", b"the first try\n")
    await stored(nats, request, "stderr.txt", 14)
    await cluster.cancel(first)
    second = await cluster.run(request)
    assert second.uuid != first.uuid
    await cluster.write_log(second, "stderr.txt", b"the second try\n")
    await stored(nats, request, "stderr.txt", 15)

    async def read(container: str | None = None) -> tuple[bytes, str]:
        page = await ask(nats, LOGS, uuid=request.uuid, file="stderr.txt", container=container)
        return page.bytes, page.end["Arvados-Attempt"]

    assert await read() == (b"the second try\n", "2")
    assert await read(container=second.uuid) == (b"the second try\n", "2")
    assert await read(container=first.uuid) == (b"the first try\n", "1")
    listed = json.loads((await ask(nats, LOGS, uuid=request.uuid)).parts[0].data)
    assert listed["attempts"] == {first.uuid: 1, second.uuid: 2}
    assert listed["container"] == second.uuid


async def test_nobody_answers_while_no_publisher_can_tell(world: World, nats: Nats) -> None:
    """Without the permission publisher the answer is to come again, never a yes."""
    (made,) = await make(world, 1)
    publishers = world.stack.services["publishers"]
    await publishers.stop()
    try:
        answer = await ask(nats, EVENTS, objects=[made])
        assert (answer.error["code"], answer.error["temporary"]) == ("unavailable", True)
    finally:
        await publishers.start()
    assert (await ask(nats, EVENTS, objects=[made])).objects == [made]
