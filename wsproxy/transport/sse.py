# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The wire of server-sent events: the body of one HTTP response that ends when we say so.

What gathers while the peer is slow leaves in one piece; the server's `send` waits for room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from wsproxy.transport.frames import Message
from wsproxy.transport.incoming import Send
from wsproxy.transport.send_buffer import HIGH_WATER, SendBuffer


class SseWire:
    """To a `SendBuffer`, a `Wire`. Nothing is sent before `begin`; `ended` is called at its end."""

    def __init__(self, send: Send, ended: Callable[[], None]) -> None:
        self._send = send
        self._ended = ended
        self._waiting: list[bytes] = []
        self._begun = False
        self._task: asyncio.Task[None] | None = None
        self._send_buffer: SendBuffer | None = None
        self.unsent = 0
        """Bytes that the server has not taken yet."""

    def attach(self, send_buffer: SendBuffer) -> None:
        """Tell `send_buffer` when the wire is full and when it has room."""
        self._send_buffer = send_buffer

    async def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the head of the response, and from now on what is written."""
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        self._begun = True
        self._work()

    async def finish(self) -> None:
        """Send all that was written, and the end of the response."""
        if self._send_buffer:
            self._send_buffer.flush()
        while self._task is not None:
            await asyncio.wait((self._task,))
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def encode(self, message: Message) -> bytes:
        return message.sse

    def write(self, pieces: Sequence[bytes]) -> None:
        self._waiting.extend(pieces)
        self.unsent += sum(map(len, pieces))
        if self.unsent > HIGH_WATER and self._send_buffer:
            self._send_buffer.paused()
        self._work()

    def close(self, code: int, reason: str) -> None:
        self._ended()

    def abort(self) -> None:
        self._waiting.clear()
        self._ended()
        if self._task:
            self._task.cancel()

    def _work(self) -> None:
        if self._begun and self._waiting and self._task is None:
            self._task = asyncio.create_task(self._sending(), name="sse wire")

    async def _sending(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                body = b"".join(waiting)
                await self._send({"type": "http.response.body", "body": body, "more_body": True})
                self.unsent -= len(body)
                if self.unsent < HIGH_WATER // 4 and self._send_buffer:
                    self._send_buffer.resumed()
        except OSError:  # ASGI: the peer is gone
            self._waiting.clear()
            self._ended()
        finally:
            self._task = None
