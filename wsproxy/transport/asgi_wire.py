# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The wire of last resort: any ASGI server's `send`, where `websocket_protocol` is not in use.

One sending task per connection, alive only while there is something to send. It counts as full when
more than the high-water mark waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from wsproxy.transport.frames import Message
from wsproxy.transport.send_buffer import HIGH_WATER, SendBuffer

Send = Callable[[dict[str, Any]], Awaitable[None]]


class AsgiWire:
    """To a `SendBuffer`, a `Wire`."""

    joins = False

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: deque[bytes] = deque()
        self._goodbye: dict[str, Any] | None = None
        self._task: asyncio.Task[None] | None = None
        self._send_buffer: SendBuffer | None = None
        self.unsent = 0
        """Bytes that `send` has not returned from yet."""

    def attach(self, send_buffer: SendBuffer) -> None:
        """Tell `send_buffer` when the wire is full and when it has room."""
        self._send_buffer = send_buffer

    def encode(self, message: Message) -> bytes:
        return message.text

    def write(self, pieces: Sequence[bytes]) -> None:
        self._waiting.extend(pieces)
        self.unsent += sum(map(len, pieces))
        if self.unsent > HIGH_WATER and self._send_buffer:
            self._send_buffer.paused()
        self._work()

    def close(self, code: int, reason: str) -> None:
        self._goodbye = {"type": "websocket.close", "code": code, "reason": reason}
        self._work()

    def abort(self) -> None:
        self._waiting.clear()
        if self._task:
            self._task.cancel()

    def _work(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._sending(), name="asgi wire")

    async def _sending(self) -> None:
        try:
            while self._waiting:
                piece = self._waiting.popleft()
                await self._send({"type": "websocket.send", "text": piece.decode()})
                self.unsent -= len(piece)
                if self.unsent < HIGH_WATER // 4 and self._send_buffer:
                    self._send_buffer.resumed()
            if self._goodbye:
                await self._send(self._goodbye)
        except OSError:  # ASGI: the peer is gone
            self._waiting.clear()
            self.unsent = 0
            if self._send_buffer:
                self._send_buffer.gone()
        finally:
            self._task = None
