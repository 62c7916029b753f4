# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A run of old events, for all who read them: each finds what may be theirs without a look at all.

Who is behind would else be asked about every event of the past, one by one, and many of them
would never come to its end while new ones are stored. Whoever is found is still judged by the rule.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import chain

from arvados_nats.permissions.grants import Grants
from arvados_nats.permissions.object_facts import ObjectFacts
from arvados_nats.permissions.rule import Identity
from wsproxy.events.stored_event import StoredEvent


class Block:
    """The events of one run of sequences; `next_sequence` is where to read on."""

    def __init__(self, events: Sequence[StoredEvent], next_sequence: int) -> None:
        self.events = events
        self.next_sequence = next_sequence
        self.as_of_now: tuple[Mapping[str, ObjectFacts | None], Block] | None = None
        """The block by the facts of its objects that were looked up last (`present`)."""
        self.fresh_until = 0.0
        """By the monotonic clock, unless an event tells of one of its objects before."""
        self.asking = asyncio.Lock()
        """Held by who looks them up: the next finds them fresh."""

    @cached_property
    def objects(self) -> frozenset[str]:
        """Uuids of those whose facts decide."""
        return frozenset(filter(None, (stored.decided_by for stored in self.events)))

    @cached_property
    def kinds(self) -> frozenset[str]:
        """Names of their kinds."""
        return frozenset(stored.kind.name for stored in self.events if stored.kind)

    @cached_property
    def _by_key(self) -> dict[str, list[StoredEvent]]:
        found: dict[str, list[StoredEvent]] = {}
        for stored in self.events:
            for key in set(stored.keys or ()):
                found.setdefault(key, []).append(stored)
        return found

    @cached_property
    def _of_anybody(self) -> list[StoredEvent]:
        return [stored for stored in self.events if stored.keys is None]

    def for_reader(
        self, identity: Identity, grants: Grants | None, after: int, until: int
    ) -> list[StoredEvent]:
        """In order, all that a reader may see after a sequence and up to another, and some more.

        `grants`: None where nobody can tell them.
        """
        if grants is None or grants.is_admin or identity.is_root:
            found = self.events
        else:
            targets, by_key = grants.targets, self._by_key
            few, many = (targets, by_key) if len(targets) < len(by_key) else (by_key, targets)
            users = {identity.user_uuid, grants.user_uuid}
            keys = {key for key in few if key in many} | (users & by_key.keys())
            mine = chain(self._of_anybody, *(by_key[key] for key in keys))
            unique = {stored.sequence: stored for stored in mine}
            found = [unique[sequence] for sequence in sorted(unique)]
        return [stored for stored in found if after < stored.sequence <= until]
