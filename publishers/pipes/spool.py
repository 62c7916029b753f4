# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Bytes of one log file, or of one pipe, that wait on a machine's disk until NATS has them.

A folder of segments; the name of each is the offset of its first byte in the log file, so that a
process that was killed finds its place again. When the folder is full, new bytes are let go and
only counted: their place in the file stays known, and the log publisher reads them from
the container's own log instead.
"""

from __future__ import annotations

import fcntl
import os
from io import FileIO
from pathlib import Path

from arvados_nats.errors import ConfigError

_SEGMENT_BYTES = 4 * 1024 * 1024
_SUFFIX = ".part"
_LOCK = "lock"


class Spool:
    """The bytes of one file that are kept, up to before `end`.

    There is always a last segment, empty if need be, whose end is the offset of the next byte.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = _take(folder)
        self._sizes = {int(path.stem): path.stat().st_size for path in folder.glob(f"*{_SUFFIX}")}
        self.is_new = not self._sizes
        self._last = max(self._sizes, default=0)
        self._writing = self._open(self._last)

    @property
    def end(self) -> int:
        """Offset of the next byte to come."""
        return self._last + self._sizes[self._last]

    def begin(self, offset: int) -> None:
        """Let go of everything; the next byte to come is at `offset`."""
        self._move(offset)
        for start in [start for start in self._sizes if start != offset]:
            self._remove(start)

    def append(self, data: bytes) -> bool:
        """Keep bytes that follow the last ones; False if there is no room and they are let go."""
        if sum(self._sizes.values()) + len(data) > self._max_bytes:
            marker = self._last if not self._sizes[self._last] else None
            self._move(self.end + len(data))
            if marker is not None:
                self._remove(marker)
            return False
        if self._sizes[self._last] >= _SEGMENT_BYTES:
            self._move(self.end)
        self._writing.write(data)
        self._sizes[self._last] += len(data)
        return True

    def read(self, offset: int, limit: int) -> bytes:
        """At most `limit` bytes from `offset` on; none where they are not here."""
        found = b""
        for start, size in sorted(self._sizes.items()):
            at = offset + len(found)
            if start <= at < start + size and len(found) < limit:
                with self._path(start).open("rb") as segment:
                    segment.seek(at - start)
                    found += segment.read(limit - len(found))
        return found

    def next(self, offset: int) -> int:
        """Where bytes are again after a place at which there are none."""
        return min((start for start in self._sizes if start > offset), default=self.end)

    def discard(self, before: int) -> None:
        """Bytes before this offset are not needed any more."""
        if before >= self.end and self._sizes[self._last]:
            self._move(self.end)
        for start, size in list(self._sizes.items()):
            if start + size <= before and start != self._last:
                self._remove(start)

    def close(self) -> None:
        """Stop; what is there stays for the next one."""
        self._writing.close()
        os.close(self._lock)

    def finish(self) -> None:
        """Everything has arrived: only where it ends is kept, for whoever pushes more of it."""
        self.begin(self.end)

    def _move(self, offset: int) -> None:
        """Begin the last segment, at the offset of the next byte."""
        self._writing.close()
        self._writing = self._open(offset)
        self._last = offset

    def _open(self, start: int) -> FileIO:
        self._sizes.setdefault(start, 0)
        return FileIO(self._path(start), "ab")

    def _remove(self, start: int) -> None:
        del self._sizes[start]
        self._path(start).unlink()

    def _path(self, start: int) -> Path:
        return self._folder / f"{start:020d}{_SUFFIX}"


def _take(folder: Path) -> int:
    """Make the folder ours alone; the file descriptor of its lock."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.geteuid():
        raise ConfigError(f"push_spool: {folder} belongs to another user")
    lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise ConfigError(f"push_spool: another process pushes from {folder}") from error
    return lock
