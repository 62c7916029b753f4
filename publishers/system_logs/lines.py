# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whole lines out of bytes, however they are cut; a line too long is left out and counted."""

from __future__ import annotations

import logging
from asyncio import StreamReader
from collections.abc import AsyncIterator, Iterator

from publishers.system_logs import metrics

logger = logging.getLogger(__name__)

MAX_LINE_BYTES = 32 * 1024 * 1024
"""A field of 1 MB that is no text takes up to 5 MB as a list of numbers."""
READ_BYTES = 256 * 1024


class Lines:
    """Takes pieces, gives lines. `offset` is where the first piece begins in its source."""

    def __init__(self, offset: int = 0, max_bytes: int = MAX_LINE_BYTES) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._max_bytes = max_bytes
        self.end = offset

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """(offset after its end, line without its end) of each line that ends in this piece."""
        *ended, rest = data.split(b"\n")
        for piece in ended:
            self._add(piece)
            self.end += 1
            line = self.rest()
            if line is not None:
                yield self.end, line
        self._add(rest)

    def _add(self, piece: bytes) -> None:
        self.end += len(piece)
        self._size += len(piece)
        if self._size <= self._max_bytes:
            self._parts.append(piece)
        else:
            self._parts.clear()

    def rest(self) -> bytes | None:
        """What came after the last line, and begin anew; None if it is too long."""
        size, parts = self._size, self._parts
        self._size, self._parts = 0, []
        if size <= self._max_bytes:
            return b"".join(parts)
        metrics.SKIPPED.labels("too_long").inc()
        logger.warning(
            "a line is too long and is left out",
            extra={"action": "system_logs.too_long", "bytes": size},
        )
        return None


async def of(source: StreamReader) -> AsyncIterator[bytes]:
    """Each line of a stream. What comes after the last end of a line is none."""
    lines = Lines()
    while data := await source.read(READ_BYTES):
        for _, line in lines.feed(data):
            yield line
