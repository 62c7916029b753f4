# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Frames of any kind, number and order: RFC 6455 is kept to, and no peer keeps another waiting."""

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
from tests.support.clients import raw_socket as raw
from tests.support.clients.raw_socket import close, frame, more, ping, text
from tests.support.worlds.proxy import until_equal
from tests.support.worlds.site import background
from wsproxy.main import SERVER_OPTIONS
from wsproxy.transport.fragments import MAX_FRAGMENTS
from wsproxy.transport.frames import Message
from wsproxy.transport.inbound import SLICE_BYTES
from wsproxy.transport.incoming import Incoming
from wsproxy.transport.limits import Limits, Pace
from wsproxy.transport.send_buffer import HIGH_WATER, SendBuffers
from wsproxy.transport.websocket import Socket

EXAMPLES = int(os.environ.get("ARVADOS_NATS_FUZZ_EXAMPLES", "40"))
FAST = Limits(commands_per_second=1e6, command_burst=10**6)
NUMBERS = range(10)


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


ECHOED = {
    "empty text": (text(""), [b""]),
    "text of 125 and 126 bytes": (text("x" * 125) + text("y" * 126), [b"x" * 125, b"y" * 126]),
    "text of 64 KiB": (text("x" * 65536), [b"x" * 65536]),
    "two fragments": (text("a", fin=False) + more(b"b"), [b"ab"]),
    "empty fragments": (text("", fin=False) + more(fin=False) + more(), [b""]),
    "most fragments": (
        text("", fin=False) + more(b"x", fin=False) * (MAX_FRAGMENTS - 2) + more(b"y"),
        [b"x" * (MAX_FRAGMENTS - 2) + b"y"],
    ),
    "a character in two fragments": (text(b"\xe2\x82", fin=False) + more(b"\xac"), ["€".encode()]),
    "binary": (frame(Opcode.BINARY, b"\xff\x00"), [b"\xff\x00"]),
    "pongs that nobody asked for": (frame(Opcode.PONG, b"x") * 3 + text("a"), [b"a"]),
    "last character of Unicode": (text("\U0010ffff"), ["\U0010ffff".encode()]),
    "no character": (text("\ufffe\uffff"), ["\ufffe\uffff".encode()]),
}


@pytest.mark.parametrize("case", ECHOED)
async def test_frames_that_rfc_6455_allows(server: Echo, case: str) -> None:
    """Each arrives as it was sent, in whatever pieces."""
    data, wanted = ECHOED[case]
    async with raw.opened(server.url) as peer:
        await peer.send(data)
        assert [bytes((await peer.frame()).data) for _ in wanted] == wanted
        await peer.send(code(1000, b"bye"))
        assert await peer.close_code() == 1000


async def test_pings_between_fragments_are_answered_and_part_nothing(server: Echo) -> None:
    """RFC 6455 5.4: control frames may stand in the middle of a message."""
    async with raw.opened(server.url) as peer:
        await peer.send(text("a", fin=False) + ping(b"1") + more(b"b", fin=False) + ping(b"2"))
        assert [bytes((await peer.frame()).data) for _ in "12"] == [b"1", b"2"]
        await peer.send(more(b"c"))
        assert bytes((await peer.frame()).data) == b"abc"


REFUSED = {
    **{f"reserved bits {rsv}": (frame(Opcode.TEXT, b"x", rsv=rsv), 1002) for rsv in range(1, 8)},
    **{f"opcode {op}": (frame(op, b"x"), 1002) for op in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "a ping of 126 bytes": (ping(b"x" * 126), 1002),
    "a close of 126 bytes": (code(1000, b"x" * 124), 1002),
    "a ping in fragments": (frame(Opcode.PING, b"x", fin=False), 1002),
    "a close in fragments": (frame(Opcode.CLOSE, fin=False), 1002),
    "no mask": (b"\x81\x01x", 1002),
    "the end of nothing": (more(b"x"), 1002),
    "the middle of nothing": (more(b"x", fin=False), 1002),
    "a beginning in the middle": (text("a", fin=False) + text("b"), 1002),
    "another end": (text("a", fin=False) + more(b"b") + more(b"c"), 1002),
    "a close in the middle": (text("a", fin=False) + code(1000), 1002),
    "a close of one byte": (close(b"\x03"), 1002),
    "a reason that is no UTF-8": (code(1000, b"\xc3\x28"), 1007),
    "half a character": (text(b"\xc3"), 1007),
    "a surrogate": (text(b"\xed\xa0\x80"), 1007),
    "more than Unicode has": (text(b"\xf4\x90\x80\x80"), 1007),
    "an overlong character": (text(b"\xc0\xaf"), 1007),
    "bad UTF-8 over fragments": (text(b"\xc3", fin=False) + more(b"\x28"), 1007),
    "a length of 2**63": (b"\x81\xff" + (2**63).to_bytes(8, "big") + b"mask", 1009),
    "a length over the limit": (b"\x81\xff" + (65537).to_bytes(8, "big") + b"mask", 1009),
    "fragments over the limit": (text("x" * 40_000, fin=False) + more(b"x" * 30_000), 1009),
    "a fragment too many": (text("", fin=False) + more(fin=False) * MAX_FRAGMENTS, 1008),
    **{f"close code {n}": (code(n), 1002) for n in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000)},
}


@pytest.mark.parametrize("case", REFUSED)
async def test_frames_that_rfc_6455_or_a_bound_forbids(server: Echo, case: str) -> None:
    """The connection is closed with the code for it, and another goes on."""
    data, wanted = REFUSED[case]
    async with connect(server.url) as other, raw.opened(server.url) as peer:
        await peer.send(data)
        assert await peer.close_code() == wanted
        await other.send("still here")
        assert await other.recv() == "still here"


@pytest.mark.parametrize(
    "number", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999, None]
)
async def test_close_codes_are_echoed(server: Echo, number: int | None) -> None:
    """RFC 6455 7.4; a close without a code as well."""
    async with raw.opened(server.url) as peer:
        await peer.send(close() if number is None else code(number))
        assert await peer.close_code() == (number or 1005)


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
    """Most of it is still unread, and not even taken from the kernel, when others were answered."""
    async with echo(Limits()) as here, connect(here.url) as other:
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
            assert here.heard <= Limits().command_burst + SLICE_BYTES // 6 + len(NUMBERS)
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
