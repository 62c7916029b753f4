# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Events that several readers see travel together, and their bytes are made once."""

from __future__ import annotations

from tests.support.made_events import made
from wsproxy.events.batch import Batch


def test_a_batch_knows_its_place_in_the_stream() -> None:
    """`first` and `last` are sequences, not numbers of events: the stream may have holes."""
    batch = Batch([made(3), made(7)])

    assert (batch.first, batch.last, len(batch)) == (3, 7, 2)


def test_bytes_of_one_form_are_made_once_and_shared() -> None:
    """All who send the same get the very same object; another form is another one."""
    batch = Batch([made(1), made(2)])

    first = batch.keep("frame", [b"one", b"two"])

    assert first == b"onetwo"
    assert batch.made.get("frame") is first
    assert batch.made.get("text") is None


def test_a_single_event_is_not_copied() -> None:
    """Its frame is shared as it is."""
    frame = b"frame"

    assert Batch([made(1)]).keep("frame", [frame]) is frame
