# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`watch queue` shows each state once, whatever order and however often it is heard."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from arvados_nats.commands.watch.events import Watch
from arvados_nats.commands.watch.queue import QueueView, _taken, line
from arvados_nats.contract import queue_entries
from arvados_nats.contract.queue_entries import QueueEntry
from arvados_nats.nats.client import Message

A, B = "zzzzz-dz642-00000000000000a", "zzzzz-dz642-00000000000000b"


class Shown:
    """A `Watch` that keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[msgspec.Struct] = []

    def show(self, _: list[str], message: msgspec.Struct) -> None:
        self.messages.append(message)

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(cast(Any, one).uuid[-1], getattr(one, "state", "gone")) for one in self.messages]


def entry(uuid: str = A, **given: Any) -> QueueEntry:
    plain: dict[str, Any] = dict.fromkeys(QueueEntry.__struct_fields__)
    return QueueEntry(
        **{**plain, "uuid": uuid, "state": "Queued", "priority": "0", "lock_count": 0, **given}
    )


def heard(sequence: int, found: QueueEntry | None, uuid: str = A) -> Message:
    headers = {"Nats-Sequence": str(sequence)}
    if found is None:
        return Message(f"arvados.stored.queue.{uuid}", b"", {**headers, "KV-Operation": "DEL"}, "")
    return Message(f"arvados.stored.queue.{uuid}", queue_entries.encode(found), headers, "")


@pytest.fixture
def shown() -> Shown:
    return Shown()


@pytest.fixture
def view(shown: Shown) -> QueueView:
    return QueueView(cast(Watch, shown))


def test_changes_in_order(view: QueueView, shown: Shown) -> None:
    """Each as it comes; the last sequence is what follows."""
    assert _taken(view, heard(4, entry()), 3) == 4
    assert _taken(view, heard(5, entry(state="Locked")), 4) == 5
    assert _taken(view, heard(6, None), 5) == 6
    assert shown.said == [("a", "Queued"), ("a", "Locked"), ("a", "gone")]


def test_old_and_missing_changes(view: QueueView, shown: Shown) -> None:
    """What the reading had is passed over; a hole means reading anew, and so does a pause."""
    assert _taken(view, heard(3, entry()), 3, old=True) == 3
    assert _taken(view, heard(5, entry()), 3) is None
    assert _taken(view, None, 3) is None
    assert shown.said == []


def test_a_reading_shows_the_difference(view: QueueView, shown: Shown) -> None:
    """The same value again is not shown; what is not there any more is."""
    for key in (A, B):
        view.change(key, entry(key), b"first")
    view.change(A, entry(A), b"first")
    view.only({A})
    assert shown.said == [("a", "Queued"), ("b", "Queued"), ("b", "gone")]


def test_a_bucket_that_counts_from_1_again_is_read_anew(view: QueueView, shown: Shown) -> None:
    """However busy it is: who passed over what has a lower number stood still for as long as
    something came."""
    assert _taken(view, heard(900, entry()), 899) == 900
    assert _taken(view, heard(3, entry(state="Locked")), 900) is None
    view.change(A, entry(A, state="Locked"), b"as it was read")
    assert shown.said == [("a", "Queued"), ("a", "Locked")]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"priority": str(500 * 2**50 - 12345)}, "Queued   priority 500"),
        ({"priority": "0"}, "Queued   priority on hold"),
        (
            {"state": "Locked", "priority": "3", "locked_by_uuid": "zzzzz-gj3su-1"},
            "Locked   priority 1    locked by zzzzz-gj3su-1",
        ),
        ({"priority": "3", "runtime_constraints": {"vcpus": 2, "ram": 9}}, "vcpus=2 ram=9"),
        ({"priority": "3", "runtime_constraints": "broken"}, "priority 1"),
    ],
)
def test_a_line_for_people(given: dict[str, Any], expected: str) -> None:
    """Priorities as users set them; what it needs; who has it."""
    assert expected in line(entry(**given))
