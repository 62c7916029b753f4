# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What `websocket` relies on in uvicorn and websockets, held on the wire."""

from __future__ import annotations

import asyncio
import logging
import socket as sockets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from arvados_nats.service import http_server
from tests.support.background import background
from wsproxy.main import SERVER_OPTIONS
from wsproxy.transport.frames import Message
from wsproxy.transport.incoming import Incoming
from wsproxy.transport.kernel import UNSENT_BYTES, VANISHED_SECONDS
from wsproxy.transport.limits import Pace
from wsproxy.transport.send_buffer import HIGH_WATER, SendBuffer
from wsproxy.transport.send_buffers import SendBuffers
from wsproxy.transport.websocket import Socket
from wsproxy.v0.connection import MAX_MESSAGE

Talk = Callable[[Incoming, SendBuffer], Awaitable[None]]


@asynccontextmanager
async def served(talk: Talk, **options: Any) -> AsyncIterator[tuple[str, list[Incoming]]]:
    """`talk` on our protocol, with the options of `main`; its URL, and the connections so far."""
    send_buffers, seen = SendBuffers(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        incoming = Incoming(scope, send_buffers)
        seen.append(incoming)
        assert scope["query_string"] == b""
        send_buffer = incoming.accept(Pace(1000.0, 1000))
        try:
            await talk(incoming, send_buffer)
        finally:
            send_buffer.gone()

    sock = http_server.listen("127.0.0.1:0")
    port = sock.getsockname()[1]
    async with background(http_server.serve(app, sock, **SERVER_OPTIONS, **options)):
        yield f"ws://127.0.0.1:{port}", seen


async def echo(incoming: Incoming, send_buffer: SendBuffer) -> None:
    while (data := await incoming.receive()) is not None:
        send_buffer.write(Message(data if isinstance(data, bytes) else data.encode()))


def our(seen: list[Incoming]) -> Socket:
    (incoming,) = seen
    return incoming.socket


async def test_frames_go_past_asgi_and_come_whole() -> None:
    """Of every length form, also many in one write."""

    async def burst(incoming: Incoming, send_buffer: SendBuffer) -> None:
        await incoming.receive()
        for length in (0, 125, 126, 65535, 65536, 3):
            send_buffer.write(Message(b"x" * length))
        await incoming.receive()

    async with served(burst) as (url, _), connect(url) as client:
        await client.send("go")
        lengths = [len(await client.recv()) for _ in range(6)]
        assert lengths == [0, 125, 126, 65535, 65536, 3]


async def test_the_query_is_kept_from_everybody_but_the_application(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither uvicorn nor websockets can log it, at any level."""
    caplog.set_level(logging.DEBUG)
    async with (
        served(echo) as (url, seen),
        connect(f"{url}/websocket?api_token=se%20cret") as client,
    ):
        await client.send("hello")
        assert await client.recv() == "hello"
        assert seen[0].query == {"api_token": "se cret"}
        assert our(seen).conn.debug is False
    server_side = [r for r in caplog.records if not r.name.startswith("websockets.client")]
    assert not any("cret" in record.getMessage() for record in server_side)


async def test_no_extension_is_agreed_on_and_pings_are_answered() -> None:
    """Frames are shared, so nothing may depend on the connection."""
    async with served(echo) as (url, seen), connect(url) as client:
        assert client.protocol.extensions == []
        await asyncio.wait_for(await client.ping(), 60)
        heard = our(seen).heard_at
        our(seen).ping()
        async with asyncio.timeout(60):
            while our(seen).heard_at <= heard:  # noqa: ASYNC110  (the peer's pong)
                await asyncio.sleep(0.01)


async def test_too_long_a_message_closes_with_1009() -> None:
    """In one frame or in fragments."""
    for message in ("x" * (MAX_MESSAGE + 1), ["x" * (MAX_MESSAGE // 2)] * 3):
        async with served(echo) as (url, _), connect(url) as client:
            await client.send(message)
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == 1009


async def test_invalid_text_closes_with_1007_and_no_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whole or split over fragments."""
    for message in (b"\xc3\x28", [b"\xc3", b"\x28"]):
        async with served(echo) as (url, _), connect(url) as client:
            await client.send(message, text=True)
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == 1007
    assert not [record for record in caplog.records if record.exc_info]


async def test_failures_of_the_application_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """They are ours to mend."""

    async def fail(incoming: Incoming, send_buffer: SendBuffer) -> None:
        raise RuntimeError("a fault of ours")

    async with served(fail) as (url, _):
        with pytest.raises(ConnectionClosed):
            async with connect(url) as client:
                await client.recv()
    assert any(record.exc_info for record in caplog.records)


async def test_a_full_transport_pauses_the_send_buffer_and_room_resumes_it() -> None:
    """At our high-water mark."""
    paused = asyncio.Event()

    async def flood(incoming: Incoming, send_buffer: SendBuffer) -> None:
        await incoming.receive()
        while not send_buffer.lagging:
            send_buffer.write(Message(b"x" * 10_000))
            await asyncio.sleep(0)
        assert HIGH_WATER < send_buffer.pending < 2 * HIGH_WATER + 10_100
        paused.set()
        await send_buffer.writable()
        assert not send_buffer.lagging
        send_buffer.write(Message(b"end"))
        await incoming.receive()

    async with served(flood) as (url, _), connect(url, max_queue=1) as client:
        await client.send("go")
        await asyncio.wait_for(paused.wait(), 60)
        async with asyncio.timeout(60):
            while await client.recv() != "end":
                pass


async def test_close_does_not_wait_for_room_and_abort_for_nothing() -> None:
    """A peer that never reads cannot keep its connection."""
    ended = asyncio.Event()

    async def flood(incoming: Incoming, send_buffer: SendBuffer) -> None:
        await incoming.receive()
        while not send_buffer.lagging:
            send_buffer.write(Message(b"x" * 10_000))
            await asyncio.sleep(0)
        send_buffer.close(4008, "slow")
        assert await incoming.receive() is None
        send_buffer.abort()
        ended.set()

    async with served(flood) as (url, _), connect(url, max_queue=1, close_timeout=0.1) as client:
        await client.send("go")
        await asyncio.wait_for(ended.wait(), 60)


async def test_the_close_handshake_carries_code_and_reason_both_ways() -> None:
    """And everything written before it."""

    async def goodbye(incoming: Incoming, send_buffer: SendBuffer) -> None:
        await incoming.receive()
        send_buffer.write(Message(b"last words"))
        send_buffer.close(4000, "bye")
        send_buffer.write(Message(b"too late"))
        while await incoming.receive() is not None:
            pass

    async with served(goodbye) as (url, _), connect(url) as client:
        await client.send("go")
        assert await client.recv() == "last words"
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert (client.close_code, client.close_reason) == (4000, "bye")


async def test_what_the_transport_holds_back_goes_first() -> None:
    """Frames go past the transport only while it holds nothing."""
    full = asyncio.Event()

    async def flood(incoming: Incoming, send_buffer: SendBuffer) -> None:
        number = 0
        await incoming.receive()
        while not send_buffer.lagging:
            send_buffer.write(Message(b"%d " % number + b"x" * 10_000))
            number += 1
            await asyncio.sleep(0)
        full.set()
        for _ in range(300):
            send_buffer.write(Message(b"%d " % number))
            number += 1
            await asyncio.sleep(0.001)
        send_buffer.write(Message(b"%d end" % number))
        await incoming.receive()

    async with served(flood) as (url, _), connect(url, max_queue=1) as client:
        await client.send("go")
        await asyncio.wait_for(full.wait(), 60)
        numbers = []
        async with asyncio.timeout(60):
            while True:
                number, _, rest = str(await client.recv()).partition(" ")
                numbers.append(int(number))
                if rest == "end":
                    break
        assert numbers == list(range(len(numbers)))


async def test_nothing_is_written_to_a_connection_that_was_dropped() -> None:
    """Its number may be another connection's by then."""
    checked = asyncio.Event()

    async def drop(incoming: Incoming, send_buffer: SendBuffer) -> None:
        await incoming.receive()
        wire = send_buffer.wire
        wire.abort()
        here, there = sockets.socketpair()
        with here, there:
            there.setblocking(False)
            wire.write([Message(b"secret").frame])
            for sock in (here, there):
                with pytest.raises(BlockingIOError):
                    sock.recv(1, sockets.MSG_DONTWAIT)
        checked.set()

    async with served(drop) as (url, _), connect(url) as client:
        await client.send("go")
        await asyncio.wait_for(checked.wait(), 60)


async def test_vanished_machines_are_the_kernels_business() -> None:
    """The options are set on every connection, where the system has them."""
    async with served(echo) as (url, seen), connect(url) as client:
        await client.send("hello")
        await client.recv()
        sock = our(seen).transport.get_extra_info("socket")
        option = getattr(sockets, "TCP_USER_TIMEOUT", None)
        if option is not None:
            assert sock.getsockopt(sockets.IPPROTO_TCP, option) == VANISHED_SECONDS * 1000
        option = getattr(sockets, "TCP_NOTSENT_LOWAT", None)
        if option is not None:
            assert sock.getsockopt(sockets.IPPROTO_TCP, option) == UNSENT_BYTES


async def test_the_handshake_is_not_kept() -> None:
    """Ten thousand connections would keep ten thousand sets of headers."""
    async with served(echo) as (url, seen), connect(url) as client:
        await client.send("hello")
        await client.recv()
        assert seen[0].header("host") is None
        kept = vars(our(seen)).values()
        assert not any(isinstance(value, Request | Response) for value in kept)
