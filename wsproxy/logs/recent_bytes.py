# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The last bytes of each file, for readers that are only a little behind. Pure.

Bounded for a file, and for all together: the file that has been quiet for longest gives its own up,
and its readers find them in the stream.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

from wsproxy.logs.place import LogPlace

_EACH = 64 * 1024
_ALL = 32 * 1024 * 1024
_FILE = 512
"""What a file takes beside its bytes."""


@dataclass(slots=True)
class _Stretch:
    start: LogPlace
    data: bytearray = field(default_factory=bytearray)

    @property
    def end(self) -> LogPlace:
        return LogPlace(self.start.epoch, self.start.offset + len(self.data))


class RecentBytes:
    """Of all files of the process, by whatever names a file."""

    def __init__(self, most: int = _ALL) -> None:
        self._most = most
        self._bytes = 0
        self._files: OrderedDict[Hashable, _Stretch] = OrderedDict()

    def append(self, file: Hashable, place: LogPlace, data: bytes) -> None:
        """Take bytes that follow what is held of the file, or begin anew with them."""
        held = self._files.get(file)
        if held is None or held.end != place:
            self.forget(file)
            held = self._files[file] = _Stretch(place)
            self._bytes += _FILE
        held.data += data
        self._bytes += len(data)
        if len(held.data) > 2 * _EACH:
            surplus = len(held.data) - _EACH
            del held.data[:surplus]
            held.start = LogPlace(place.epoch, held.start.offset + surplus)
            self._bytes -= surplus
        self._files.move_to_end(file)
        while self._bytes > self._most:
            self.forget(next(iter(self._files)))

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
