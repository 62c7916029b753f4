# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What readers rely on, user by user, and what has changed about it since they were told.

No I/O. A user is watched while somebody asks about them; every replica hears of every answer, so
each knows which version of whose grants is out there. The replica that leads reads them again
when something may have moved (`grants_leader`) and gets from here what to tell.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

from arvados_nats.permission_client.grants_messages import MAX_LISTED, GrantsAnswered, GrantsChanged
from arvados_nats.permissions.grant_subjects import compare
from arvados_nats.permissions.grants import Grants
from publishers.permissions.query import Reading

_UNASKED = 900.0


@dataclass(slots=True)
class Watched:
    """One user. `version` is what readers hold or were told of, empty where they differ.

    `grants` is what was last read here; None: nothing yet.
    """

    version: str
    generation: int
    noted: int = 0
    """The latest answer that a replica gave."""
    grants: Grants | None = None
    sources: frozenset[str] = frozenset()
    asked: float = field(default_factory=time.monotonic)


class Watch:
    """The watched users of one replica."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._users: dict[str, Watched] = {}

    def __len__(self) -> int:
        return len(self._users)

    def users(self) -> list[str]:
        """Everybody watched; those whom nobody has asked about for long are dropped."""
        now = self._clock()
        self._users = {u: w for u, w in self._users.items() if now - w.asked < _UNASKED}
        return [*self._users]

    def answered(self, note: GrantsAnswered) -> set[str]:
        """Remember who was given what; the users who must be read before they can be compared."""
        unsure: set[str] = set()
        for user, version in note.users.items():
            watched = self._users.get(user)
            if watched is None:
                watched = self._users[user] = Watched(version, note.generation)
                unsure.add(user)
            watched.asked = self._clock()
            watched.noted = max(watched.noted, note.generation)
            if watched.version != version:
                # Of two readers one holds the earlier: somebody must be told.
                watched.version = ""
                unsure.add(user)
        return unsure

    def affected(self, touched: Collection[str], reaching: Collection[str]) -> set[str]:
        """Watched users whose grants may differ after a change near the `touched` nodes.

        `reaching` are all users with a row on one of them now; who had one is known from before.
        Whoever is stood in for by an affected user is affected too (U_1, docs/facts/permission-
        rule.md).
        """
        near = {*touched, *reaching}
        return {
            user
            for user, watched in self._users.items()
            if user in near
            or not near.isdisjoint(watched.sources)
            or (watched.grants is not None and _concerns(watched.grants, near, touched))
        }

    def take(self, reading: Reading, cause: str) -> Iterator[GrantsChanged]:
        """Compare a reading with what was known; what to tell, in any order."""
        for user, grants in reading.grants.items():
            watched = self._users.get(user)
            if watched is None or grants.generation < watched.generation:
                continue
            version = reading.versions[user]
            if version != watched.version:
                yield self._told(user, watched, grants, cause, version)
            watched.version, watched.generation = version, grants.generation
            watched.grants = grants
            watched.sources = reading.sources.get(user, frozenset())

    def renumber(self) -> None:
        """The database has gone back in time, as after a failover: any reading is newer now."""
        for watched in self._users.values():
            watched.generation = watched.noted = 0

    def settled(self, user: str) -> bool:
        """Whether what was last read is what readers hold, or were told of since."""
        watched = self._users.get(user)
        return watched is None or (watched.version != "" and watched.noted <= watched.generation)

    def _told(
        self, user: str, watched: Watched, grants: Grants, cause: str, version: str
    ) -> GrantsChanged:
        if watched.grants is None or not watched.version:
            # Somebody holds a version that differs in ways not known here.
            return GrantsChanged(user, grants.generation, cause, narrows=True, version=version)
        change = compare(watched.grants, grants)
        return GrantsChanged(
            user,
            change.generation,
            cause,
            change.narrows,
            change.lost[:MAX_LISTED],
            change.gained[:MAX_LISTED],
            version,
        )


def _concerns(grants: Grants, near: set[str], touched: Collection[str]) -> bool:
    return grants.user_uuid in near or any(uuid in grants.targets for uuid in touched)


def batches(users: Iterable[str], size: int) -> Iterator[list[str]]:
    """Lists of at most `size` users."""
    found = [*users]
    return (found[at : at + size] for at in range(0, len(found), size))
