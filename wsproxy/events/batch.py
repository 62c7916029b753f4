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

MAX_FORMS = 256
"""Forms that are kept of a batch: clients choose what they are told, so there may be any number."""


class Batch:
    """Events in stream order, at least one; never changed."""

    __slots__ = ("_shows_requests", "events", "first", "last", "made")

    def __init__(self, events: Sequence[StoredEvent]) -> None:
        self.events = events
        self.first = events[0].sequence
        self.last = events[-1].sequence
        self.made: dict[Hashable, tuple[bytes, int]] = {}
        """By form, the events it has as one piece of bytes, and how many these are: looked up for
        every socket, so no call."""
        self._shows_requests: bool | None = None

    def __len__(self) -> int:
        return len(self.events)

    @property
    def shows_requests(self) -> bool:
        """Whether a container is among the objects, which each reader sees by other requests."""
        if self._shows_requests is None:
            self._shows_requests = any(s.facts and s.facts.requests for s in self.events)
        return self._shows_requests

    def keep(self, form: Hashable, pieces: Sequence[bytes]) -> tuple[bytes, int]:
        """Events in one form, joined for whoever asks for it next, and their number."""
        joined = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if len(self.made) < MAX_FORMS:
            self.made[form] = joined, len(pieces)
        return joined, len(pieces)
