# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What RFC 6455 allows and forbids, by the sections of the Autobahn testsuite, which is not needed.

1 framing, 2 pings and pongs, 3 reserved bits, 4 opcodes, 5 fragments, 6 UTF-8, 7 closing, 9 limits,
10 the rest; 12 and 13 are about compression, which is off. Each case comes in one piece and in
small ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import connect
from websockets.frames import Opcode

from tests.hostile.sockets.test_frames import Echo, code, echo
from tests.support.clients import raw_socket as raw
from tests.support.clients.raw_socket import Raw, close, frame, more, ping, text
from wsproxy.transport.fragments import MAX_FRAGMENTS

MOST = 64 * 1024
LENGTHS = (0, 125, 126, 127, 128, MOST - 1, MOST)
PONG, TEXT = Opcode.PONG, Opcode.TEXT


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Echo]:
    async with echo() as here:
        yield here


def pong(data: bytes = b"") -> bytes:
    return frame(Opcode.PONG, data)


def binary(data: bytes, *, fin: bool = True) -> bytes:
    return frame(Opcode.BINARY, data, fin=fin)


def fragments(data: bytes, size: int) -> bytes:
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return text(parts[0], fin=False) + b"".join(
        more(part, fin=n == len(parts) - 1) for n, part in enumerate(parts) if n
    )


CHARACTERS = {
    "of two, three and four bytes": "Hellö-µ@ßöäüàá-κόσμε-€-\U0001f600",
    "the first of each length": "\0\x80\u0800\U00010000",
    "the last of each length": "\x7f\u07ff\uffff\U0010ffff",
    "beside the surrogates": "\ud7ff\ue000\ufffd",
    "no characters": "\ufffe\uffff\U0001fffe\U0010fffe",
}
ECHOED = {
    **{f"1.1 a text of {n} bytes": (text("x" * n), [(TEXT, b"x" * n)]) for n in LENGTHS},
    **{f"1.2 {n} bytes": (binary(b"\xfe" * n), [(TEXT, b"\xfe" * n)]) for n in LENGTHS},
    "2 a ping of nothing": (ping(), [(PONG, b"")]),
    "2 a ping of bytes": (ping(b"\x00\xff\xfe"), [(PONG, b"\x00\xff\xfe")]),
    "2 a ping of 125 bytes": (ping(b"\xfe" * 125), [(PONG, b"\xfe" * 125)]),
    "2 pongs that nobody asked for": (
        pong() + pong(b"x") + ping(b"y") + text("a"),
        [(PONG, b"y"), (TEXT, b"a")],
    ),
    "2 ten pings": (
        b"".join(ping(b"%d" % n) for n in range(10)),
        [(PONG, b"%d" % n) for n in range(10)],
    ),
    "5 two fragments": (fragments(b"ab", 1), [(TEXT, b"ab")]),
    "5 bytes in two fragments": (binary(b"\xff", fin=False) + more(b"\0"), [(TEXT, b"\xff\0")]),
    "5 empty fragments": (text("", fin=False) + more(fin=False) + more(), [(TEXT, b"")]),
    "5 most fragments": (fragments(b"x" * MAX_FRAGMENTS, 1), [(TEXT, b"x" * MAX_FRAGMENTS)]),
    "5 pings between fragments": (
        text("a", fin=False) + ping(b"1") + more(b"b", fin=False) + ping(b"2") + more(b"c"),
        [(PONG, b"1"), (PONG, b"2"), (TEXT, b"abc")],
    ),
    **{f"6 {name}": (text(c), [(TEXT, c.encode())]) for name, c in CHARACTERS.items()},
    **{
        f"6 {name}, in bytes": (fragments(c.encode(), 1), [(TEXT, c.encode())])
        for name, c in CHARACTERS.items()
    },
    "10 fragments of 1300 bytes": (fragments(b"*" * MOST, 1300), [(TEXT, b"*" * MOST)]),
}
PORTIONS = ("whole", "in portions")


async def send(peer: Raw, data: bytes, portions: str) -> None:
    """All of it, byte for byte where it is short."""
    size = len(data) if portions == "whole" else 1 if len(data) < 1000 else 997
    for at in range(0, len(data), size):
        await peer.send(data[at : at + size])
        await asyncio.sleep(0)


@pytest.mark.parametrize("portions", PORTIONS)
@pytest.mark.parametrize("case", ECHOED)
async def test_what_is_allowed(server: Echo, case: str, portions: str) -> None:
    """Each message arrives as it was sent, each ping is answered, and a close as well."""
    data, wanted = ECHOED[case]
    async with raw.opened(server.url) as peer:
        await send(peer, data, portions)
        got = [await peer.frame() for _ in wanted]
        assert [(one.opcode, bytes(one.data)) for one in got] == wanted
        await peer.send(code(1000, b"bye"))
        assert await peer.close_code() == 1000


RESERVED = {"a text": TEXT, "bytes": Opcode.BINARY, "a ping": Opcode.PING, "a pong": PONG}
INVALID = {
    "half a character": b"\xc3",
    "the end of one": b"\x80",
    "a surrogate": b"\xed\xa0\x80",
    "a pair of surrogates": b"\xed\xa0\x80\xed\xb0\x80",
    "more than Unicode has": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "six bytes": b"\xfc\x84\x80\x80\x80\x80",
    "overlong in two": b"\xc0\xaf",
    "overlong in three": b"\xe0\x80\xaf",
    "overlong in four": b"\xf0\x80\x80\xaf",
    "a byte that is never one": b"\xfe",
    "an end that is missing": b"\xce\xba\xe1\xbd a",
}
REFUSED = {
    "2 a ping of 126 bytes": (ping(b"x" * 126), 1002),
    **{
        f"3 reserved bits {rsv} of {name}": (frame(opcode, b"x", rsv=rsv), 1002)
        for rsv in range(1, 8)
        for name, opcode in RESERVED.items()
    },
    "3 reserved bits of a close": (frame(Opcode.CLOSE, b"\x03\xe8", rsv=7), 1002),
    "3 reserved bits after a message": (text("a") + frame(TEXT, b"x", rsv=2), 1002),
    **{f"4 opcode {op}": (frame(op, b"x"), 1002) for op in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    **{f"4 opcode {op} of nothing": (text("a") + frame(op) + ping(), 1002) for op in (3, 7, 11)},
    "4 no mask": (b"\x81\x01x", 1002),
    "5 a ping in fragments": (frame(Opcode.PING, b"x", fin=False) + more(b"y"), 1002),
    "5 a pong in fragments": (frame(Opcode.PONG, b"x", fin=False) + more(b"y"), 1002),
    "5 a close in fragments": (frame(Opcode.CLOSE, fin=False), 1002),
    "5 the end of nothing": (more(b"x") + text("a"), 1002),
    "5 the middle of nothing": (more(b"x", fin=False) + text("a"), 1002),
    "5 a beginning in the middle": (text("a", fin=False) + text("b"), 1002),
    "5 bytes in the middle": (text("a", fin=False) + binary(b"b"), 1002),
    "5 another end": (text("a", fin=False) + more(b"b") + more(b"c"), 1002),
    "5 a fragment too many": (text("", fin=False) + more(fin=False) * MAX_FRAGMENTS, 1008),
    **{f"6 {name}": (text(data), 1007) for name, data in INVALID.items()},
    "6 bad UTF-8 over fragments": (text(b"\xc3", fin=False) + more(b"\x28"), 1007),
    "7 a close in the middle": (text("a", fin=False) + code(1000), 1002),
    "7 a close of one byte": (close(b"\x03"), 1002),
    "7 a close of 126 bytes": (code(1000, b"x" * 124), 1002),
    "7 a reason that is no UTF-8": (code(1000, b"\xc3\x28"), 1007),
    **{
        f"7 close code {n}": (code(n), 1002)
        for n in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
    "9 a length of 2**63": (b"\x81\xff" + (2**63).to_bytes(8, "big") + b"mask", 1009),
    "9 a length over the limit": (b"\x81\xff" + (MOST + 1).to_bytes(8, "big") + b"mask", 1009),
    "9 fragments over the limit": (text("x" * 40_000, fin=False) + more(b"x" * 30_000), 1009),
}


@pytest.mark.parametrize("portions", PORTIONS)
@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_forbidden(server: Echo, case: str, portions: str) -> None:
    """The connection is closed with the code for it, and another goes on."""
    data, wanted = REFUSED[case]
    async with connect(server.url) as other, raw.opened(server.url) as peer:
        await send(peer, data, portions)
        assert await peer.close_code() == wanted
        await other.send("still here")
        assert await other.recv() == "still here"


CLOSES = [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999, None]


@pytest.mark.parametrize("number", CLOSES)
async def test_close_codes_are_echoed(server: Echo, number: int | None) -> None:
    """RFC 6455 7.4, with a reason as long as may be; a close without a code as well."""
    async with raw.opened(server.url) as peer:
        await peer.send(close() if number is None else code(number, b"x" * 123))
        assert await peer.close_code() == (number or 1005)


@pytest.mark.parametrize("behind", [code(1000), ping(b"x"), text("a"), more(b"x"), b"\xff" * 40])
async def test_behind_a_close_nothing_is_heard(server: Echo, behind: bytes) -> None:
    """Whatever it is: the close alone is answered (RFC 6455 5.5.1)."""
    async with raw.opened(server.url) as peer:
        heard = server.heard
        await peer.send(code(1000) + behind)
        assert [one.opcode for one in await peer.rest()] == [Opcode.CLOSE]
        assert server.heard == heard
