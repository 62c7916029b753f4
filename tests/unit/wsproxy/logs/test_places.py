# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Places in the stream that are remembered."""

from __future__ import annotations

import pytest

from wsproxy.logs import stored as stored_module
from wsproxy.logs.pieces import StreamPage
from wsproxy.logs.place import LogPlace
from wsproxy.logs.stored import StoredLogs


def test_places_of_which_nothing_came_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader chooses where to begin, and a container what stands there."""
    monkeypatch.setattr(stored_module, "_PLACES", 10)
    stored = StoredLogs(None)  # type: ignore[arg-type]
    page = StreamPage([], joined=False, more=True, last=7)
    for offset in range(100):
        stored.skip("zzzzz-dz642-000000000000001", "a.b", LogPlace(0, offset), page)
    assert len(stored._places) == 10
