# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Where pages of a log end is remembered within one life of the stream only."""

from __future__ import annotations

from typing import cast

from arvados_nats.contract.log_chunks import Chunk
from arvados_nats.nats.client import Nats
from wsproxy.logs.pieces import StreamPage
from wsproxy.logs.place import LogPlace
from wsproxy.logs.stored import StoredLogs

_CONTAINER = "zzzzz-dz642-000000000000001"


def test_a_page_of_a_former_life_is_not_remembered() -> None:
    """It was on its way, or in the hands of its reader, when the stream was made anew."""
    stored, file, end = StoredLogs(cast(Nats, None)), "stdout.txt", LogPlace(0, 5)
    page = StreamPage([(700, Chunk(_CONTAINER, file, 0, 0, b"bytes"))], False, True, 700)
    stored.remember(_CONTAINER, file, end, page)
    stored.skip(_CONTAINER, file, LogPlace(0, 9), page)
    assert len(stored._places) == 2
    stored.forget()
    stored.remember(_CONTAINER, file, end, page)
    stored.skip(_CONTAINER, file, LogPlace(0, 9), page)
    assert not stored._places
