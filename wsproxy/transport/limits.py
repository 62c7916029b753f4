# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How much one client, user or address may have of the process. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from arvados_nats import urls
from arvados_nats.errors import Refused
from arvados_nats.peers import FewPlaces, network

UNKNOWN_SECONDS = 60.0
"""Time in which it must turn out whose a connection is, where the protocol has none of its own."""


SUBSCRIPTION_BYTES = 2 * 1024
"""What a subscription costs beside the text that made it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of all protocols; 0 means no bound where it makes sense."""

    connections: int = 20_000
    """Of those of whom it is known who they are."""
    unknown: int = 1_000
    """Connections whose token was not sent, is being asked about, or was refused."""
    connections_per_user: int = 5_000
    connections_per_address: int = 0
    """Off by default: behind a proxy that does not tell the address, all have the same one."""
    subscriptions: int = 100
    """Subscriptions of one connection."""
    subscription_bytes: int = 256 * 1024
    """Bytes of the messages that made the subscriptions of one connection, together."""
    kept_per_user: int = 64 * 1024 * 1024
    """Bytes of all subscriptions of one user, each for `SUBSCRIPTION_BYTES` more."""
    commands_per_second: float = 50.0
    """Frames of a client, of any kind, a second; a long one counts once for each KiB."""
    command_burst: int = 200

    @property
    def pace(self) -> Pace:
        """Of one new connection."""
        return Pace(self.commands_per_second, self.command_burst)


class TooMany(Refused):
    """There are too many connections."""


def _nothing() -> None:
    """Nobody is to be told."""


class Place:
    """One connection's, from the handshake on; `evict` is called when it is lost to another."""

    __slots__ = ("_tally", "address", "evict", "network")

    def __init__(self, tally: Tally, address: str, network: str) -> None:
        self._tally = tally
        self.address = address
        self.network = network
        self.evict: Callable[[], None] = _nothing

    def settle(self) -> None:
        """It is known whose it is. TooMany if there is no room for it among those."""
        self._tally.settle(self)

    def leave(self) -> None:
        """The connection is over."""
        self._tally.leave(self)


class Kept:
    """What the subscriptions of one user keep in memory, over all connections."""

    __slots__ = ("_most", "bytes")

    def __init__(self, most: int) -> None:
        self._most = most
        self.bytes = 0

    def take(self, weights: Iterable[int]) -> bool:
        """Keep subscriptions with texts of these lengths, or none of them."""
        cost = sum(weight + SUBSCRIPTION_BYTES for weight in weights)
        if self.bytes + cost > self._most:
            return False
        self.bytes += cost
        return True

    def give(self, weights: Iterable[int]) -> None:
        """These are over."""
        self.bytes -= sum(weight + SUBSCRIPTION_BYTES for weight in weights)


class Tally:
    """Connections now open: those of whom it is known who they are, and some few others."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.known: set[Place] = set()
        self.unknown = FewPlaces[Place](limits.unknown)
        self.by_address: Counter[str] = Counter()

    def enter(self, address: str) -> Place:
        """A place for a new connection, maybe at the cost of one of whom nothing is known.

        TooMany if there is none for it.
        """
        limits = self._limits
        if self._full:
            raise TooMany("too many connections")
        peer = network(address)
        if self.by_address[peer] >= limits.connections_per_address > 0:
            raise TooMany("too many connections from this address")
        place = Place(self, address, peer)
        self.by_address[peer] += 1
        loser = self.unknown.take(place, address)
        if loser is not None:
            self._count_out(loser)
            loser.evict()
        return place

    @property
    def _full(self) -> bool:
        return len(self.known) >= self._limits.connections > 0

    def settle(self, place: Place) -> None:
        """Whose it is has turned out."""
        if place not in self.unknown:
            return
        if self._full:
            raise TooMany("too many connections")
        self.unknown.leave(place)
        self.known.add(place)

    def leave(self, place: Place) -> None:
        """Count a connection out; may be called again."""
        if place in self.known or place in self.unknown:
            self.known.discard(place)
            self.unknown.leave(place)
            self._count_out(place)

    def _count_out(self, place: Place) -> None:
        self.by_address[place.network] -= 1
        if not self.by_address[place.network]:
            del self.by_address[place.network]


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


def origin_allowed(origin: str | None, host: str | None, allowed: Collection[str]) -> bool:
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
    parts = urls.split(origin)
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()
