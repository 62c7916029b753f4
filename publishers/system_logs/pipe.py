# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Lines of JSON that a program writes into a pipe, kept on disk until they are stored.

The cursor of a line is the name of this machine's pipe and the offset of the line's end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from publishers.pipes.pipe import Pipe
from publishers.system_logs.lines import READ_BYTES, Lines


@dataclass(frozen=True, slots=True)
class PipeLines:
    """What comes by a pipe, under the name of the folder that keeps it."""

    pipe: Pipe
    name: str

    async def lines(self, cursor: str) -> AsyncIterator[tuple[str, bytes]]:
        """(cursor, line) of each line after `cursor`, until the pipe is closed."""
        spool, lines = self.pipe.spool, Lines(self._offset(cursor))
        while True:
            await self.pipe.until_beyond(lines.end)
            data = spool.read(lines.end, READ_BYTES)
            for end, line in lines.feed(data):
                yield self._cursor(end), line
            if data:
                continue
            if rest := lines.rest():  # the program ended within it, or there was no room for more
                yield self._cursor(lines.end), rest
            if lines.end >= spool.end:
                return
            lines = Lines(spool.next(lines.end))

    def stored(self, cursor: str) -> None:
        """Lines up to this cursor need not be kept."""
        self.pipe.spool.discard(self._offset(cursor))

    def _offset(self, cursor: str) -> int:
        name, _, offset = cursor.partition(":")
        return int(offset) if name == self.name else 0

    def _cursor(self, end: int) -> str:
        return f"{self.name}:{end}"
