# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The table of bounds in docs/threat-model.md, walked row by row against running services."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect as connect_raw
from websockets.exceptions import ConnectionClosed

from arvados_nats.arvados import identities
from arvados_nats.contract import log_chunks, streams, subjects
from arvados_nats.errors import ArvadosNatsError
from arvados_nats.nats import accounts_config
from arvados_nats.nats import client as nats_client
from arvados_nats.service import door, keys, machine_keys
from sandbox.model.actors import Actor
from sandbox.stack import Stack
from tests.support.clients import raw_socket as raw
from tests.support.clients import v1 as clients
from tests.support.clients import wamp as wamp_client
from tests.support.clients.native import connected, lets_in
from tests.support.clients.v0 import client as v0_client
from tests.support.waiting import until
from tests.support.worlds.proxy import own, until_equal
from tests.support.worlds.site import Site
from tools import make_bounds
from wsproxy.log_folder.routes import MOST_BYTES
from wsproxy.logs import search as log_search
from wsproxy.native_api import answers as native_answers
from wsproxy.page import site as page_site
from wsproxy.transport.fragments import MAX_FRAGMENTS
from wsproxy.transport.limits import Limits
from wsproxy.v0 import connection as v0
from wsproxy.v0 import messages as v0_messages
from wsproxy.v1 import session as v1
from wsproxy.v1 import sse
from wsproxy.wamp import session as wamp
from wsproxy.wamp.calls import MAX_BYTES
from wsproxy.wamp.connection import CALLS

_CURRENT = "GET /arvados/v1/api_client_authorizations/current"
WITHIN = 60.0
SUBSCRIBE = '{"method": "subscribe"}'


@dataclass
class World:
    """What a row is walked in."""

    site: Site
    stack: Stack
    alice: Actor
    monkeypatch: pytest.MonkeyPatch

    async def native(self) -> Actor:
        """A user whom the native services know."""
        return await self.stack.sandbox.cluster.user("native")


@pytest.fixture
def world(site: Site, stack: Stack, alice: Actor, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(site, stack, alice, monkeypatch)


async def answer_to(port: int, request: bytes) -> bytes:
    """All that an HTTP server says to these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        with contextlib.suppress(ConnectionError):
            writer.write(request)
            await writer.drain()
        async with asyncio.timeout(WITHIN):
            with contextlib.suppress(ConnectionError):
                return await reader.read()
        return b""
    finally:
        writer.close()


async def heads(world: World) -> None:
    """A head, its lines and their number have bounds; so has the time for them."""
    async with own(world.site) as (base, _):
        port = int(base.rpartition(":")[2])
        upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        many = b"".join(b"X%d: x\r\n" % n for n in range(door.HEAD_BYTES // 6))
        for head in (
            b"GET /" + b"x" * door.HEAD_BYTES + b" HTTP/1.1\r\nHost: x\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * door.HEAD_BYTES,
            b"GET / HTTP/1.1\r\nHost: x\r\n" + many,
            b"GET /v1/stream HTTP/1.1\r\nHost: x\r\n" + upgrade + many,
        ):
            assert (await answer_to(port, head)).startswith(b"HTTP/1.1 400 ")
        world.monkeypatch.setattr(door, "HEAD_SECONDS", 0.2)
        assert await answer_to(port, b"GET / HTTP/1.1\r\n") == b""


async def answers(world: World) -> None:
    """A body is not waited for; the time for an answer is that of the door (test_places)."""
    async with own(world.site) as (base, _):
        port = int(base.rpartition(":")[2])
        world.monkeypatch.setattr(door, "HEAD_SECONDS", 0.2)
        head = b"POST /v1/stream HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
        assert (await answer_to(port, head)).startswith(b"HTTP/1.1 405 ")


def log_events(base: str, token: str) -> Awaitable[httpx.Response]:
    async def get() -> httpx.Response:
        async with httpx.AsyncClient(base_url=base.replace("ws", "http", 1)) as http:
            uuid = "zzzzz-xvhdp-000000000000000"
            return await http.get(
                f"/arvados/v1/container_requests/{uuid}/log_events",
                headers={"Authorization": f"Bearer {token}"} if token else {},
            )

    return get()


async def sse_nobody(world: World) -> None:
    """Refused at once; a token that nobody can judge in time is told to come again."""
    world.monkeypatch.setattr(sse, "UNKNOWN_SECONDS", 0.0)
    async with own(world.site) as (base, _):
        assert (await log_events(base, "")).status_code == 401
        assert (await log_events(base, "nonsense")).status_code in (401, 503)


async def finds(world: World, http: httpx.AsyncClient) -> None:
    """Whoever wrote the log, no step has more lines than others can wait for."""
    cluster = world.site.cluster
    running = await cluster.run(await cluster.container_request("found", owner=world.alice))
    await cluster.write_log(running, "stdout.txt", b"a\n" * 5 * log_search.LINES)
    query = {"container": running.uuid, "file": "stdout.txt", "text": "a", "from": "0"}
    query["to"] = str(2**40)
    token = {"Authorization": f"Bearer {world.alice.token}"}
    found = await http.get("/v1/search", params=query, headers=token, timeout=WITHIN)
    steps = [json.loads(line) for line in found.text.splitlines()]
    assert max(step["count"] for step in steps) == 5 * log_search.LINES
    told = [len(step["lines"]) for step in steps]
    assert sum(told) == 5 * log_search.LINES
    assert max(told) <= log_search.LINES


async def page(world: World) -> None:
    """A refused token costs one question however often it comes; of too many pages nothing is
    said."""
    lists = "GET /arvados/v1/container_requests"
    arvados = world.site.backend.faults
    async with own(world.site) as (base, _):
        async with httpx.AsyncClient(base_url=base.replace("ws", "http", 1)) as http:
            await finds(world, http)
            before = arvados.count(_CURRENT), arvados.count(lists)
            for path in ("/v1/processes", "/v1/search") * 10:
                refused = await http.get(path, headers={"Authorization": "Bearer guess"})
                assert refused.status_code == 401
            assert (arvados.count(_CURRENT), arvados.count(lists)) == (before[0] + 1, before[1])
            for number in range(page_site.MOST_ORIGINS):
                told = await http.get(f"/v1/site?return_to=https://page{number}.example/")
                assert told.json()["refused"]
            told = await http.get("/v1/site?return_to=https://another.example/")
            assert told.status_code == 200
            assert "refused" not in told.json()


async def sse_user(world: World) -> None:
    """The places of a user are shared with their sockets."""
    async with own(world.site, max_connections_per_user=1) as (base, _):
        assert (await log_events(base, world.alice.token)).status_code == 404
        async with clients.connected(base, world.alice):
            assert (await log_events(base, world.alice.token)).status_code == 429


async def log_folder(world: World) -> None:
    """Nobody is answered without a token; nobody a range that is longer than may be."""
    cluster = world.site.cluster
    request = await cluster.container_request("bounded", owner=world.alice)
    running = await cluster.run(request)
    await cluster.write_log(running, "stdout.txt", bytes(MOST_BYTES + 1))
    path = f"/arvados/v1/container_requests/{request.uuid}/log/{running.uuid}"
    token = {"Authorization": f"Bearer {world.alice.token}"}
    async with own(world.site) as (base, _), httpx.AsyncClient(timeout=WITHIN) as http:
        url = base.replace("ws", "http", 1) + path
        async with asyncio.timeout(WITHIN):
            while True:
                if (await http.request("PROPFIND", url, headers=token)).status_code == 207:
                    break
                await asyncio.sleep(0.05)
        for headers, status in (
            ({}, 421),
            ({"Authorization": "Bearer nonsense"}, 421),
            (token, 421),
            ({**token, "Range": "bytes=0-99"}, 206),
        ):
            answer = await http.get(f"{url}/stdout.txt", headers=headers)
            assert answer.status_code == status
        sent = await http.request("PROPFIND", url, headers=token, content=b"<propfind/>")
        assert sent.status_code == 421


async def closes_with(url: str, *frames: str | bytes) -> int | None:
    """What a WebSocket is closed with after these messages."""
    async with connect_raw(url) as socket:
        with contextlib.suppress(ConnectionClosed):
            for frame in frames:
                await socket.send(frame)
            async with asyncio.timeout(WITHIN):
                while True:
                    await socket.recv()
        return socket.close_code


async def frames(url: str, longest: int, first: str | None = None) -> None:
    """Too long a message and too many fragments end a connection."""
    before = [first] if first else []
    assert await closes_with(url, *before, "x" * (longest + 1)) == 1009
    async with raw.opened(url) as peer:
        if first:
            await peer.send(raw.text(first))
        await peer.send(raw.text("", fin=False) + raw.more(fin=False) * MAX_FRAGMENTS)
        assert await peer.close_code() == 1008


async def v0_nobody(world: World) -> None:
    """Little is read, for a short time; test_places has the places."""
    async with own(world.site) as (base, _):
        url = f"{base}/websocket?api_token=nonsense"
        await frames(url, v0.MAX_MESSAGE)
        half = " " * (v0.BEFORE_ADMISSION // 2)
        assert await closes_with(url, half, half, SUBSCRIBE) == 1008
        world.monkeypatch.setattr(v0, "UNKNOWN_SECONDS", 0.0)
        assert await closes_with(url) == 4502


async def v0_user(world: World) -> None:
    """Messages, filters, subscriptions and their bytes, and sockets, each has a bound."""
    most = Limits().subscriptions
    async with own(world.site, max_connections_per_user=3) as (base, services):
        url = f"{base}/websocket"
        async with v0_client(url, world.alice.token) as socket:
            await until_equal(lambda: len(services.transport.tally.known), 1)
            await frames(f"{url}?api_token={world.alice.token}", v0.MAX_MESSAGE)
            filters = [["a", "b", "c"]] * (v0_messages.MAX_FILTERS + 1)
            await socket.send({"method": "subscribe", "filters": filters})
            assert await socket.status() == 400
            for _ in range(most):
                await socket.subscribe()
            await socket.send({"method": "subscribe"})
            assert await socket.status() == 400
            async with v0_client(url, world.alice.token), v0_client(url, world.alice.token):
                await until_equal(lambda: len(services.transport.tally.known), 3)
                assert await closes_with(f"{url}?api_token={world.alice.token}") == 4429


async def v1_nobody(world: World) -> None:
    """A refused token ends it; so does none."""
    async with own(world.site) as (base, _):
        url = f"{base}/v1/stream"
        await frames(url, v1.MAX_MESSAGE)
        assert await closes_with(url, '{"auth": {"token": "nonsense"}}') == 4501
        world.monkeypatch.setattr(v1, "AUTH_SECONDS", 0.0)
        assert await closes_with(url) == 4502


async def v1_user(world: World) -> None:
    """As over v0; and few refused tokens."""
    async with own(world.site, max_connections_per_user=1) as (base, services):
        url, auth = f"{base}/v1/stream", json.dumps({"auth": {"token": world.alice.token}})
        await frames(url, v1.MAX_MESSAGE, auth)
        guesses = [json.dumps({"auth": {"token": f"guess{n}"}}) for n in range(v1.MAX_REFUSALS)]
        assert await closes_with(url, auth, *guesses) == 4501
        await until_equal(lambda: len(services.transport.tally.known), 0)
        async with clients.connected(base, world.alice) as client:
            assert await closes_with(url, auth) == 4429
            for number in range(Limits().subscriptions):
                await client.subscribe(str(number), events={"kinds": ["collection"]})
            await client.send("subscribe", {"id": "more", "events": {}})
            await client.until("error", code="too_many", id="more")


async def wamp_nobody(world: World) -> None:
    """As over v1; and what is no WAMP ends it."""
    async with own(world.site) as (base, _):
        url, hello = f"{base}/wamp", json.dumps(wamp_client.HELLO)
        await frames(url, v1.MAX_MESSAGE, hello)
        assert await closes_with(url, "{}") == 4500
        assert await closes_with(url, hello, '[5, "nonsense", {}]') == 4501
        world.monkeypatch.setattr(wamp, "AUTH_SECONDS", 0.0)
        assert await closes_with(url, hello) == 4502


async def wamp_user(world: World) -> None:
    """As over v1; and calls."""
    async with own(world.site, max_connections_per_user=1) as (base, _):
        async with wamp_client.connected(base, world.alice) as client:
            hello = [json.dumps(m) for m in (wamp_client.HELLO, [5, world.alice.token, {}])]
            assert await closes_with(f"{base}/wamp", *hello) == 4429
            for number in range(Limits().subscriptions):
                topic = f"arvados.event.{world.alice.uuid}..t{number}"
                await client.subscribe(topic, match="wildcard")
            topic = f"arvados.event.{world.alice.uuid}.collection."
            answer = await client.answer(32, {"match": "wildcard"}, topic)
            assert answer[4] == "arvados.error.too_many"
            for _ in range(CALLS + 1):
                await client.ask(48, {}, "arvados.api.events", [], {"max_bytes": 2**30})
            answers = [await client.until(lambda m: m[0] in (8, 50)) for _ in range(CALLS + 1)]
            assert "wamp.error.unavailable" in [a[4] for a in answers if a[0] == 8]
            assert all(len(json.dumps(a)) < 2 * MAX_BYTES for a in answers)


async def logins(world: World) -> None:
    """A bad token is refused, a CONNECT that is too long ends the connection."""
    assert not await lets_in(world.stack, "nonsense")
    assert not await lets_in(world.stack, "x" * (accounts_config.AccountLimits().control_line + 1))
    assert identities.REFUSALS < 50_000
    assert await lets_in(world.stack, (await world.native()).token)


async def live(world: World) -> None:
    """Nothing can be published there: nobody hears it."""
    alice = await world.native()
    async with connected(world.stack, alice) as client:
        await client.listen(f"{subjects.LIVE}.{alice.uuid}.>")
        await client.nats.publish(f"{subjects.LIVE}.{alice.uuid}.x.y", b"forged")
        await client.flush()
        assert client.heard == []


async def native_requests(world: World) -> None:
    """More requests than a user may have under way are answered `busy`; none is too large."""
    alice = await world.native()
    async with connected(world.stack, alice, asks=True) as client:
        asked = [client.nats.request(subjects.API_EVENTS, b"{}") for _ in range(40)]
        answered = await asyncio.gather(*asked, return_exceptions=True)
        assert any("busy" in str(getattr(one, "headers", one)).lower() for one in answered)
        assert native_answers.PER_USER < 40
        with pytest.raises(ArvadosNatsError):
            await client.nats.request(
                subjects.API_EVENTS, bytes(accounts_config.AccountLimits().user_payload + 1)
            )


async def container(world: World) -> None:
    """A chunk as large as it may be is stored, and nothing larger."""
    cluster = world.stack.sandbox.cluster
    request = await cluster.container_request("bounded", owner=await world.native())
    running = await cluster.run(request)
    actor = await cluster.container_token(running)
    subject = f"{subjects.LOGS}.{running.uuid}.stdout_txt"
    async with connected(world.stack, actor) as client:
        largest = bytes(log_chunks.MAX_MESSAGE - 200)
        await (await client.nats.publish_stored(subject, largest, {}))
        answer = await client.nats.publish_stored(subject, bytes(log_chunks.MAX_MESSAGE + 1), {})
        await until(lambda: answer.done() or client.cuts, "refused, or the connection ended")
        assert client.cuts or answer.exception() is not None


async def too_large(world: World, subject: str, size: int, **login: Any) -> None:
    """A larger message is not stored: it is refused, or the connection ended for it."""
    where = world.stack.sandbox
    cuts: list[bool] = []
    async with nats_client.connect([where.nats.url], name="test", **login) as nats:
        nats.on_change(cuts.append)
        answer = await nats.publish_stored(subject, bytes(size + 1), {})
        await until(lambda: answer.done() or cuts, "refused, or the connection ended")
        assert cuts or answer.exception() is not None


async def machine(world: World) -> None:
    """The stream has a largest record."""
    subject = f"{subjects.SYSTEM_LOGS}.host.unit"
    seed = keys.parse_seed(world.stack.sandbox.seed("system-logs"))
    key = machine_keys.make(seed, "host")
    await too_large(world, subject, streams.MAX_SYSTEM_RECORD, token=key)


async def trusted(world: World) -> None:
    """So has every stream, whoever writes."""
    subject = f"{subjects.EVENTS}.collection.zzzzz-4zz18-000000000000000.update"
    seed = world.stack.sandbox.seed("publisher")
    await too_large(world, subject, streams.MAX_EVENT, seed=seed)


Walk = Callable[[World], Awaitable[None]]
NOBODY, USER = "no token, or a refused one", "a user's or the anonymous token"
WALKS: dict[tuple[str, str], Walk] = {
    ("anybody", "HTTP until a whole request is there"): heads,
    ("anybody", "HTTP answers"): answers,
    (NOBODY, "server-sent events"): sse_nobody,
    (USER, "server-sent events"): sse_user,
    ("anybody", "log folder"): log_folder,
    ("anybody", "lists and finds of the page"): page,
    (NOBODY, "v0"): v0_nobody,
    (USER, "v0"): v0_user,
    (NOBODY, "v1"): v1_nobody,
    (USER, "v1"): v1_user,
    (NOBODY, "WAMP"): wamp_nobody,
    (USER, "WAMP"): wamp_user,
    ("anybody", "NATS logins"): logins,
    (USER, "live subjects"): live,
    (USER, "requests"): native_requests,
    ("a container's own token", "its own log's subjects"): container,
    ("a machine's key", "system log subjects"): machine,
    ("an admin, a service", "account ARVADOS"): trusted,
}


@pytest.mark.parametrize("row", make_bounds.rows(), ids=lambda row: f"{row.sender}: {row.door}")
async def test_a_row_is_as_the_services_do(world: World, row: make_bounds.Bounds) -> None:
    """What is allowed passes, and what is beyond gets what the row says."""
    await WALKS[row.sender, row.door](world)


def test_the_page_has_the_table_of_the_code() -> None:
    """Every row is walked, and none is missing."""
    text = make_bounds.PAGE.read_text(encoding="utf-8")
    assert make_bounds.page(text) == text
    assert {(row.sender, row.door) for row in make_bounds.rows()} == WALKS.keys()
