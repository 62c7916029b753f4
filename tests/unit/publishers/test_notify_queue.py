# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What is made of the payload of a NOTIFY."""

from __future__ import annotations

import time

import pytest

from publishers.events import notify_queue
from publishers.events.notify_queue import Notified, bigint


@pytest.mark.parametrize(
    ("payload", "number"),
    [
        ("1", 1),
        ("-5", -5),
        ("0007", 7),
        (str(2**63 - 1), 2**63 - 1),
        (str(-(2**63)), -(2**63)),
        (str(2**63), None),
        ("9" * 5000, None),
        ("", None),
        ("-", None),
        ("--5", None),
        ("+5", None),
        (" 5", None),
        ("5\n", None),
        ("1_000", None),
        ("1.0", None),
        ("0x10", None),
        ("abc", None),
        ("٣", None),
        ("²", None),
    ],
)
def test_only_a_decimal_bigint_is_an_id(payload: str, number: int | None) -> None:
    """Whatever Python would take for a number beyond that is refused."""
    assert bigint(payload) == number


async def test_ids_come_out_in_the_order_they_came_in_each_once() -> None:
    """A transaction's duplicates collapse; the rest waits for its turn."""
    heard = Notified()
    for payload in ("3", "1", "nonsense", "3", "2"):
        heard.heard(payload)
    assert len(heard) == 4
    assert heard.take(3) == [3, 1]
    assert heard.take(3) == [2]
    assert heard.take(3) == []


async def test_waiting_ends_with_news_and_with_time() -> None:
    """At once when there are ids, after the time when there are none."""
    heard = Notified()
    began = time.monotonic()
    await heard.wait(0.05)
    assert 0.04 < time.monotonic() - began < 2
    heard.heard("1")
    await heard.wait(60)
    heard.take(1)
    await heard.wait(-1)


async def test_a_flood_is_bounded_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids beyond the bound are dropped; the scan is told once that it must look."""
    monkeypatch.setattr(notify_queue, "_MOST", 2)
    heard = Notified()
    for payload in ("1", "2", "3"):
        heard.heard(payload)
    assert heard.take(9) == [1, 2]
    assert heard.take_overflow()
    assert not heard.take_overflow()
