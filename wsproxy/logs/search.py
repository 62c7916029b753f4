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
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from arvados_nats.errors import BadInput
from wsproxy.logs.saved import Access, SavedLogs

LONGEST_TEXT = 1000
MOST_FOUND = 10_000
"""Lines that are told; more are counted."""
_RANGE = 4 * 1024 * 1024
_SLICE = 512 * 1024
"""Bytes that are looked through before others have their turn."""
_LONGEST_LINE = 1024 * 1024
_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT[\d:.]+Z")
_SEQUENCE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\))")


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

    def add(self, data: bytes, *, last: bool = False) -> Iterator[Found]:
        """Those that end in this piece."""
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        if last or (end == 0 and len(data) > _LONGEST_LINE):
            end = len(data)
        self._rest = data[end:]
        offset, self._offset = self._offset, self._offset + end
        for start in sorted(self._lines(data[:end])):
            stamp = _STAMP.match(data, start)
            yield Found(offset + start, stamp[0].decode() if stamp else "")

    def _lines(self, data: bytes) -> set[int]:
        lower = data.lower()
        found = {start for start, _ in _lines_with(lower, self._text)}
        for start, stop in _lines_with(lower, b"\x1b"):
            if self._text in _SEQUENCE.sub(b"", lower[start:stop]):
                found.add(start)
        return found


def _lines_with(data: bytes, text: bytes) -> Iterator[tuple[int, int]]:
    at = data.find(text)
    while at >= 0:
        start = data.rfind(b"\n", 0, at) + 1
        stop = data.find(b"\n", at)
        stop = len(data) if stop < 0 else stop
        yield start, stop
        at = data.find(text, stop)


async def search(
    saved: SavedLogs, sought: Sought, access: Access
) -> AsyncIterator[tuple[int, list[Found]]]:
    """How far it has looked, and what it found since: again and again, to the end of the range or
    of the file."""
    scan, at = Scan(sought.text, sought.start), sought.start
    ahead = _read(saved, sought, at, access)
    try:
        while at < sought.stop:
            data = await ahead
            at += len(data)
            ended = not data or at >= sought.stop
            ahead = _read(saved, sought, sought.stop if ended else at, access)
            for begin in range(0, max(1, len(data)), _SLICE):
                last = ended and begin + _SLICE >= len(data)
                found = list(scan.add(data[begin : begin + _SLICE], last=last))
                yield at - len(data) + min(len(data), begin + _SLICE), found
                await asyncio.sleep(0)
            if ended:
                return
    finally:
        ahead.cancel()


def _read(saved: SavedLogs, sought: Sought, at: int, access: Access) -> asyncio.Task[bytes]:
    """One range while the one before is looked through."""
    stop = min(sought.stop, at + _RANGE)

    async def read() -> bytes:
        if at >= stop:
            return b""
        return await saved.read(sought.container, sought.file, at, stop, access)

    return asyncio.create_task(read())
