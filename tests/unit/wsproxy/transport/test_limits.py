# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Bounds on connections, commands and origins."""

from __future__ import annotations

import pytest

from wsproxy.transport.limits import Limits, Pace, Tally, TooMany, origin_allowed

WB = "https://workbench.example"


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        (WB, True),
        ("https://WORKBENCH.example", True),
        ("https://workbench.example:8443", False),
        ("http://workbench.example", False),
        ("https://workbench.example.evil", False),
        ("https://evilworkbench.example", False),
        ("https://workbench.example@evil.example", False),
        ("https://workbеnch.example", False),  # a Cyrillic letter
        ("null", False),
        ("file://", False),
        ("", False),
        ("https://ws.example", True),
        ("http://ws.example", True),
        ("ftp://ws.example", False),
    ],
)
def test_origins(origin: str | None, allowed: bool) -> None:
    """Whole origins only; programs have none; the page's own host may always connect."""
    assert origin_allowed(origin, "ws.example", frozenset({WB})) is allowed


def test_star_lets_every_origin_in() -> None:
    """As arvados-ws does."""
    assert origin_allowed("https://any.example", "ws.example", frozenset({"*"}))


def test_tally_counts_in_and_out() -> None:
    """In all and per address; what was refused is not counted, and leaving twice counts once."""
    tally = Tally(Limits(connections=3, connections_per_address=2))
    first, second, third = (tally.enter(address) for address in "aab")
    for place in (first, second, third, third):
        place.settle()
    with pytest.raises(TooMany, match=r"^too many connections$"):
        tally.enter("b")
    third.leave()
    third.leave()
    with pytest.raises(TooMany, match="from this address"):
        tally.enter("a")
    first.leave()
    assert tally.enter("a") in tally.unknown
    assert (tally.known, tally.by_address) == ({second}, {"a": 2})


def test_the_unknown_one_that_came_first_makes_room() -> None:
    """For another unknown one; of those who are known none has to go."""
    gone: list[str] = []
    tally = Tally(Limits(connections=2, unknown=2))
    known = tally.enter("a")
    known.settle()
    for name in "bcde":
        place = tally.enter(name)
        place.evict = lambda name=name: gone.append(name)  # type: ignore[misc]
    assert gone == ["b", "c"]
    assert [place.address for place in tally.unknown] == ["d", "e"]
    assert tally.by_address == {"a": 1, "d": 1, "e": 1}
    late, last = tally.unknown
    late.settle()
    with pytest.raises(TooMany):
        last.settle()
    assert last in tally.unknown


def test_a_flood_from_one_address_takes_no_place_from_another() -> None:
    """However many come: of the network with most places somebody has to go."""
    tally = Tally(Limits(unknown=4))
    guest = tally.enter("192.0.2.1")
    for number in range(100):
        tally.enter(f"2001:db8::{number:x}")
    assert guest in tally.unknown
    assert tally.by_address == {"192.0.2.1": 1, "2001:db8::/64": 3}


def test_a_machine_has_one_allowance() -> None:
    """Of connections, whichever of its addresses they come from."""
    tally = Tally(Limits(connections_per_address=1))
    tally.enter("2001:db8::1")
    with pytest.raises(TooMany, match="from this address"):
        tally.enter("2001:db8::2")


def test_zero_is_no_bound() -> None:
    """Of connections of any kind that are known."""
    tally = Tally(Limits(connections=0, connections_per_address=0))
    for _ in range(1000):
        tally.enter("a").settle()
    assert len(tally.known) == 1000


def test_commands_beyond_the_burst_wait_for_the_rate() -> None:
    """And a pause fills the bucket again."""
    pace = Pace(rate=10, burst=3)
    assert [pace.wait(100.0) for _ in range(3)] == [0, 0, 0]
    assert pace.wait(100.0) == pytest.approx(0.1)
    assert pace.wait(100.0) == pytest.approx(0.2)
    assert pace.wait(110.0) == 0
