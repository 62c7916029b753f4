# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Bounds on connections, commands and origins."""

from __future__ import annotations

import pytest

from wsproxy.transport.limits import Limits, Pace, Tally, origin_allowed

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
    """Total and per address, and what was refused is not counted."""
    tally = Tally(Limits(connections=3, connections_per_address=2))
    assert [tally.admit("a"), tally.admit("a"), tally.admit("b")] == [None, None, None]
    assert tally.admit("b") == "too many connections"
    tally.leave("b")
    assert tally.admit("a") == "too many connections from this address"
    tally.leave("a")
    assert tally.admit("a") is None
    tally.leave("a")
    tally.leave("a")
    assert (tally.total, dict(tally.by_address)) == (0, {})


def test_zero_is_no_bound() -> None:
    """Of connections of any kind."""
    tally = Tally(Limits(connections=0, connections_per_address=0))
    assert all(tally.admit("a") is None for _ in range(1000))


def test_commands_beyond_the_burst_wait_for_the_rate() -> None:
    """And a pause fills the bucket again."""
    pace = Pace(rate=10, burst=3)
    assert [pace.wait(100.0) for _ in range(3)] == [0, 0, 0]
    assert pace.wait(100.0) == pytest.approx(0.1)
    assert pace.wait(100.0) == pytest.approx(0.2)
    assert pace.wait(110.0) == 0
