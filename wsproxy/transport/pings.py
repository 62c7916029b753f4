# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Pings of WebSocket, for protocols that have no word of their own to find a vanished peer."""

from __future__ import annotations

from wsproxy import metrics
from wsproxy.transport.send_buffer import SendBuffer
from wsproxy.transport.websocket import Socket

_PING_SECONDS = 30.0


class Pings:
    """Those of one connection, from `now` (the loop's time) on.

    A client whose program is too busy to answer, or sleeps, is not dead before `patience` seconds;
    whether its machine is, the kernel finds out by itself (`kernel.VANISHED_SECONDS`).
    """

    __slots__ = ("_patience", "_pinged_at", "_send_buffer", "_socket")

    def __init__(
        self, socket: Socket, send_buffer: SendBuffer, now: float, patience: float
    ) -> None:
        self._patience = patience
        self._socket = socket
        self._send_buffer = send_buffer
        self._pinged_at = now

    def tick(self, now: float) -> None:
        """Ping a silent peer, or cut it; one that has something to read needs no ping for that."""
        heard_at = self._socket.heard_at
        answering = self._send_buffer.owes_an_answer(heard_at, now)
        if not answering or now - heard_at < _PING_SECONDS:
            return
        if now - heard_at > self._patience:
            metrics.cut_sockets.labels("silent").inc()
            self._send_buffer.abort()
        elif now - self._pinged_at >= _PING_SECONDS:
            self._pinged_at = now
            self._socket.ping()
