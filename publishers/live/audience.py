# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which owners and objects a message is shown under, below `arvados.live`.

Pure but for two reads of the database. A container's bytes are shown under each container request
that points to it now; which those are is remembered, and read again when an event names one of
them, and after ten seconds, since some changes leave no event (docs/facts/arvados.md 1, "user
merge"). What is in the trash is shown only where include_trash would lift it: collections and
groups (docs/facts/permission-rule.md). Patterns of readers follow the same rule (`grant_subjects`),
some milliseconds later.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable

from arvados_nats.contract.events import Event
from arvados_nats.contract.subjects import is_uuid
from publishers.postgres import object_tables
from publishers.postgres.database import Database
from publishers.postgres.object_tables import Requests

FRESH_TRASH = 5.0
"""Seconds: trash that no event tells of is noticed so late."""

_FRESH_REQUESTS = 10.0
_MOST_CONTAINERS = 20_000
_TRASHED = """
    SELECT group_uuid,
           extract(epoch FROM trash_at)::float8
               - extract(epoch FROM clock_timestamp())::float8 AS seconds
    FROM trashed_groups WHERE trash_at IS NOT NULL
"""

LIFTED = frozenset({"collection", "group"})
KINDS = LIFTED | {"container", "container_request", "workflow"}
"""Kinds whose rule is owner and object alone; no other is shown below `arvados.live`."""

Pair = tuple[str, str]
"""(owner uuid, object uuid)"""


class RequestsOfContainers:
    """The container requests that point to each container, remembered for a short while."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, tuple[float, Requests]] = {}
        self._containers_of: defaultdict[str, set[str]] = defaultdict(set)
        self._changes = 0

    async def read(self, containers: Iterable[str]) -> dict[str, Requests]:
        """As they are now, or were less than ten seconds ago with no event about them since."""
        wanted = set(containers)
        while missing := {uuid for uuid in wanted if not self._is_fresh(uuid)}:
            changes = self._changes
            found = await object_tables.requests_of(self._database, missing)
            if changes == self._changes:  # else an event has come while we read: read again
                self._remember(missing, found)
        return {uuid: self._known[uuid][1] for uuid in wanted}

    def seen(self, event: Event) -> None:
        """Forget what an event may have changed. A forged one costs a read, no more."""
        if event.object_uuid is None or event.object_kind != "arvados#containerRequest":
            return
        self._changes += 1
        named = set(self._containers_of.pop(event.object_uuid, ()))
        for side in ("old_attributes", "new_attributes"):
            attributes = event.properties.get(side)
            if isinstance(attributes, dict) and isinstance(
                uuid := attributes.get("container_uuid"), str
            ):
                named.add(uuid)
        for uuid in named:
            self._known.pop(uuid, None)

    def _is_fresh(self, uuid: str) -> bool:
        known = self._known.get(uuid)
        return known is not None and time.monotonic() - known[0] < _FRESH_REQUESTS

    def _remember(self, asked: set[str], found: dict[str, Requests]) -> None:
        if len(self._known) + len(asked) > _MOST_CONTAINERS:
            self._known.clear()
            self._containers_of.clear()
        now = time.monotonic()
        for container in asked:
            requests = found.get(container, [])
            self._known[container] = now, requests
            for uuid, _ in requests:
                self._containers_of[uuid].add(container)


class Trash:
    """Groups in the trash, with the moment from which on they are: how far off PostgreSQL says."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._since: dict[str, float] = {}
        self._read_at = float("-inf")

    async def refresh(self, *, within: float = FRESH_TRASH) -> None:
        """Read the table, unless it was read in the last `within` seconds."""
        now = time.monotonic()
        if now - self._read_at >= within:
            rows = await self._database.fetch(_TRASHED)
            self._since = {uuid: now + seconds for uuid, seconds in rows}
            self._read_at = now

    def holds(self, owner: str) -> bool:
        """Whether what this owner has is in the trash now."""
        since = self._since.get(owner)
        return since is not None and since <= time.monotonic()


def of_event(event: Event, kind: str, trash: Trash) -> list[Pair]:
    """Where an event of one of `KINDS` is shown."""
    lifted = kind in LIFTED
    if not lifted and event.facts.get("trash_at") is not None:
        return []  # a workflow that is linked to a collection which goes to the trash one day
    return [
        (owner, uuid)
        for owner, uuid in event.audience
        if is_uuid(owner) and is_uuid(uuid) and (lifted or not trash.holds(owner))
    ]


def of_log(requests: Requests, trash: Trash) -> list[Pair]:
    """Where the bytes of a container with these requests are shown."""
    return [
        (owner, uuid)
        for uuid, owner in requests
        if is_uuid(owner) and is_uuid(uuid) and not trash.holds(owner)
    ]
