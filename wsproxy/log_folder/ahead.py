# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Bytes at the ends of log files that the stream does not have yet, read of Arvados once for all.

Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

MOST_OF_A_FILE = 256 * 1024
MOST = 32 * 1024 * 1024

Key = tuple[str, str, Hashable]
"""Container, file, and which life of the stream and of the file."""


class Ahead:
    """Of each file the last bytes that were read, in one piece; the least used are dropped."""

    def __init__(self) -> None:
        self._held: OrderedDict[Key, tuple[int, bytes]] = OrderedDict()
        self._bytes = 0

    def read(self, key: Key, at: int) -> bytes:
        """What is held from this byte on; none if the byte is not held."""
        start, data = self._held.get(key, (0, b""))
        if not start <= at < start + len(data):
            return b""
        self._held.move_to_end(key)
        return data[at - start :]

    def held(self, key: Key) -> tuple[int, int]:
        """From which byte up to before which is held."""
        start, data = self._held.get(key, (0, b""))
        return start, start + len(data)

    def joins(self, key: Key, at: int, stored: bytes) -> bool:
        """Whether what is held agrees with what was stored since, and is held no longer."""
        start, data = self.drop(key)
        stop = min(at + len(stored), start + len(data))
        if at < start or data[at - start : stop - start] != stored[: stop - at]:
            return False
        if stop < start + len(data):
            self.put(key, stop, data[stop - start :])
        return True

    def put(self, key: Key, at: int, data: bytes) -> None:
        """Hold these bytes, and those before that they join."""
        start, before = self.drop(key)
        if before and start <= at <= start + len(before):
            at, data = start, before[: at - start] + data
        surplus = max(0, len(data) - MOST_OF_A_FILE)
        self._held[key] = (at + surplus, data[surplus:])
        self._bytes += len(data) - surplus
        while self._bytes > MOST:
            self.drop(next(iter(self._held)))

    def drop(self, key: Key) -> tuple[int, bytes]:
        """Hold nothing of a file any more; what was held of it."""
        found = self._held.pop(key, (0, b""))
        self._bytes -= len(found[1])
        return found
