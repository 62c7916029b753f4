# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Events of one loop turn that several readers may see, and the bytes they share.

Pure. What a burst costs is the number of writes (facts/realtime.md 2.2), and what a sink costs is
being asked: so a sink gets the events of a turn together, and all sinks that send the same bytes
send the same object.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from wsproxy.stored_event import StoredEvent


class Batch:
    """Events in stream order, at least one; never changed."""

    __slots__ = ("_made", "events", "first", "last")

    def __init__(self, events: Sequence[StoredEvent]) -> None:
        self.events = events
        self.first = events[0].sequence
        self.last = events[-1].sequence
        self._made: dict[Hashable, bytes] = {}

    def __len__(self) -> int:
        return len(self.events)

    def joined(self, form: Hashable, pieces: Callable[[], Sequence[bytes]]) -> bytes:
        """All events in one form, as one piece of bytes; made when first asked for."""
        made = self._made.get(form)
        if made is None:
            made = self._made[form] = b"".join(pieces())
        return made
