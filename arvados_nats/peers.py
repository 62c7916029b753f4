# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Peers of whom nothing is known but their address, and what they share. Pure.

Who may choose any address of a network counts as one: a machine has a whole /64 of IPv6
(RFC 4291 2.5.1), and one of IPv4.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from ipaddress import IPv6Address
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


def network(address: str) -> str:
    """The address of one machine: itself, or its /64; what is no address, as it is."""
    if ":" not in address:
        return address
    try:
        parsed = IPv6Address(address)
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"


class FewPlaces(Generic[T]):
    """Places for so many; beyond that the network that holds most of them gives one up."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._networks: dict[T, str] = {}
        self._held: dict[str, dict[T, None]] = {}

    def take(self, member: T, address: str) -> T | None:
        """A place for `member`; who has lost theirs to it, of that network the first that came."""
        self.leave(member)
        peer = network(address)
        self._networks[member] = peer
        self._held.setdefault(peer, {})[member] = None
        if len(self._networks) <= self._most:
            return None
        largest: dict[T, None] = max(self._held.values(), key=len)
        loser = next(iter(largest))
        self.leave(loser)
        return loser

    def leave(self, member: T) -> bool:
        """Give up a place, if `member` holds any."""
        peer = self._networks.pop(member, None)
        if peer is None:
            return False
        held = self._held[peer]
        del held[member]
        if not held:
            del self._held[peer]
        return True

    def __contains__(self, member: object) -> bool:
        return member in self._networks

    def __iter__(self) -> Iterator[T]:
        return iter(self._networks)

    def __len__(self) -> int:
        return len(self._networks)
