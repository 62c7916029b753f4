# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Find a text in a whole log file: Arvados is asked for its bytes with the asker's token.

Who looks for a line in a gigabyte need not have it sent. Arvados decides who may read; nothing is
kept. ASCII letters match in either case, and colours do not part words.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import islice

from arvados_nats.errors import BadInput
from wsproxy.logs.saved import Access, SavedLogs

LONGEST_TEXT = 1000
MOST_FOUND = 10_000
"""Lines that are told; more are counted."""
RANGE = 4 * 1024 * 1024
_AHEAD = 2
"""Ranges that are asked for while one is looked through."""
_SLICE = 32 * 1024
"""Bytes that are looked through before others have their turn."""
LINES = 1000
"""And lines: whoever writes the log decides how many stand in those bytes."""
_LONGEST_LINE = 128 * 1024
"""A longer one is looked through in parts."""
_ACROSS = 1024
"""Bytes of a part, besides those of the text, that are looked at with the next one."""
_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT[\d:.]+Z")
_SEQUENCE = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\|(?=\x1b)))"
)


@dataclass(frozen=True, slots=True)
class Sought:
    """What is looked for, and where."""

    container: str
    file: str
    text: str
    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 < len(self.text) <= LONGEST_TEXT:
            raise BadInput(f"say what to find, in at most {LONGEST_TEXT} characters")
        if not 0 <= self.start <= self.stop:
            raise BadInput("a range of bytes begins before it ends")


@dataclass(frozen=True, slots=True)
class Found:
    """A line by its first byte, with the time stamp that it begins with."""

    offset: int
    stamp: str


class Scan:
    """Lines with a text in them, of bytes that come in pieces."""

    def __init__(self, text: str, start: int) -> None:
        self._text = text.encode("utf-8", "replace").lower()
        self._offset = start
        self._rest = b""
        self._line: Found | None = None
        """The line that goes on, where its beginning was looked through."""
        self._told = False

    def add(self, data: bytes, *, last: bool = False) -> Iterator[Found]:
        """Those that end in this piece, and of a very long one that it has the text."""
        data = self._rest + data
        end = len(data) if last else data.rfind(b"\n") + 1
        goes_on = end == 0 and len(data) > _LONGEST_LINE
        whole = data if goes_on else data[:end]
        if goes_on:
            end = len(data) - len(self._text) - _ACROSS
        self._rest = data[end:]
        offset, self._offset = self._offset, self._offset + end
        line, told = self._line or _line_at(data, 0, offset), self._told
        if goes_on:
            self._line = line
        elif end:
            self._line, self._told = None, False
        for start in self._lines(whole):
            if start:
                yield _line_at(data, start, offset + start)
            elif not told:
                self._told = goes_on
                yield line

    def _lines(self, data: bytes) -> Iterator[int]:
        """Where lines begin that have the text. All bytes are looked through at once; lines are
        taken apart only where there is something."""
        lower = data.lower()
        if b"\x1b" not in lower:
            yield from _lines_with(lower, self._text)
            return
        bare = _SEQUENCE.sub(b"", lower)
        if self._text not in bare and self._text not in lower:
            return
        at = 0
        for line, shown in zip(lower.split(b"\n"), bare.split(b"\n"), strict=True):
            if self._text in shown or self._text in line:
                yield at
            at += len(line) + 1


def _line_at(data: bytes, start: int, offset: int) -> Found:
    stamp = _STAMP.match(data, start)
    return Found(offset, stamp[0].decode() if stamp else "")


def _lines_with(data: bytes, text: bytes) -> Iterator[int]:
    at = data.find(text)
    while at >= 0:
        yield data.rfind(b"\n", 0, at) + 1
        stop = data.find(b"\n", at)
        at = data.find(text, stop) if stop >= 0 else -1


async def search(
    saved: SavedLogs, sought: Sought, access: Access
) -> AsyncIterator[tuple[int, list[Found]]]:
    """How far it has looked, and what it found since: again and again, to the end of the range or
    of the file."""
    scan, at = Scan(sought.text, sought.start), sought.start
    starts = iter(range(sought.start, sought.stop, RANGE))
    ahead = deque(_read(saved, sought, start, access) for start in islice(starts, _AHEAD))
    try:
        while ahead:
            data = await ahead.popleft()
            at += len(data)
            ended = len(data) < RANGE or at >= sought.stop
            ahead.extend(_read(saved, sought, start, access) for start in islice(starts, 1))
            for begin in range(0, max(1, len(data)), _SLICE):
                last = ended and begin + _SLICE >= len(data)
                lines = scan.add(data[begin : begin + _SLICE], last=last)
                while found := list(islice(lines, LINES)):
                    yield at - len(data) + begin, found
                    await asyncio.sleep(0)
                await asyncio.sleep(0)
            yield at, []
            if ended:
                return
    finally:
        for task in ahead:
            task.cancel()
        await asyncio.gather(*ahead, return_exceptions=True)


def _read(saved: SavedLogs, sought: Sought, at: int, access: Access) -> asyncio.Task[bytes]:
    """One range while those before are looked through."""
    stop = min(sought.stop, at + RANGE)
    return asyncio.create_task(saved.read(sought.container, sought.file, at, stop, access))
