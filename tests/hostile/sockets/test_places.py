# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who does not say who they are, or what they want, takes no place from those who do."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_raw
from websockets.exceptions import ConnectionClosed, InvalidStatus

from arvados_nats.service import door, http_server
from sandbox.model.actors import Actor
from tests.support.background import background
from tests.support.clients import v1 as clients
from tests.support.clients.v0 import client as v0_client
from tests.support.worlds.proxy import own, until_equal
from tests.support.worlds.site import Site
from wsproxy.transport.close_codes import CloseCode
from wsproxy.v0 import connection as v0
from wsproxy.v1 import sse

EXAMPLES = int(os.environ.get("ARVADOS_NATS_FUZZ_EXAMPLES", "40"))
WITHIN = 60.0


async def code_of(socket: ClientConnection) -> int | None:
    """What the server closes it with."""
    with contextlib.suppress(ConnectionClosed):
        async with asyncio.timeout(WITHIN):
            while True:
                await socket.recv()
    return socket.close_code


@pytest.mark.parametrize("path", ["/websocket", "/websocket?api_token=nonsense", "/v1/stream"])
async def test_the_unknown_give_way_to_each_other_and_to_the_known(
    site: Site, alice: Actor, bob: Actor, path: str
) -> None:
    """Sockets with no token, or a bad one, have few places; a user gets in whatever they do."""
    async with own(site, max_connections=2, max_unknown_connections=3) as (base, services):
        async with contextlib.AsyncExitStack() as stack:
            guests = [
                await stack.enter_async_context(connect_raw(f"{base}{path}")) for _ in range(6)
            ]
            for guest in guests[:3]:
                assert await code_of(guest) == 1006
            async with clients.connected(base, alice), v0_client(f"{base}/websocket", bob.token):
                await until_equal(lambda: len(services.transport.tally.known), 2)
                with pytest.raises(InvalidStatus) as refused:
                    async with connect_raw(f"{base}/websocket"):
                        pass
                assert refused.value.response.status_code == 503
            await guests[5].send('{"method": "subscribe"}')
            await guests[5].recv()


async def test_a_flood_of_guests_leaves_others_their_time(site: Site, alice: Actor) -> None:
    """Who opens sockets without end loses their own; who comes from elsewhere can still log in."""
    async with (
        own(site, max_unknown_connections=3) as (base, _),
        contextlib.AsyncExitStack() as stack,
        connect_raw(f"{base}/v1/stream", local_addr=("127.0.0.2", 0)) as socket,
    ):
        for _ in range(10):
            await stack.enter_async_context(connect_raw(f"{base}/v1/stream"))
        await clients.Client(socket).authenticate(alice)


@pytest.mark.parametrize("query", ["", "?api_token=nonsense"])
async def test_who_stays_unknown_has_to_go(
    site: Site, alice: Actor, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a minute, here less; the clients of arvados-ws come back by themselves."""
    monkeypatch.setattr(v0, "UNKNOWN_SECONDS", 0.5)
    async with own(site) as (base, services):
        async with (
            v0_client(f"{base}/websocket", alice.token) as known,
            connect_raw(f"{base}/websocket{query}") as unknown,
        ):
            assert await code_of(unknown) == CloseCode.AUTH_TIMEOUT
            await known.subscribe()
        await until_equal(lambda: len(services.transport.tally.unknown), 0)


async def hang_up(scope: Any, receive: Any, send: Any) -> None:
    """An application with a long answer at `/long`, and a short one elsewhere."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(1000 if scope["path"] == "/long" else 0):
        await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
    await send({"type": "http.response.body", "body": b"x"})


@contextlib.asynccontextmanager
async def served(app: Any = hang_up, **options: Any) -> AsyncIterator[int]:
    """An application behind the door; its port."""
    sock = http_server.listen("127.0.0.1:0")
    port = sock.getsockname()[1]
    async with background(http_server.serve(app, sock, **options)):
        yield port


HALVES = {
    "nothing": b"",
    "a word": b"GET",
    "half a head": b"GET / HTTP/1.1\r\nHost: x\r\nX: ",
    "half a body": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx",
    "a second half": b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT",
    "a whole one, and silence": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("half", HALVES)
async def test_a_request_comes_in_time(half: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds, here less; then the connection is dropped."""
    monkeypatch.setattr(door, "HEAD_SECONDS", 0.3)
    async with served(timeout_keep_alive=3600) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HALVES[half])
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(WITHIN):
                await reader.read()
        writer.close()


@pytest.fixture(scope="module")
async def port() -> AsyncIterator[int]:
    """One server for many examples."""
    async with served() as port:
        yield port


_lines = st.one_of(
    st.binary(max_size=80),
    st.sampled_from(
        [
            b"GET / HTTP/1.1\r\n",
            b"Host: x\r\n",
            b"\r\n",
            b"Content-Length: 99999999999999999999\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"fffffffffffffff\r\n",
            b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n",
            b"X: " + b"y" * 20_000 + b"\r\n",
        ]
    ),
)


@pytest.mark.timeout(300)
@settings(max_examples=EXAMPLES)
@given(pieces=st.lists(_lines, max_size=12))
async def test_any_bytes_for_a_request_end_at_most_their_own_connection(
    port: int, pieces: list[bytes]
) -> None:
    """Whatever they are, they are answered or dropped, and the next request is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(ConnectionError):
        writer.write(b"".join(pieces))
        writer.write_eof()
        async with asyncio.timeout(WITHIN):
            await reader.read()
    writer.close()
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"http://127.0.0.1:{port}/")).status_code == 200


async def test_half_sent_requests_have_few_places() -> None:
    """The one that has waited longest makes room; who sends a whole request does not notice."""
    async with served(http=door.Doors(5).open) as port:
        lines = [await asyncio.open_connection("127.0.0.1", port) for _ in range(8)]
        for _, writer in lines:
            writer.write(b"GET / HTTP/1.1\r\n")
        for reader, _ in lines[:3]:
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(WITHIN):
                    assert await reader.read() == b""
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"http://127.0.0.1:{port}/")).status_code == 200
        for _, writer in lines:
            writer.close()


async def test_a_flood_of_half_requests_leaves_others_their_places() -> None:
    """Who floods loses their own first; another address has all its time."""
    async with served(http=door.Doors(5).open) as port:
        slow, other = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
        other.write(b"GET / HTTP/1.1\r\n")
        flood = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        for reader, _ in flood[:15]:
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(WITHIN):
                    assert await reader.read() == b""
        other.write(b"Host: x\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(WITHIN):
            assert (await slow.read()).startswith(b"HTTP/1.1 200")
        for writer in (other, *(writer for _, writer in flood)):
            writer.close()


async def test_a_flood_of_requests_leaves_others_their_answers() -> None:
    """Connections that are being answered have places, too: a flood loses its own."""
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        asked.set()
        await answer.wait()
        await hang_up(scope, receive, send)

    async with served(slow, http=door.Doors(answering=5).open) as port:
        request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        mine, other = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
        other.write(request)
        await asyncio.wait_for(asked.wait(), WITHIN)
        flood = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        for _, writer in flood:
            writer.write(request)
        async with asyncio.timeout(WITHIN):
            dropped = 0
            for reading in asyncio.as_completed([reader.read() for reader, _ in flood]):
                with contextlib.suppress(ConnectionError):
                    assert await reading == b""
                dropped += 1
                if dropped == 16:
                    answer.set()
                    break
            assert (await mine.read()).startswith(b"HTTP/1.1 200")
        for writer in (other, *(writer for _, writer in flood)):
            writer.close()


async def test_a_long_answer_that_is_taken_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part has a time of its own, as long as the peer takes them."""
    monkeypatch.setattr(door, "ANSWER_SECONDS", 0.5)

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(12):
            await asyncio.sleep(0.1)
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            door.goes_on()
        await send({"type": "http.response.body", "body": b""})

    async with served(slow) as port, httpx.AsyncClient(timeout=WITHIN) as http:
        assert (await http.get(f"http://127.0.0.1:{port}/")).text == "x" * 12


async def test_an_answer_is_read_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that does not take it is dropped, with what waits for it."""
    monkeypatch.setattr(door, "ANSWER_SECONDS", 0.3)
    async with served() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
        taken = 0
        await asyncio.sleep(0.6)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(WITHIN):
                while data := await reader.read(65536):
                    taken += len(data)
        assert taken < 1000 * 65536
        writer.close()


async def test_a_log_that_is_followed_has_its_own_time(
    site: Site, alice: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the door's nor that for a token; so has a WebSocket."""
    for name in ("HEAD_SECONDS", "ANSWER_SECONDS"):
        monkeypatch.setattr(door, name, 0.2)
    monkeypatch.setattr(sse, "UNKNOWN_SECONDS", 0.2)
    monkeypatch.setattr(sse, "HEARTBEAT_SECONDS", 0.0)
    request = await site.cluster.container_request("followed", owner=alice)
    url = f"/arvados/v1/container_requests/{request.uuid}/log_events"
    headers = {"Authorization": f"Bearer {alice.token}"}
    async with own(site) as (base, _):
        async with (
            clients.connected(base, alice) as client,
            httpx.AsyncClient(base_url=base.replace("ws", "http", 1), timeout=WITHIN) as http,
            http.stream("GET", url, headers=headers) as answer,
        ):
            beats = 0
            async for line in answer.aiter_lines():
                beats += line.startswith(":")
                if beats == 3:
                    break
            await client.authenticate(alice)
