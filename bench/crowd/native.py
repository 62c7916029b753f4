# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A NATS client that costs next to nothing: it logs in, subscribes, and keeps what comes.

The wire protocol by hand, as `sockets` does for WebSockets, and for the same reason.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import cast

from bench.crowd.frame import Frame, Kind

_OK = b"PONG\r\n"
_LINE = b"\r\n"


def login(token: str, subjects: Sequence[str] = ()) -> bytes:
    """What a client sends to log in with a token and subscribe."""
    options = {
        "auth_token": token,
        "verbose": False,
        "pedantic": False,
        "lang": "bench",
        "version": "1",
        "protocol": 1,
        "headers": True,
        "no_responders": True,
    }
    lines = [f"CONNECT {json.dumps(options)}"]
    lines += [f"SUB {subject} {number}" for number, subject in enumerate(subjects, 1)]
    return "\r\n".join([*lines, "PING", ""]).encode()


class Native(asyncio.Protocol):
    """One client; its connection may end and be made again."""

    __slots__ = ("_hear", "_number", "_open", "closed_at", "hello", "rest", "tail", "transport")

    def __init__(
        self, hear: Callable[[float, int, bytes], None], number: int, hello: bytes
    ) -> None:
        self._hear = hear
        self._number = number
        self._open: asyncio.Future[None] | None = None
        self.hello = hello
        self.rest = b""
        self.tail = b""
        self.closed_at = 0.0
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._open = asyncio.get_running_loop().create_future()
        self.closed_at, self.rest = 0.0, b""

    async def opened(self) -> None:
        """Return when the server let us in; ConnectionError when it did not."""
        assert self._open
        await self._open
        self._open = None

    def data_received(self, data: bytes) -> None:
        if self._open is None or self._open.done():
            self._hear(time.monotonic(), self._number, data)
            return
        first = not self.rest
        self.rest += data
        if first and self.rest.startswith(b"INFO"):
            self.transport.write(self.hello)
        _, found, rest = self.rest.partition(_OK)
        if found:
            self.rest = b""
            self._open.set_result(None)
            if rest:
                self._hear(time.monotonic(), self._number, rest)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed_at = self.closed_at or time.monotonic()
        if self._open and not self._open.done():
            self._open.set_exception(ConnectionError(self.rest[-100:].decode()))
        self.rest = b""

    def answer(self, frame: Frame, data: bytes) -> None:
        """Answer a ping."""
        self.transport.write(_OK)

    @staticmethod
    def frame(data: bytes, position: int) -> Frame | None:
        """The operation at `position`; None if it is not whole."""
        end = data.find(_LINE, position)
        if end < 0:
            return None
        after = end + 2
        if data.startswith((b"MSG ", b"HMSG "), position):
            size = int(data[data.rfind(b" ", position, end) + 1 : end])
            after += size + 2
            return Frame(Kind.TEXT, position, after, after) if after <= len(data) else None
        kind = Kind.PING if data.startswith(b"PING", position) else Kind.OTHER
        return Frame(kind, position, end, after)
