# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What part of a file a Range header asks for, as Go's `http.ServeContent` reads it.

Pure. Forms that nobody uses for logs (several ranges, other units) are not told apart here: they
are for the controller.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Part:
    """Status 200, 206 or 416; bytes `start` up to before `stop` of a file of `size` bytes."""

    status: int
    start: int
    stop: int
    size: int

    @property
    def content_range(self) -> str | None:
        if self.status == 206:
            return f"bytes {self.start}-{self.stop - 1}/{self.size}"
        return f"bytes */{self.size}" if self.status == 416 else None


def part(header: str | None, size: int) -> Part | None:
    """What to answer of a file that is not empty; None: ask the controller."""
    if header is None:
        return Part(200, 0, size, size)
    match = _RANGE.fullmatch(header)
    if match is None or match[0] == "bytes=-":
        return None
    first, last = match[1], match[2]
    if not first:
        return Part(206, size - min(int(last), size), size, size)
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        return Part(416, 0, 0, size)
    return Part(206, int(first), min(int(last) + 1, size) if last else size, size)
