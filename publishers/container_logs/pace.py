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

_LONGEST_WATCHED = 2.0
_MOST_DOUBLINGS = 10


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
