# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How often the process stops to look for cycles among all its objects.

Events are many objects that live for a while, so Python would look through everything every few
seconds, and all sockets wait meanwhile: 30 ms with 1,000 connections, which is the p99 of a busy
process. Only connections that are gone leave cycles behind which matter.
"""

from __future__ import annotations

import asyncio
import gc

from wsproxy.transport.connections import Connections

_LOOK_SECONDS = 5.0
_AT_LEAST_SECONDS = 600.0
_MIN_GONE = 1000
"""Connections that may be gone and still in memory, or a quarter of the open ones."""
_NEVER = 1_000_000_000


def collect_seldom(connections: Connections, look_seconds: float = _LOOK_SECONDS) -> None:
    """From now on look through all objects only as often as connections end, or in ten minutes.

    What is there now is taken to stay. Young objects are looked at as ever. To be called once, by a
    process whose loop runs.
    """
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _NEVER)
    _Collector(connections, look_seconds).look_later()


class _Collector:
    def __init__(self, connections: Connections, look_seconds: float) -> None:
        self._connections = connections
        self._look_seconds = look_seconds
        self._loop = asyncio.get_running_loop()
        self._gone = connections.gone
        self._collected_at = self._loop.time()

    def look_later(self) -> None:
        self._loop.call_later(self._look_seconds, self._look)

    def _look(self) -> None:
        gone = self._connections.gone - self._gone
        old = self._loop.time() - self._collected_at > _AT_LEAST_SECONDS
        if old or gone >= max(_MIN_GONE, len(self._connections) // 4):
            gc.collect()
            self._gone = self._connections.gone
            self._collected_at = self._loop.time()
        self.look_later()
