# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The same application on a server that has no direct way to its transports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from arvados_nats.service import http_server
from tests.support.worlds.site import background
from wsproxy.transport.frames import Message
from wsproxy.transport.incoming import Incoming
from wsproxy.transport.limits import Pace
from wsproxy.transport.send_buffer import HIGH_WATER, SendBuffer, SendBuffers


@asynccontextmanager
async def served(talk: Any) -> AsyncIterator[tuple[str, SendBuffers]]:
    """`talk(incoming, send_buffer)` on uvicorn's own WebSocket protocol; its URL."""
    send_buffers = SendBuffers()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        incoming = Incoming(scope, receive, send, send_buffers)
        assert incoming.socket is None
        await incoming.connected()
        if incoming.path == "/refused":
            await incoming.refuse(418, "no tea\n")
            return
        chosen = incoming.subprotocols[0] if incoming.subprotocols else None
        send_buffer = await incoming.accept(Pace(1000.0, 1000), subprotocol=chosen)
        try:
            await talk(incoming, send_buffer)
        finally:
            send_buffer.gone()

    sock = http_server.listen("127.0.0.1:0")
    port = sock.getsockname()[1]
    async with background(http_server.serve(app, sock, ws="websockets-sansio")):
        yield f"ws://127.0.0.1:{port}", send_buffers


async def echo(incoming: Incoming, send_buffer: SendBuffer) -> None:
    """Everything back, three times."""
    while (data := await incoming.receive()) is not None:
        text = data if isinstance(data, bytes) else data.encode()
        for _ in range(3):
            send_buffer.write(Message(text))


async def received(socket: ClientConnection, count: int) -> list[str]:
    async with asyncio.timeout(10):
        return [str(await socket.recv()) for _ in range(count)]


async def test_messages_go_out_in_order() -> None:
    """Whatever was coalesced is single messages again."""
    async with served(echo) as (url, _), connect(f"{url}/?a=b") as socket:
        for number in range(20):
            await socket.send(f"message {number}")
        wanted = [f"message {number}" for number in range(20) for _ in range(3)]
        assert await received(socket, 60) == wanted


async def test_what_was_asked_for_is_at_hand() -> None:
    """Path, query, headers, subprotocols."""
    asked: dict[str, Any] = {}

    async def look(incoming: Incoming, send_buffer: SendBuffer) -> None:
        asked.update(query=incoming.query, tea=incoming.subprotocols, path=incoming.path)
        asked.update(kind=incoming.header("x-kind"), none=incoming.header("x-none"))
        send_buffer.write(Message(b"{}"))
        await incoming.receive()

    async with served(look) as (url, _):
        headers = {"X-Kind": "green"}
        async with connect(
            f"{url}/pot?api_token=a%2Fb&c=",
            subprotocols=[Subprotocol("tea")],
            additional_headers=headers,
        ) as socket:
            assert await received(socket, 1) == ["{}"]
            assert socket.subprotocol == "tea"
    assert asked == {
        "query": {"api_token": "a/b", "c": ""},
        "tea": ["tea"],
        "path": "/pot",
        "kind": "green",
        "none": None,
    }


async def test_close_follows_what_was_written() -> None:
    """With its code and reason."""

    async def say_goodbye(incoming: Incoming, send_buffer: SendBuffer) -> None:
        await incoming.receive()
        for text in (b"1", b"2", b"3"):
            send_buffer.write(Message(text))
        send_buffer.close(4000, "bye")
        while await incoming.receive() is not None:
            pass

    async with served(say_goodbye) as (url, _), connect(f"{url}/") as socket:
        await socket.send("go")
        assert await received(socket, 3) == ["1", "2", "3"]
        with pytest.raises(ConnectionClosed):
            await received(socket, 1)
        assert (socket.close_code, socket.close_reason) == (4000, "bye")


async def test_a_reader_that_does_not_read_is_behind() -> None:
    """Until it reads."""
    states: list[bool] = []
    full = asyncio.Event()

    async def flood(incoming: Incoming, send_buffer: SendBuffer) -> None:
        await incoming.receive()
        block = Message(b"x" * 10_000)
        while not send_buffer.lagging:
            send_buffer.write(block)
            await asyncio.sleep(0)
        states.append(send_buffer.lagging)
        assert send_buffer.pending > HIGH_WATER
        full.set()
        await send_buffer.writable()
        states.append(send_buffer.lagging)
        send_buffer.write(Message(b"end"))
        await incoming.receive()

    async with (
        served(flood) as (url, send_buffers),
        connect(f"{url}/", compression=None, max_queue=1) as socket,
    ):
        await socket.send("go")
        await asyncio.wait_for(full.wait(), 10)
        assert len(send_buffers) == 1
        async with asyncio.timeout(10):
            while await socket.recv() != "end":
                pass
        assert states == [True, False]


async def test_refusal_is_an_http_answer() -> None:
    """Status and text."""
    async with served(echo) as (url, _):
        with pytest.raises(InvalidStatus) as refused:
            async with connect(f"{url}/refused"):
                pass
    assert refused.value.response.status_code == 418
    assert refused.value.response.body == b"no tea\n"


async def test_a_peer_that_vanishes_ends_the_send_buffer() -> None:
    """Whoever waits for room is woken."""
    ended = asyncio.Event()

    async def wait(incoming: Incoming, send_buffer: SendBuffer) -> None:
        while not send_buffer.closed:
            send_buffer.write(Message(b"x" * 10_000))
            await send_buffer.writable()
            await asyncio.sleep(0)
        ended.set()

    async with served(wait) as (url, _):
        async with connect(f"{url}/") as socket:
            await socket.recv()
            socket.transport.abort()
            await asyncio.wait_for(ended.wait(), 10)
