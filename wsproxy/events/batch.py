# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Events of one loop turn that several readers may see, and the bytes they share.

Pure. What a burst costs is the number of writes (docs/facts/realtime.md 2.2), and what a sink costs
is being asked: so a sink gets the events of a turn together, and all sinks that send the same bytes
send the same object.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from wsproxy.events.stored_event import StoredEvent


class Batch:
    """Events in stream order, at least one; never changed."""

    __slots__ = ("events", "first", "last", "made")

    def __init__(self, events: Sequence[StoredEvent]) -> None:
        self.events = events
        self.first = events[0].sequence
        self.last = events[-1].sequence
        self.made: dict[Hashable, bytes] = {}
        """All events as one piece of bytes, by form: looked up for every socket, so no call."""

    def __len__(self) -> int:
        return len(self.events)

    def keep(self, form: Hashable, pieces: Sequence[bytes]) -> bytes:
        """The events in one form, joined for whoever asks for it next."""
        piece = self.made[form] = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return piece
