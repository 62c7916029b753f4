# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Lines of several log files as one sequence by time stamp, no file ever reordered.

Pure. A line counts as no earlier than the line before it in its file, and one without a stamp
belongs to the line before it (docs/facts/arvados-demand.md W5, G20). History comes file by file in
turns, so a line waits until every file that may still have an earlier one has shown what it has
next; live lines wait a moment for those written at the same time elsewhere. A line without its end
waits for it. What waits is bounded: beyond that, order between files gives way, never a line.
"""

from __future__ import annotations

import heapq
import re
from collections import deque
from dataclasses import dataclass, field

import msgspec

HOLD_SECONDS = 0.1
HELD_BYTES = 64 * 1024 * 1024
QUIET_BYTES = 1024 * 1024
"""The server sends the history of several files in turns: one that sent nothing while the others
sent so much has no more."""
LONGEST_LINE = 1024 * 1024
"""A line that is longer is shown in pieces."""

_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z")
_USUAL_LENGTH = len("2026-01-02T03:04:05.123456789Z")
_EARLIEST = b""


class Line(msgspec.Struct, frozen=True, gc=False):
    """A line of a file with its line end, or a piece of one without."""

    file: str
    data: bytes
    key: bytes
    arrived: float

    @property
    def whole(self) -> bool:
        """Whether the line ends here."""
        return self.data.endswith(b"\n")


@dataclass(slots=True)
class _File:
    name: str
    number: int
    lines: deque[Line] = field(default_factory=deque)
    open: bytearray = field(default_factory=bytearray)
    continued: bool = False
    """The open line's beginning has been given out already."""
    key: bytes = _EARLIEST
    heard: int = 0
    """Bytes of all files that had come when this one's last bytes came."""

    def split(self, data: bytes, now: float) -> None:
        """Add bytes: whole lines wait, the rest stays open."""
        lines = data.splitlines(keepends=True) if b"\r" not in data else _lines(data)
        whole = [line for line in lines if line.endswith(b"\n")]
        if self.open and whole:
            self.open += whole.pop(0)
            self._close(now)
        key = self.key
        for line in whole:
            found = stamp(line)
            if found > key:
                key = found
            self.lines.append(Line(self.name, line, key, now))
        self.key = key
        if lines and not lines[-1].endswith(b"\n"):
            self.open += lines[-1]
        if len(self.open) > LONGEST_LINE:
            self._close(now)
            self.continued = True

    def _close(self, now: float) -> None:
        content = bytes(self.open)
        self.open.clear()
        if not self.continued:
            self.key = max(self.key, stamp(content))
        self.continued = False
        self.lines.append(Line(self.name, content, self.key, now))

    def give_up(self, now: float) -> None:
        """The end of the file: a line without end is one all the same."""
        if self.open:
            self._close(now)


def _lines(data: bytes) -> list[bytes]:
    """Lines with their ends; `splitlines` takes a carriage return for one."""
    *whole, rest = data.split(b"\n")
    return [line + b"\n" for line in whole] + ([rest] if rest else [])


def stamp(line: bytes) -> bytes:
    """The time stamp at the beginning of a line, in a form that sorts; empty if there is none."""
    found = _STAMP.match(line)
    if found is None:
        return _EARLIEST
    if found.end() == _USUAL_LENGTH:
        return found[0]
    return found[1] + b"." + (found[2] or b"").ljust(9, b"0") + b"Z"


class Merge:
    """Give it bytes with `add`, and take lines out with `take`; times are in seconds."""

    def __init__(self, *, hold: float = HOLD_SECONDS, held_bytes: int = HELD_BYTES) -> None:
        self.exact = True
        """False once so much waited that order between files had to give way."""
        self._hold = hold
        self._held_bytes = held_bytes
        self._files: dict[str, _File] = {}
        self._heads: list[tuple[bytes, int, _File]] = []
        self._heard = self._begun_at = 0
        self.waiting = 0
        """Bytes that were given and not taken."""
        self._live = False

    def add(self, file: str, data: bytes, now: float) -> None:
        """Bytes that join those given before for this file."""
        found = self._files.get(file)
        if found is None:
            found = self._files[file] = _File(file, len(self._files))
        had_lines = bool(found.lines)
        self._heard += len(data)
        self.waiting += len(data)
        found.heard = self._heard
        found.split(data, now)
        if found.lines and not had_lines:
            self._push(found)

    def behind(self) -> None:
        """What follows is history: files come in turns again."""
        self._live = False
        self._begun_at = self._heard
        for file in self._files.values():
            file.heard = self._heard

    def caught_up(self) -> None:
        """History has been given; what follows is live."""
        self._live = True

    def take(self, now: float) -> list[Line]:
        """The lines whose turn it is."""
        taken: list[Line] = []
        while self._heads and self._may_go(now):
            file = self._pop(taken)
            while not self._live and file.lines and self.waiting <= self._held_bytes:
                file = self._pop(taken)  # nothing changes for the others before one has run dry
        return taken

    def due(self) -> float | None:
        """The time at which `take` gives more, if nothing else comes; None if it will not."""
        if not self._live or not self._heads:
            return None
        return min(file.lines[0].arrived for _, _, file in self._heads) + self._hold

    def end(self, now: float) -> list[Line]:
        """All that waits, lines without end last in their file."""
        for file in self._files.values():
            had_lines = bool(file.lines)
            file.give_up(now)
            if file.lines and not had_lines:
                self._push(file)
        taken: list[Line] = []
        while self._heads:
            self._pop(taken)
        return taken

    def _may_go(self, now: float) -> bool:
        if self._live:
            due = self.due()
            return due is not None and due <= now
        if self.waiting > self._held_bytes:
            self.exact = False
            return True
        return self._heard > QUIET_BYTES and not any(
            map(self._may_be_earlier, self._files.values())
        )

    def _may_be_earlier(self, file: _File) -> bool:
        return not file.lines and self._heard - file.heard <= QUIET_BYTES

    def _push(self, file: _File) -> None:
        heapq.heappush(self._heads, (file.lines[0].key, file.number, file))

    def _pop(self, taken: list[Line]) -> _File:
        """Take the earliest line; the file it was in."""
        _, _, file = self._heads[0]
        line = file.lines.popleft()
        taken.append(line)
        self.waiting -= len(line.data)
        if file.lines:
            if file.lines[0].key != line.key:
                heapq.heapreplace(self._heads, (file.lines[0].key, file.number, file))
        else:
            heapq.heappop(self._heads)
        return file
