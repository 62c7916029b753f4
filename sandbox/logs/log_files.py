# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Byte sources behind log files: growing in memory, computed, or a still copy of either.

Pure. A source has a `size` and answers any range of itself, so that a log of a gigabyte costs no
memory.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
import weakref
from dataclasses import dataclass, field
from typing import Protocol


class Source(Protocol):
    """Bytes that can be read by range; `modified` is in seconds since the epoch."""

    @property
    def size(self) -> int: ...

    @property
    def modified(self) -> float: ...

    def read(self, start: int, stop: int) -> bytes: ...


class GrowingFile:
    """A file that a running process appends to."""

    def __init__(self, content: bytes = b"") -> None:
        self._content = bytearray(content)
        self.modified = time.time()

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return len(self._content)

    def append(self, data: bytes) -> None:
        """Write at the end."""
        self._content += data
        self.modified = time.time()

    def truncate(self, size: int = 0) -> None:
        """Cut it to `size` bytes, as a rotation or a restart does."""
        del self._content[size:]
        self.modified = time.time()

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` up to before `stop`, as far as there are any."""
        return bytes(memoryview(self._content)[start:stop])


@dataclass(frozen=True, slots=True)
class NumberedLines:
    """A computed log of `lines` lines, each `width` bytes long with its line end.

    A line is its number, padded with dots: `0000000042 ....`.
    """

    lines: int
    width: int = 100
    modified: float = field(default_factory=time.time)

    @property
    def size(self) -> int:
        """Bytes of all lines."""
        return self.lines * self.width

    def line(self, number: int) -> bytes:
        """The line with this number, counted from 0."""
        return b"%010d " % number + b"." * (self.width - 12) + b"\n"

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` up to before `stop`, as far as there are any."""
        stop = min(stop, self.size)
        if start >= stop:
            return b""
        first, last = start // self.width, (stop - 1) // self.width
        # One format for all of them: a log of a gigabyte is read at the pace of a disk.
        lines = (b"%010d " + b"." * (self.width - 12) + b"\n") * (last + 1 - first)
        text = lines % tuple(range(first, last + 1))
        return text[start - first * self.width : stop - first * self.width]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a source held at one moment. `name` takes the place of the hash of its bytes."""

    name: str
    size: int
    modified: float
    content: Source

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` up to before `stop`, as far as there are any."""
        return self.content.read(start, min(stop, self.size))


class Disk:
    """A file without a name, which goes with who holds it: what is saved takes no memory."""

    def __init__(self) -> None:
        self._file, path = tempfile.mkstemp()
        os.unlink(path)
        self._end = 0
        weakref.finalize(self, os.close, self._file)

    def save(self, data: bytes, modified: float) -> Source:
        """Write behind what is there."""
        os.pwrite(self._file, data, self._end)
        self._end += len(data)
        return _Saved(self, self._end - len(data), len(data), modified)

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` up to before `stop`."""
        return os.pread(self._file, max(stop - start, 0), start)


@dataclass(frozen=True, slots=True)
class _Saved:
    disk: Disk
    begin: int
    size: int
    modified: float

    def read(self, start: int, stop: int) -> bytes:
        return self.disk.read(self.begin + start, self.begin + min(stop, self.size))


def snapshot(source: Source, disk: Disk) -> Snapshot:
    """A still copy; computed logs are not copied, and named by their shape."""
    if isinstance(source, NumberedLines):
        name = hashlib.md5(repr((source.lines, source.width)).encode()).hexdigest()
        return Snapshot(name, source.size, source.modified, source)
    data = source.read(0, source.size)
    name = hashlib.md5(data).hexdigest()
    return Snapshot(name, len(data), source.modified, disk.save(data, source.modified))
