# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who counts as one peer, and who loses a place."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arvados_nats.peers import FewPlaces, network


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("unix:", "unix:"),
        ("[2001:db8::1]:443", "[2001:db8::1]:443"),
    ],
)
def test_a_machine_is_one_peer(address: str, peer: str) -> None:
    """Whichever of its addresses it takes; what is no address is told from others as it is."""
    assert network(address) == peer


@given(
    most=st.integers(1, 8),
    steps=st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60),
)
def test_nobody_loses_a_place_while_somebody_else_has_more(
    most: int, steps: list[tuple[str, bool]]
) -> None:
    """And of who has most the first goes; there are never more than so many."""
    places = FewPlaces[int](most)
    held: dict[int, str] = {}
    for number, (peer, leaves) in enumerate(steps):
        if leaves and held:
            first = next(iter(held))
            assert places.leave(first)
            assert not places.leave(first)
            del held[first]
            continue
        held[number] = peer
        loser = places.take(number, peer)
        assert (loser is None) == (len(held) <= most)
        if loser is not None:
            counts = Counter(held.values())
            assert counts[held[loser]] == max(counts.values())
            assert loser == next(one for one in held if held[one] == held[loser])
            del held[loser]
        assert (list(places), len(places)) == (list(held), len(held))
        assert all(one in places for one in held)
