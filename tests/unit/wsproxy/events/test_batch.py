# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Events that several readers see travel together, and their bytes are made once."""

from __future__ import annotations

from arvados_nats.protocol_v1.requests import EventsTarget
from tests.support.made_events import made
from wsproxy.events.batch import MAX_FORMS, Batch
from wsproxy.events.filters import Filters


def test_a_batch_knows_its_place_in_the_stream() -> None:
    """`first` and `last` are sequences, not numbers of events: the stream may have holes."""
    batch = Batch([made(3), made(7)])

    assert (batch.first, batch.last, len(batch)) == (3, 7, 2)


def test_bytes_of_one_form_are_made_once_and_shared() -> None:
    """All who send the same get the very same object; another form is another one."""
    batch = Batch([made(1), made(2)])

    batch.keep("frame", [b"one", b"two"])

    assert batch.made.get("frame") == (b"onetwo", 2)
    assert batch.made.get("text") is None


def test_those_who_want_the_same_have_one_form() -> None:
    """In whatever order they say it; nobody has the bytes of those who want something else."""
    a, b = (f"zzzzz-j7d0g-{letter * 15}" for letter in "ab")
    same = [
        EventsTarget(owners=[a, b], kinds=["collection"]),
        EventsTarget(owners=[b, a], kinds=["arvados#collection", "collection"]),
    ]
    others = [
        EventsTarget(owners=[a, b]),
        EventsTarget(owners=[a], kinds=["collection"]),
        EventsTarget(owners=[a, b], kinds=["collection"], below=True),
        EventsTarget(objects=[a, b], kinds=["collection"]),
        EventsTarget(owners=[a, b], kinds=["collection"], objects=[]),
        EventsTarget(),
    ]
    forms = [Filters(target).form("1") for target in (*same, *others)]
    assert forms[0] == forms[1]
    assert len({*forms, *(Filters(same[0]).form(of) for of in (1, "2"))}) == 1 + len(others) + 2


def test_a_single_event_is_not_copied() -> None:
    """Its frame is shared as it is."""
    frame = b"frame"

    assert Batch([made(1)]).keep("frame", [frame])[0] is frame


def test_forms_that_clients_choose_are_kept_up_to_a_bound() -> None:
    """Each costs the bytes of the batch; one more is made, and not kept."""
    batch = Batch([made(1)])

    for number in range(MAX_FORMS + 1):
        assert batch.keep(number, [b"frame"]) == (b"frame", 1)

    assert len(batch.made) == MAX_FORMS
