# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Frames of any kind, number and order: none keeps another peer waiting, nor stops the server."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.frames import Opcode

from arvados_nats.service import http_server
from tests.support.background import background
from tests.support.clients import raw_socket as raw
from tests.support.clients.raw_socket import close, frame, more, ping, text
from tests.support.worlds.proxy import until_equal
from wsproxy.main import SERVER_OPTIONS
from wsproxy.transport.fragments import MAX_FRAGMENTS
from wsproxy.transport.frames import Message
from wsproxy.transport.inbound import SLICE_BYTES
from wsproxy.transport.incoming import Incoming
from wsproxy.transport.limits import Limits, Pace
from wsproxy.transport.send_buffer import HIGH_WATER
from wsproxy.transport.send_buffers import SendBuffers
from wsproxy.transport.websocket import Socket

EXAMPLES = int(os.environ.get("ARVADOS_NATS_FUZZ_EXAMPLES", "40"))
FAST = Limits(commands_per_second=1e6, command_burst=10**6)
NUMBERS = range(100)


@dataclass
class Echo:
    """A server that says what it hears, and what it has heard."""

    url: str
    sockets: list[Socket] = field(default_factory=list)
    heard: int = 0


@asynccontextmanager
async def echo(limits: Limits = FAST) -> AsyncIterator[Echo]:
    """Our protocol under an application that echoes."""
    send_buffers = SendBuffers()
    sock = http_server.listen("127.0.0.1:0")
    here = Echo(f"ws://127.0.0.1:{sock.getsockname()[1]}/")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        incoming = Incoming(scope, send_buffers)
        here.sockets.append(incoming.socket)
        send_buffer = incoming.accept(limits.pace)
        while (data := await incoming.receive()) is not None:
            here.heard += 1
            send_buffer.write(Message(data if isinstance(data, bytes) else data.encode()))
            await send_buffer.writable()
        send_buffer.gone()

    async with background(http_server.serve(app, sock, **SERVER_OPTIONS)):
        yield here


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Echo]:
    async with echo() as here:
        yield here


def code(number: int, reason: bytes = b"") -> bytes:
    return close(number.to_bytes(2, "big") + reason)


_pieces = st.one_of(
    st.text(max_size=200).map(text),
    st.binary(max_size=200).map(lambda data: frame(Opcode.BINARY, data)),
    st.builds(
        frame,
        st.integers(0, 15),
        st.binary(max_size=130),
        fin=st.booleans(),
        rsv=st.integers(0, 7),
    ),
    st.binary(max_size=60),
)


@pytest.mark.timeout(300)
@settings(max_examples=EXAMPLES)
@given(pieces=st.lists(_pieces, max_size=12), cuts=st.lists(st.integers(1, 400), max_size=6))
async def test_any_bytes_end_at_most_their_own_connection(
    server: Echo, pieces: list[bytes], cuts: list[int]
) -> None:
    """In any portions; what closes it is one of the codes that RFC 6455 has for it."""
    data = b"".join(pieces)
    async with raw.opened(server.url) as peer:
        for cut in cuts:
            await peer.send(data[:cut])
            data = data[cut:]
        await peer.send(data)
        peer.writer.write_eof()
        assert await peer.close_code() in {None, 1000, 1002, 1005, 1007, 1008, 1009} | set(
            range(1000, 5000)
        )
    async with raw.opened(server.url) as peer:
        await peer.send(text("next"))
        assert bytes((await peer.frame()).data) == b"next"


@pytest.mark.timeout(300)
@settings(max_examples=EXAMPLES)
@given(
    message=st.text(min_size=1, max_size=3000),
    cuts=st.lists(st.integers(0, 6000), max_size=MAX_FRAGMENTS - 1),
    segments=st.lists(st.integers(1, 3000), max_size=8),
)
async def test_a_text_in_any_fragments_arrives_as_it_is(
    server: Echo, message: str, cuts: list[int], segments: list[int]
) -> None:
    """With a ping before each, in any portions."""
    data = message.encode()
    borders = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = [data[a:b] for a, b in itertools.pairwise(borders)]
    frames = [
        ping() + frame(Opcode.CONT if i else Opcode.TEXT, part, fin=i == len(parts) - 1)
        for i, part in enumerate(parts)
    ]
    sent = b"".join(frames)
    async with raw.opened(server.url) as peer:
        for segment in segments:
            await peer.send(sent[:segment])
            sent = sent[segment:]
        await peer.send(sent)
        got = await peer.frame()
        while got.opcode is Opcode.PONG:
            got = await peer.frame()
        assert bytes(got.data) == data


FLOODS = {
    "fragments": text("", fin=False) + more(fin=False) * 100_000,
    "messages": text("x") * 100_000,
    "pings": ping() * 100_000,
    "pongs": frame(Opcode.PONG) * 100_000,
    "long messages": text("x" * 60_000) * 20,
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_of_frames_waits_and_others_do_not(flood: str) -> None:
    """Most of it is still unread, and not even taken from the kernel, when others were answered,
    of a pace that gives nothing anew meanwhile."""
    limits = Limits(commands_per_second=1e-3)
    async with echo(limits) as here, connect(here.url) as other:
        async with raw.opened(here.url) as peer:
            sending = asyncio.create_task(peer.send(FLOODS[flood]))
            attacker = here.sockets[1]
            await until_equal(
                lambda: attacker.inbound.paused or attacker.transport.is_closing(), True
            )
            for number in NUMBERS:
                await other.send(str(number))
                assert await other.recv() == str(number)
            if flood == "fragments":
                assert await peer.close_code() == 1008
            assert here.heard <= limits.command_burst + SLICE_BYTES // 6 + len(NUMBERS)
            sending.cancel()


async def test_a_peer_that_does_not_read_is_kept_one_pong_for(server: Echo) -> None:
    """The newest: the others it will never miss (RFC 6455 5.5.3)."""
    async with raw.opened(server.url, receive_buffer=4096) as peer:
        socket = server.sockets[-1]
        for number in range(40):
            await peer.send(b"".join(ping(b"%d" % n + b"x" * 100) for n in range(1000)))
            assert socket.unsent <= HIGH_WATER + 127, number
        await peer.send(ping(b"newest"))
        pongs = [await peer.frame()]
        while pongs[-1].data != b"newest":
            pongs.append(await peer.frame())
        assert len(pongs) < 40_000
        assert socket.unsent == 0


def test_a_pace_counts_frames_and_kibibytes() -> None:
    """A bucket: what is over its edge waits until there is room again."""
    pace = Pace(50.0, 200)
    assert pace.wait(1.0, 200) == 0
    assert pace.wait(1.0, 50) == 1.0
    assert pace.wait(2.0, 1) == pytest.approx(0.02)
