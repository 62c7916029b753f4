# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A computed crunchstat.txt of any size: processor and memory, a second each, of which memory is
at its most at the very beginning, and less each second.

Pure.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from sandbox.logs.log_files import NumberedLines

WIDTH = 110
_BEGAN = 1_767_225_600
_MOST = 10_000_000_000


@dataclass(frozen=True, slots=True)
class Statistics(NumberedLines):
    """As `NumberedLines`; each line is WIDTH bytes long."""

    width: int = WIDTH

    def line(self, number: int) -> bytes:
        """The line with this number, counted from 0."""
        second, memory = divmod(number, 2)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(_BEGAN + second))
        used = f"interval 10.0000 seconds {10 + second % 500 / 10:.1f} user 1.2 sys"
        said = f"cpu 90.0 user 4.0 sys 4.00 cpus -- {used}"
        if memory:
            said = f"mem 0 cache 0 swap 1 pgmajfault {_MOST - second * 1000} rss"
        return f"{stamp}.000000000Z {said}".ljust(WIDTH - 1).encode() + b"\n"

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` up to before `stop`, as far as there are any."""
        stop = min(stop, self.size)
        first = start // WIDTH
        text = b"".join(map(self.line, range(first, -(-stop // WIDTH))))
        return text[start - first * WIDTH : stop - first * WIDTH]
