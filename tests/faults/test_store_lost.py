# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The JetStream store is lost under running services: all is made anew, and readers go on (D1)."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from arvados_nats.contract import streams, subjects
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Nats
from sandbox.sandbox import MANAGEMENT_TOKEN
from sandbox.servers.nats_server import NatsServer
from sandbox.stack import Service, Stack
from tests.support.clients.native_answers import LOGS, ask, native
from tests.support.clients.v1 import connected
from tests.support.waiting import until

pytestmark = pytest.mark.storm
Lose = Callable[[NatsServer], Awaitable[None]]
NOBODY = "zzzzz-dz642-000000000000000"
BACK = 20.0
"""Seconds within which all is as before, once the server is back: 1 to 6 on an idle machine."""


@pytest.fixture
async def nats(stack: Stack) -> AsyncIterator[Nats]:
    """A trusted connection."""
    async with nats_client.connect(
        [stack.sandbox.nats.url], name="test", seed=stack.sandbox.seed("publisher")
    ) as connection:
        yield connection


async def lose_store(server: NatsServer) -> None:
    """As if the disk had been replaced."""
    await server.kill()
    for found in server.folder.rglob("jetstream"):
        shutil.rmtree(found)
    await server.start()


async def lose_messages(server: NatsServer) -> None:
    """As if the files of all streams had been lost, and not what the server knows of the streams:
    it makes them anew as of the day when they were made first."""
    await server.kill()
    for found in server.folder.rglob("msgs"):
        shutil.rmtree(found)
    await server.start()


async def said(service: Service) -> str:
    """What its health says."""
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{service.ops_port}",
        headers={"Authorization": f"Bearer {MANAGEMENT_TOKEN}"},
    ) as client:
        return (await client.get("/_health/ping")).text


async def well(stack: Stack) -> bool:
    """Whether all services say that they are."""
    return all(['"OK"' in await said(service) for service in stack.services.values()])


@pytest.mark.parametrize("lose", [lose_store, lose_messages])
async def test_log_readers_go_on_at_their_byte(stack: Stack, nats: Nats, lose: Lose) -> None:
    """Who stood at byte 150 gets byte 150, to the end; a new reader gets all; health is well."""
    cluster = stack.sandbox.cluster
    alice = await cluster.user("alice")
    request = await cluster.container_request("lost", owner=alice)
    container = await cluster.run(request)
    lines = [b"line %04d\n" % number for number in range(120)]
    await cluster.write_log(container, "stdout.txt", b"".join(lines[:15]))
    base = f"ws://127.0.0.1:{stack.proxy_port}"
    async with connected(base, alice) as reader:
        await reader.subscribe("a", log={"uuid": request.uuid})
        await reader.until_content(container.uuid, "stdout.txt", b"".join(lines[:15]))
        await lose(stack.sandbox.nats)
        await cluster.write_log(container, "stdout.txt", b"".join(lines[15:100]))
        async with asyncio.timeout(2 * BACK):
            await reader.until_content(container.uuid, "stdout.txt", b"".join(lines[:100]))
        async with connected(base, alice) as late:
            await late.subscribe("a", log={"uuid": request.uuid})
            await late.until_content(container.uuid, "stdout.txt", b"".join(lines[:100]))
            await cluster.write_log(container, "stdout.txt", b"".join(lines[100:]))
            await cluster.finish(container)
            for one in (reader, late):
                await one.until_content(container.uuid, "stdout.txt", b"".join(lines))
                end = await one.until("end", file="stdout.txt")
                assert (end["size"], end["confirmed"]) == (len(b"".join(lines)), True)
                assert not one.of("gap")
    await until(lambda: well(stack), within=BACK)


async def test_native_readers_go_on_at_their_byte(stack: Stack, nats: Nats) -> None:
    """Where the bytes are in the stream now, and not where they were in the one that is lost."""
    cluster = stack.sandbox.cluster
    erin = await cluster.user("erin")
    request = await cluster.container_request("lost", owner=erin)
    container = await cluster.run(request)
    before, after = b"before\n" * 20, b"after\n" * 20
    for _ in range(200):
        await (await nats.publish_stored(subjects.log(NOBODY, "other"), b"bytes"))
    await cluster.write_log(container, "stdout.txt", before)
    async with native(stack, erin) as reader:

        async def read(offset: int, content: bytes) -> bool:
            where = {"file": "stdout.txt", "offset": offset}
            answer = await ask(reader, LOGS, None, uuid=request.uuid, **where)
            return answer.bytes == content and not answer.gaps

        await until(lambda: read(0, before), within=BACK)
        await lose_store(stack.sandbox.nats)
        await cluster.write_log(container, "stdout.txt", after)
        await until(lambda: read(len(before), after), within=2 * BACK)
        await until(lambda: read(0, before + after), within=BACK)
    await until(lambda: well(stack), within=BACK)


async def test_all_streams_are_made_anew(stack: Stack, nats: Nats) -> None:
    """Those that were made once at the start, too."""
    await lose_store(stack.sandbox.nats)

    async def all_there() -> bool:
        names = (streams.EVENTS, streams.LOGS, streams.SYSTEM_LOGS, streams.QUEUE, streams.CURSORS)
        await nats.until_connected()
        return None not in [await streams.created(nats, name) for name in names]

    await until(all_there, within=2 * BACK)
    await until(lambda: well(stack), within=BACK)


@pytest.mark.parametrize("stream", [streams.EVENTS, streams.LOGS, streams.SYSTEM_LOGS])
async def test_a_stream_that_is_deleted_alone_comes_back(
    stack: Stack, nats: Nats, stream: str
) -> None:
    """Without anything having to be written to it."""
    await nats.js_api(f"STREAM.DELETE.{stream}")

    async def there() -> bool:
        return await streams.created(nats, stream) is not None

    await until(there, within=BACK)
    await until(lambda: well(stack), within=2 * BACK)


async def test_a_reader_of_events_is_told_and_gets_what_comes(stack: Stack) -> None:
    """`gap`, and then every new event once."""
    cluster = stack.sandbox.cluster
    bob = await cluster.user("bob")
    async with connected(f"ws://127.0.0.1:{stack.proxy_port}", bob) as reader:
        await reader.subscribe("e", events={"begin": "now"})
        await lose_store(stack.sandbox.nats)
        made = [await cluster.collection(f"c{number}", owner=bob) for number in range(5)]
        wanted = {record.uuid for record in made}

        def seen() -> list[str]:
            found = [body["object_uuid"] for body in reader.of("event")]
            return [uuid for uuid in found if uuid in wanted]

        async with asyncio.timeout(2 * BACK):
            await reader.until("gap")
            await reader.until_true(lambda: set(seen()) == wanted)
        assert sorted(seen()) == sorted(wanted)


async def test_a_cursor_of_the_future_is_told(stack: Stack) -> None:
    """The store was rolled back to an older copy: the stream ends before the reader's place."""
    cluster = stack.sandbox.cluster
    carol = await cluster.user("carol")
    server = stack.sandbox.nats
    async with connected(f"ws://127.0.0.1:{stack.proxy_port}", carol) as reader:
        await reader.subscribe("e", events={"begin": "now"})
        await cluster.collection("before", owner=carol)
        await reader.until("event")
        await server.stop()
        copy = server.folder.parent / f"{server.folder.name}-copy"
        shutil.copytree(server.folder, copy)
        await server.start()
        await cluster.collection("after", owner=carol)
        event = await reader.until("event")
    await stack.services["wsproxy"].stop()
    await stack.services["publishers"].stop()
    await server.stop()
    for found in [path for path in server.folder.rglob("jetstream") if path.is_dir()][:1]:
        shutil.rmtree(found)
        shutil.copytree(copy / found.relative_to(server.folder), found)
    shutil.rmtree(copy)
    await server.start()
    try:
        await stack.services["wsproxy"].start(well=False)
        async with connected(f"ws://127.0.0.1:{stack.proxy_port}", carol) as reader:
            await reader.send("subscribe", {"id": "e", "events": {"cursor": event["cursor"]}})
            await reader.until("gap")
    finally:
        await stack.services["publishers"].start()


async def test_a_cursor_of_another_life_is_told(stack: Stack, nats: Nats) -> None:
    """The stream has the same `created`, and was filled beyond the reader's place."""
    cluster = stack.sandbox.cluster
    dave = await cluster.user("dave")
    base = f"ws://127.0.0.1:{stack.proxy_port}"
    async with connected(base, dave) as reader:
        await reader.subscribe("e", events={"begin": "now"})
        await cluster.collection("before", owner=dave)
        event = await reader.until("event")
    created = await streams.created(nats, streams.EVENTS)
    await stack.services["wsproxy"].stop()
    await lose_messages(stack.sandbox.nats)
    after = await cluster.collection("after", owner=dave)
    await until(
        lambda: nats.last(streams.EVENTS, subjects.event(after.uuid, "create")), within=BACK
    )
    await stack.services["wsproxy"].start()
    assert await streams.created(nats, streams.EVENTS) == created
    async with connected(base, dave) as reader:
        await reader.send("subscribe", {"id": "e", "events": {"cursor": event["cursor"]}})
        await reader.until("gap")
        await reader.until_true(
            lambda: after.uuid in [body["object_uuid"] for body in reader.of("event")]
        )
