# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The last bytes of each file, for readers that are only a little behind.

Those of the last minute or so, bounded for a file, and for all together: the file that has been
quiet for longest gives its own up, and its readers find them in the stream.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from wsproxy.logs.place import LogPlace

_EACH = 64 * 1024
_ALL = 32 * 1024 * 1024
_FILE = 512
"""What a file takes beside its bytes."""
_SECONDS = 30.0
"""What comes is held for at least so long, and for twice as long at most where more comes."""


@dataclass(slots=True)
class _Stretch:
    start: LogPlace
    looked_at: float
    old: int = 0
    """Bytes that were there at the last look."""
    data: bytearray = field(default_factory=bytearray)

    @property
    def end(self) -> LogPlace:
        return LogPlace(self.start.epoch, self.start.offset + len(self.data))


class RecentBytes:
    """Of all files of the process, by whatever names a file."""

    def __init__(self, most: int = _ALL, now: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._now = now
        self._bytes = 0
        self._files: OrderedDict[Hashable, _Stretch] = OrderedDict()

    def append(self, file: Hashable, place: LogPlace, data: bytes) -> None:
        """Take bytes that follow what is held of the file, or begin anew with them."""
        held, now = self._files.get(file), self._now()
        if held is None or held.end != place:
            self.forget(file)
            held = self._files[file] = _Stretch(place, now)
            self._bytes += _FILE
        if now - held.looked_at > _SECONDS:
            self._drop(held, held.old)
            held.looked_at, held.old = now, len(held.data)
        held.data += data
        self._bytes += len(data)
        if len(held.data) > 2 * _EACH:
            self._drop(held, len(held.data) - _EACH)
        self._files.move_to_end(file)
        while self._bytes > self._most:
            self.forget(next(iter(self._files)))

    def _drop(self, held: _Stretch, count: int) -> None:
        """Hold so many bytes less, of the first."""
        del held.data[:count]
        held.start = LogPlace(held.start.epoch, held.start.offset + count)
        held.old = max(0, held.old - count)
        self._bytes -= count

    def read(self, file: Hashable, place: LogPlace, stop: int) -> bytes:
        """Bytes from a place up to before `stop`; none if any of them is not held."""
        held = self._files.get(file)
        if held is None or held.start.epoch != place.epoch:
            return b""
        start = held.start.offset
        if place.offset < start or stop > start + len(held.data):
            return b""
        return bytes(memoryview(held.data)[place.offset - start : stop - start])

    def forget(self, file: Hashable) -> None:
        """Hold nothing of a file any more."""
        if held := self._files.pop(file, None):
            self._bytes -= len(held.data) + _FILE
