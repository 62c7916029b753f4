# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""When to come back after a connection that was lost or did not open, and when to give up."""

from __future__ import annotations

import math
import random
import time

from arvados_nats.errors import Unavailable

_FIRST_DELAY = 0.5
_LONGEST_DELAY = 30.0
_MOST_DOUBLINGS = 10
"""No float holds two to the power of the failures of some hours."""
_STEADY_SECONDS = 5.0
"""A connection that lasted longer was a good one: the next delay begins small again."""


class Backoff:
    """The first connection is tried for `open_timeout` seconds, a lost one for `reconnect_timeout`;
    None is for ever."""

    def __init__(self, open_timeout: float | None, reconnect_timeout: float | None) -> None:
        self._open_timeout = open_timeout
        self._reconnect_timeout = reconnect_timeout
        self._failures = 0
        self._lost = time.monotonic()
        self._began = self._lost
        self._stands = False
        self._pause_ms = (0, 0)
        self.ever_stood = False
        """Whether a server has once let us in."""

    def begin(self) -> None:
        """The next attempt begins."""
        self._began, self._stands = time.monotonic(), False

    def stands(self) -> None:
        """The server has let us in."""
        self._stands = self.ever_stood = True

    def pause(self, range_ms: tuple[int, int]) -> None:
        """The server names the time to wait before the next attempt."""
        self._pause_ms = range_ms

    def delay(self, reason: str) -> float:
        """Seconds until the next attempt, after one has ended; Unavailable where it is given up."""
        now = time.monotonic()
        if self._stands:
            self._lost = now
        steady = self._stands and now - self._began > _STEADY_SECONDS
        self._failures = 0 if steady else self._failures + 1
        timeout = self._reconnect_timeout if self.ever_stood else self._open_timeout
        left = math.inf if timeout is None else timeout - (now - self._lost)
        if left <= 0:
            raise Unavailable(reason)
        return min(self._next(), left)

    def _next(self) -> float:
        """Full jitter, so that clients that lost one server do not come back all at once."""
        (least, most), self._pause_ms = self._pause_ms, (0, 0)
        if most:
            return random.uniform(least, most) / 1000
        doubled = _FIRST_DELAY * 2.0 ** min(self._failures, _MOST_DOUBLINGS)
        return random.random() * min(_LONGEST_DELAY, doubled)
