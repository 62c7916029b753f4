# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How long a tailer waits before it looks at its log again.

Pure. Quickly while somebody watches, slowly otherwise, longer and longer while it fails. What can
be lost with a compute node that dies is what was written since the last look: `Pace.fast` if
somebody watched, else `Pace.slow` or what `slow_interval` makes of it with many containers, and the
time of one look; or the whole time for which the controller, its tunnel or NATS was away.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from statistics import median

_LONGEST_WATCHED = 2.0
_MOST_DOUBLINGS = 10

_MOST = 4
_SAMPLE = 8
_MEASURED_AGAIN = 60.0
"""Seconds after which it is measured again how long calls take while there are few."""
_AS_LONG, _LONG = 1.5, 2.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between two looks at a log, and how long a state is waited for."""

    fast: float = 0.25
    slow: float = 5.0
    slow_looks: float = 20.0
    """Looks per second at all logs together that nobody watches: each is several calls of Rails."""
    confirm: float = 15.0
    """After the end of a container, until its saved log is taken as it is or given up."""
    give_up: float = 600.0
    """After the end of a container, until a saved file that cannot be read is left as it is."""
    push: float = 10.0
    """How long a pushed file may stand still, though there is more, before it is read."""


@dataclass(frozen=True, slots=True)
class Situation:
    """How it stands with a log. `tries`: looks in vain in a row, for failures or an end that is
    not confirmed yet."""

    watched: bool = False
    tailed: int = 1
    """Containers that this process follows."""
    more: bool = False
    """The last look left bytes that can be read at once."""
    holds_back: bool = False
    """An unfinished line waits for its end."""
    tries: int = 0


def delay(pace: Pace, now: Situation) -> float:
    """Seconds until the next look. Jitter keeps the containers from asking in step, and makes no
    look late."""
    if now.tries:
        slow = max(slow_interval(pace, now.tailed), _LONGEST_WATCHED)
        longest = _LONGEST_WATCHED if now.watched else slow
        wait = min(pace.fast * 2.0 ** min(now.tries - 1, _MOST_DOUBLINGS), longest)
    elif now.more:
        return 0.0
    else:
        hasty = now.watched or now.holds_back
        wait = pace.fast if hasty else slow_interval(pace, now.tailed)
    return wait * random.uniform(0.8, 1.0)


def slow_interval(pace: Pace, tailed: int) -> float:
    """Seconds between two looks at a log that nobody watches, one of `tailed`."""
    return max(pace.slow, tailed / pace.slow_looks)


class Width:
    """How many calls at a time: `least`, and up to four times as many while they are all in use and
    take about as long as so few did. What takes longer waits for Arvados' other clients, or holds
    them up."""

    def __init__(self, least: int) -> None:
        self.calls = least
        self._least = least
        self._seconds: list[float] = []
        self._usual = 0.0
        self._measured_at = float("-inf")

    def took(self, now: float, seconds: float, *, all_in_use: bool) -> None:
        """A call was answered after so long."""
        self._seconds.append(seconds)
        if len(self._seconds) < _SAMPLE * self.calls:
            return
        typical = median(self._seconds)
        self._seconds.clear()
        if self.calls == self._least:
            self._usual, self._measured_at = typical, now
        if now - self._measured_at > _MEASURED_AGAIN:
            self.calls = self._least
        elif typical > _LONG * self._usual:
            self.calls = max(self._least, self.calls * 3 // 4)
        elif all_in_use and typical < _AS_LONG * self._usual:
            self.calls = min(self.calls + 1, _MOST * self._least)

    def failed(self) -> None:
        """A call was not answered."""
        self.calls = self._least
        self._seconds.clear()
