# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A computed crunchstat.txt of any size: processor and memory, a second each, of which memory is
at its most at the very beginning, and less each second.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import lru_cache

from sandbox.logs.log_files import NumberedLines

WIDTH = 110
_BEGAN = date(2026, 1, 1).toordinal()
_MOST = 10_000_000_000
_DAY = 86_400
_CLOCK = [f"{n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}" for n in range(_DAY)]
"""Made once: a log of a gigabyte is to be read at the pace of a disk."""


@dataclass(frozen=True, slots=True)
class Statistics(NumberedLines):
    """As `NumberedLines`; each line is WIDTH bytes long."""

    width: int = WIDTH

    def line(self, number: int) -> bytes:
        """The line with this number, counted from 0."""
        second, memory = divmod(number, 2)
        day, clock = divmod(second, _DAY)
        stamp = f"{_day(day)}T{_CLOCK[clock]}.000000000Z"
        used = f"interval 10.0000 seconds {second % 50}.5 user 1.2 sys"
        said = f"cpu 90.0 user 4.0 sys 4.00 cpus -- {used}"
        if memory:
            said = f"mem 0 cache 0 swap 1 pgmajfault {_MOST - second * 1000} rss"
        return f"{stamp} {said}".ljust(WIDTH - 1).encode() + b"\n"

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` up to before `stop`, as far as there are any."""
        stop = min(stop, self.size)
        first = start // WIDTH
        text = b"".join(map(self.line, range(first, -(-stop // WIDTH))))
        return text[start - first * WIDTH : stop - first * WIDTH]


@lru_cache
def _day(number: int) -> str:
    return date.fromordinal(_BEGAN + number).isoformat()
