# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What readers rely on, user by user, and what has changed about it since they were told.

No I/O. A user is watched while somebody asks about him; every replica hears of every answer, so
each knows which version of whose grants is out there. The replica that leads reads them again
when something may have moved (`grants_leader`) and gets from here what to tell.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from arvados_nats.permission_client.grants_messages import MAX_LISTED, GrantsAnswered, GrantsChanged
from arvados_nats.permissions.grant_subjects import Change, compare
from arvados_nats.permissions.grants import ClusterState, Grants
from publishers.permissions.query import Known, Reading

_UNASKED = 900.0


@dataclass(slots=True)
class Watched:
    """One user. `version` is what readers hold or were told of, empty where they differ.

    `grants` is what was last read here; None: nothing yet.
    """

    version: str
    generation: int
    grants: Grants | None = None
    sources: frozenset[str] = frozenset()
    digest: str = ""
    asked: float = field(default_factory=time.monotonic)


class Watch:
    """The watched users of one replica."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._users: dict[str, Watched] = {}
        self._cluster = Known(ClusterState(), "", "")
        self._looked_at = 0.0

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
        cluster = self._cluster
        behind = (
            note.cluster_version != cluster.version and note.generation < cluster.state.generation
        )
        for user, version in note.users.items():
            watched = self._users.get(user)
            if watched is None:
                watched = self._users[user] = Watched(version, note.generation)
                unsure.add(user)
            watched.asked = self._clock()
            if watched.version != version or behind:
                # Of two readers one holds the earlier: somebody must be told.
                watched.version = ""
                unsure.add(user)
        if note.cluster_version != self._cluster.version:
            unsure.update(note.users)
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

    def shared_directly(self, users: Iterable[str] | None = None) -> set[str]:
        """Objects whose owner matters to these users, or to anybody: moving one is looked at."""
        chosen = self._users if users is None else [u for u in users if u in self._users]
        return {
            uuid
            for user in chosen
            if (grants := self._users[user].grants) is not None
            for uuid in grants.owner_of
        }

    def digests(self, users: Iterable[str]) -> dict[str, tuple[frozenset[str], str]]:
        """What `GrantsQuery.differing` compares; users that were not read yet are left out."""
        return {
            user: (watched.sources, watched.digest)
            for user in users
            if (watched := self._users.get(user)) is not None and watched.digest
        }

    def misplaced(self, users: Iterable[str], owners: Mapping[str, str]) -> set[str]:
        """Those who have something shared directly that is kept elsewhere now."""
        return {
            user
            for user in users
            if (watched := self._users.get(user)) is not None and watched.grants is not None
            if any(owners.get(uuid) != o for uuid, o in watched.grants.owner_of.items())
        }

    def take(self, reading: Reading, cause: str) -> Iterator[GrantsChanged]:
        """Compare a reading with what was known; what to tell, in any order."""
        yield from self._take_cluster(reading, cause)
        for user, grants in reading.grants.items():
            watched = self._users.get(user)
            if watched is None or grants.generation < watched.generation:
                continue
            version = reading.versions[user]
            if version != watched.version:
                yield self._told(user, watched, grants, reading.now, cause)
            watched.version, watched.generation = version, grants.generation
            watched.grants = grants
            watched.sources = reading.sources.get(user, frozenset())
            watched.digest = reading.digests.get(user, "")

    def renumber(self) -> None:
        """The database has gone back in time, as after a failover: any reading is newer now."""
        for watched in self._users.values():
            watched.generation = 0
        state = msgspec.structs.replace(self._cluster.state, generation=0)
        self._cluster = replace(self._cluster, state=state)

    def time_passed(self, generation: int, now: float) -> Iterator[GrantsChanged]:
        """What the trash times since the last look have taken away."""
        before, self._looked_at = self._looked_at, max(now, self._looked_at)
        due = {g for g, at in self._cluster.state.trashed.items() if before < at <= now}
        if due and before:
            yield from self._compare_all(
                due, self._cluster.state, generation, (before, now), "trash"
            )

    def next_trash_time(self, now: float) -> float | None:
        """When the next group goes to the trash, by the database's clock."""
        coming = (at for at in self._cluster.state.trashed.values() if at > now)
        return min(coming, default=None)

    def _take_cluster(self, reading: Reading, cause: str) -> Iterator[GrantsChanged]:
        yield from self.time_passed(reading.generation, reading.now)
        old, new = self._cluster, reading.cluster
        if new.version == old.version or new.state.generation < old.state.generation:
            return
        self._cluster = new
        if not old.version:
            return
        moved = _difference(old.state, new.state)
        times = (reading.now, reading.now)
        yield from self._compare_all(moved, new.state, reading.generation, times, cause)

    def _compare_all(
        self,
        groups: set[str],
        state: ClusterState,
        generation: int,
        times: tuple[float, float],
        cause: str,
    ) -> Iterator[GrantsChanged]:
        for user, watched in self._users.items():
            if watched.grants is None:
                # Answered, and not read here before it changed: what he relies on is not known.
                yield GrantsChanged(user, generation, cause, narrows=True)
                continue
            if not _in_cluster(watched.grants, groups):
                continue
            now = msgspec.structs.replace(watched.grants, cluster=state, generation=generation)
            change = compare(watched.grants, now, *times)
            watched.grants, watched.generation = now, max(watched.generation, generation)
            if change:
                yield _summary(user, change, cause)

    def _told(
        self, user: str, watched: Watched, grants: Grants, now: float, cause: str
    ) -> GrantsChanged:
        if watched.grants is None or not watched.version:
            # Somebody holds a version that differs in ways not known here.
            return GrantsChanged(user, grants.generation, cause, narrows=True)
        return _summary(user, compare(watched.grants, grants, now, now), cause)


def _concerns(grants: Grants, near: set[str], touched: Collection[str]) -> bool:
    return grants.user_uuid in near or any(uuid in grants.targets for uuid in touched)


def _in_cluster(grants: Grants, groups: set[str]) -> bool:
    if grants.is_admin:
        return True
    few, many = sorted((groups, grants.targets.keys()), key=len)
    return any(uuid in many for uuid in few) or any(o in groups for o in grants.owner_of.values())


def _difference(old: ClusterState, new: ClusterState) -> set[str]:
    moved = {group for group, _ in old.trashed.items() ^ new.trashed.items()}
    return moved | (old.frozen ^ new.frozen)


def _summary(user: str, change: Change, cause: str) -> GrantsChanged:
    return GrantsChanged(
        user,
        change.generation,
        cause,
        change.narrows,
        change.lost[:MAX_LISTED],
        change.gained[:MAX_LISTED],
    )


def batches(users: Iterable[str], size: int) -> Iterator[list[str]]:
    """Lists of at most `size` users."""
    found = [*users]
    return (found[at : at + size] for at in range(0, len(found), size))
