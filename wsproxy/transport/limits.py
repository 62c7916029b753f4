# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How much one client, user or address may have of the process. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of all protocols; 0 means no bound where it makes sense."""

    connections: int = 20_000
    connections_per_user: int = 5_000
    connections_per_address: int = 0
    """Off by default: behind a proxy that does not tell the address, all have the same one."""
    subscriptions: int = 100
    """Subscriptions of one connection."""
    subscription_bytes: int = 256 * 1024
    """Bytes of the messages that made the subscriptions of one connection, together."""
    commands_per_second: float = 50.0
    """Frames of a client, of any kind, a second; a long one counts once for each KiB."""
    command_burst: int = 200

    @property
    def pace(self) -> Pace:
        """Of one new connection."""
        return Pace(self.commands_per_second, self.command_burst)


@dataclass(slots=True)
class Tally:
    """Connections now open."""

    limits: Limits
    total: int = 0
    by_address: Counter[str] = field(default_factory=Counter)

    def admit(self, address: str) -> str | None:
        """Count a connection in; the reason if there are too many already."""
        if self.total >= self.limits.connections > 0:
            return "too many connections"
        if self.by_address[address] >= self.limits.connections_per_address > 0:
            return "too many connections from this address"
        self.total += 1
        self.by_address[address] += 1
        return None

    def leave(self, address: str) -> None:
        """Count a connection out that was admitted."""
        self.total -= 1
        self.by_address[address] -= 1
        if not self.by_address[address]:
            del self.by_address[address]


class Pace:
    """How fast one client may send: a bucket that refills at a steady rate."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._left = float(burst)
        self._at = 0.0

    def wait(self, now: float, cost: float = 1.0) -> float:
        """Take so much at `now`; seconds to wait before anything else is heard."""
        if self._at:
            self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        self._left -= cost
        return max(0.0, -self._left / self._rate)


def origin_allowed(origin: str | None, host: str | None, allowed: frozenset[str]) -> bool:
    """Whether a page of `origin` may open a socket here.

    Programs send no Origin. `allowed` holds origins (`https://wb.example`), compared as wholes, or
    `*`; a page from the very host that it connects to always may.
    """
    if origin is None or "*" in allowed:
        return True
    if origin.lower() in allowed:
        return True
    if not origin.isascii() or host is None:
        return False
    parts = urlsplit(origin)
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()
