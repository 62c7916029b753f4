# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Read from Arvados' database what users may read: all the SQL of the permission publisher.

Everything in one `Reading` is of one snapshot. Its generation is the snapshot's own place in the
order of all snapshots of this database, so that answers of any replica can be ordered without any
of them talking to another: a later snapshot has a higher xmax, or the same and fewer transactions
that are still open. Times are the database's, in seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from sys import intern

from arvados_nats import grants_wire
from arvados_nats.grants import (
    ClusterState,
    Grants,
    PermissionRow,
    fold,
    owners_beside,
    stand_ins,
    with_live_owner,
)
from publishers.postgres import Database, Row, Snapshot

_SNAPSHOT = """
SELECT (txid_snapshot_xmax(s) << 20) + 1048575
         - (SELECT count(*) FROM txid_snapshot_xip(s)) AS generation,
       extract(epoch FROM clock_timestamp())::float8 AS now
FROM txid_current_snapshot() AS s
"""
_USERS = """
SELECT uuid, coalesce(is_admin, false) AS is_admin, coalesce(is_active, false) AS is_active,
       coalesce(redirect_to_user_uuid, '') AS redirect
FROM users WHERE uuid = ANY($1::varchar[])
"""
_ROWS = """
SELECT user_uuid, target_uuid, perm_level, traverse_owned FROM materialized_permissions
WHERE user_uuid = ANY($1::varchar[]) AND perm_level >= 1
"""
_OWNERS = """
SELECT uuid, owner_uuid FROM {table} WHERE uuid = ANY($1::varchar[])
"""
_TABLES = {
    "-j7d0g-": "groups",
    "-4zz18-": "collections",
    "-xvhdp-": "container_requests",
    "-7fd4e-": "workflows",
}
_CLUSTER_DIGEST = """
SELECT concat_ws(' ', t.*, f.*) AS digest
FROM (SELECT count(*), sum(hashtextextended(concat(group_uuid, trash_at), 0))
      FROM trashed_groups) AS t,
     (SELECT count(*), sum(hashtextextended(uuid, 0)) FROM frozen_groups) AS f
"""
_TRASHED = """
SELECT group_uuid, extract(epoch FROM trash_at)::float8 AS trash_at FROM trashed_groups
WHERE trash_at IS NOT NULL
"""
_FROZEN = "SELECT uuid FROM frozen_groups"
_REACHING = """
SELECT DISTINCT user_uuid FROM materialized_permissions WHERE target_uuid = ANY($1::varchar[])
"""
_MAX_REDIRECTS = 5


@dataclass(frozen=True, slots=True)
class Known:
    """The state of the cluster as last read, and a digest of the tables that it came from."""

    state: ClusterState
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What the database said of some users at one moment.

    `grants` is keyed by who was asked about; `stand_ins` gives, for each, the other users whose
    rows went in.
    """

    generation: int
    now: float
    cluster: Known
    grants: Mapping[str, Grants] = field(default_factory=dict)
    stand_ins: Mapping[str, frozenset[str]] = field(default_factory=dict)


class GrantsQuery:
    """Reads grants; remembers the state of the cluster, which seldom changes."""

    def __init__(self, database: Database, *, role_groups_visible: bool) -> None:
        self._database = database
        self._role_groups_visible = role_groups_visible
        self._known = Known(ClusterState(), "", "")

    async def read(self, users: Iterable[str]) -> Reading:
        """Grants of these users, whether or not they exist. Raises Unavailable."""
        asked = sorted(set(users))
        async with self._database.snapshot() as snapshot:
            moment = (await snapshot.fetch(_SNAPSHOT))[0]
            known = await self._cluster(snapshot, moment["generation"])
            people = await _people(snapshot, asked) if asked else {}
            rows = await _rows(snapshot, people)
            owners = await _owners(snapshot, rows)
        reading = Reading(moment["generation"], moment["now"], known, {}, {})
        grants = {
            user: _grants(people[user], rows, owners, reading) for user in asked if user in people
        }
        unknown = {u: Grants(u, cluster=known.state, generation=reading.generation) for u in asked}
        seen = {u: frozenset(stand_ins(rows.get(row["uuid"], ()))) for u, row in people.items()}
        return Reading(reading.generation, reading.now, known, unknown | grants, seen)

    async def reaching(self, targets: Iterable[str]) -> set[str]:
        """Every user with a row on one of these targets."""
        rows = await self._database.fetch(_REACHING, sorted(targets))
        return {row["user_uuid"] for row in rows}

    async def _cluster(self, snapshot: Snapshot, generation: int) -> Known:
        digest = (await snapshot.fetch(_CLUSTER_DIGEST))[0]["digest"]
        if digest == self._known.digest:
            return self._known
        trashed = {row["group_uuid"]: row["trash_at"] for row in await snapshot.fetch(_TRASHED)}
        frozen = frozenset(row["uuid"] for row in await snapshot.fetch(_FROZEN))
        state = ClusterState(trashed, frozen, self._role_groups_visible, generation)
        known = Known(state, grants_wire.cluster_version(state), digest)
        if generation >= self._known.state.generation:
            self._known = known
        return known


async def _people(snapshot: Snapshot, asked: Sequence[str]) -> dict[str, Row]:
    """Who each of them is, or was merged into."""
    people: dict[str, Row] = {}
    wanted = {user: user for user in asked}
    for _ in range(_MAX_REDIRECTS):
        found = {row["uuid"]: row for row in await snapshot.fetch(_USERS, sorted(wanted.values()))}
        people.update((user, found[at]) for user, at in wanted.items() if at in found)
        wanted = {
            user: found[at]["redirect"]
            for user, at in wanted.items()
            if at in found and found[at]["redirect"]
        }
        if not wanted:
            break
    # Merged in a circle, or away from the table: such a token is nobody's.
    return {user: row for user, row in people.items() if not row["redirect"]}


async def _rows(snapshot: Snapshot, people: Mapping[str, Row]) -> dict[str, list[PermissionRow]]:
    """Rows of these users, and of those that stand in for them; admins need none of the latter."""
    rows = await _rows_of(snapshot, {row["uuid"] for row in people.values()})
    others: set[str] = set()
    for row in people.values():
        if not row["is_admin"]:
            others |= stand_ins(rows.get(row["uuid"], ()))
    return rows | await _rows_of(snapshot, others - rows.keys())


async def _rows_of(snapshot: Snapshot, users: set[str]) -> dict[str, list[PermissionRow]]:
    rows: dict[str, list[PermissionRow]] = {}
    if users:
        for user, target, level, traverse in await snapshot.fetch(_ROWS, sorted(users)):
            rows.setdefault(user, []).append(PermissionRow(user, intern(target), level, traverse))
    return rows


async def _owners(
    snapshot: Snapshot, rows: Mapping[str, Iterable[PermissionRow]]
) -> dict[str, str]:
    targets = dict.fromkeys((row.target_uuid for found in rows.values() for row in found), 0)
    by_infix: dict[str, list[str]] = {}
    for uuid in with_live_owner(targets):
        by_infix.setdefault(uuid[5:12], []).append(uuid)
    owners: dict[str, str] = {}
    for infix, uuids in by_infix.items():
        sql = _OWNERS.format(table=_TABLES[infix])
        owners.update((uuid, owner) for uuid, owner in await snapshot.fetch(sql, uuids))
    return owners


def _grants(
    person: Row,
    rows: Mapping[str, Sequence[PermissionRow]],
    owners: Mapping[str, str],
    reading: Reading,
) -> Grants:
    user = person["uuid"]
    mine = {user: rows.get(user, ())} if person["is_admin"] else rows
    targets = fold(user, mine)
    found = {uuid: owners[uuid] for uuid in with_live_owner(targets) if uuid in owners}
    return Grants(
        user,
        person["is_admin"],
        person["is_active"],
        targets,
        owners_beside(targets, found),
        reading.cluster.state,
        reading.generation,
    )
