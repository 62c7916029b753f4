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

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from sys import intern

from arvados_nats.permission_client import grants_messages
from arvados_nats.permissions.grants import (
    ClusterState,
    Grants,
    PermissionRows,
    fold,
    owners_beside,
    stand_ins,
    with_live_owner,
)
from publishers.postgres.database import Database, Row, Snapshot

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
SELECT user_uuid, perm_level, traverse_owned, string_agg(target_uuid, ' ') AS targets
FROM materialized_permissions
WHERE user_uuid = ANY($1::varchar[]) AND perm_level >= 1
GROUP BY user_uuid, perm_level, traverse_owned
"""
_USER_DIGESTS = """
SELECT uuid, concat_ws(' ', is_admin, is_active, redirect_to_user_uuid) AS digest
FROM users WHERE uuid = ANY($1::varchar[])
"""
_ROW_DIGESTS = """
SELECT user_uuid AS uuid, concat_ws(' ', count(*), sum(
         hashtextextended(target_uuid, perm_level * 2 + traverse_owned::int))) AS digest
FROM materialized_permissions
WHERE user_uuid = ANY($1::varchar[]) AND perm_level >= 1
GROUP BY user_uuid
"""
_OWNERS = """
SELECT owner_uuid, string_agg(uuid, ' ') AS uuids FROM {table}
WHERE uuid = ANY($1::varchar[]) GROUP BY owner_uuid
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

Rows = dict[str, list[PermissionRows]]
Sources = dict[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Known:
    """The state of the cluster as last read, and a digest of the tables that it came from."""

    state: ClusterState
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What the database said of some users at one moment.

    `grants` is keyed by who was asked about, and so are the `versions` of them; `sources` gives,
    for each, the users whose rows went in, and `digests` a text that is the same as long as those
    rows are.
    """

    generation: int
    now: float
    cluster: Known
    grants: Mapping[str, Grants] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    sources: Sources = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)


class GrantsQuery:
    """Reads grants; remembers the state of the cluster, which seldom changes."""

    def __init__(self, database: Database, *, role_groups_visible: bool | None) -> None:
        self._database = database
        self._role_groups_visible = role_groups_visible
        self._known = Known(ClusterState(), "", "")

    async def read(self, users: Iterable[str], *, digests: bool = False) -> Reading:
        """Grants of these users, whether or not they exist. Raises Unavailable."""
        asked = sorted(set(users))
        async with self._database.snapshot() as snapshot:
            moment = (await snapshot.fetch(_SNAPSHOT))[0]
            known = await self._cluster(snapshot, moment["generation"])
            people = await _people(snapshot, asked) if asked else {}
            rows = await _rows(snapshot, people)
            owners = await _owners(snapshot, _targets(rows))
            sources = _sources(asked, people, rows)
            seen = await _digests(snapshot, sources) if digests else {}
        reading = Reading(moment["generation"], moment["now"], known)
        grants, versions = {}, {}
        for user in asked:
            grants[user] = _grants(people.get(user), user, rows, owners, reading)
            versions[user] = grants_messages.grants_version(grants[user])
            await asyncio.sleep(0)  # events do not wait for two hundred users
        return replace(reading, grants=grants, versions=versions, sources=sources, digests=seen)

    async def differing(self, known: Mapping[str, tuple[frozenset[str], str]]) -> set[str]:
        """Those of the users whose rows are not what they were: by sources and digest as read."""
        async with self._database.snapshot() as snapshot:
            now = await _digests(snapshot, {user: sources for user, (sources, _) in known.items()})
        return {user for user, (_, digest) in known.items() if now[user] != digest}

    async def owners(self, uuids: Iterable[str]) -> dict[str, str]:
        """Where these objects are kept now; those that are gone are left out."""
        async with self._database.snapshot() as snapshot:
            return await _owners(snapshot, uuids)

    async def reaching(self, targets: Iterable[str]) -> set[str]:
        """Every user with a row on one of these targets."""
        rows = await self._database.fetch(_REACHING, sorted(targets))
        return {row["user_uuid"] for row in rows}

    async def _cluster(self, snapshot: Snapshot, generation: int) -> Known:
        visible = self._role_groups_visible
        digest = f"{(await snapshot.fetch(_CLUSTER_DIGEST))[0]['digest']} {visible}"
        if digest == self._known.digest:
            return self._known
        trashed = {row["group_uuid"]: row["trash_at"] for row in await snapshot.fetch(_TRASHED)}
        frozen = frozenset(row["uuid"] for row in await snapshot.fetch(_FROZEN))
        state = ClusterState(trashed, frozen, visible, generation)
        known = Known(state, grants_messages.cluster_version(state), digest)
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


async def _rows(snapshot: Snapshot, people: Mapping[str, Row]) -> Rows:
    """Rows of these users, and of those that stand in for them; admins need none of the latter."""
    rows = await _rows_of(snapshot, {row["uuid"] for row in people.values()})
    others: set[str] = set()
    for row in people.values():
        if not row["is_admin"]:
            others.update(stand_ins(row["uuid"], rows.get(row["uuid"], ())))
    return rows | await _rows_of(snapshot, others - rows.keys())


async def _rows_of(snapshot: Snapshot, users: set[str]) -> Rows:
    rows: Rows = {}
    if users:
        for user, level, traverse, joined in await snapshot.fetch(_ROWS, sorted(users)):
            targets = [*map(intern, joined.split())]
            rows.setdefault(user, []).append(PermissionRows(level, traverse, targets))
    return rows


def _targets(rows: Rows) -> Iterator[str]:
    return (uuid for found in rows.values() for alike in found for uuid in alike.targets)


def _sources(asked: Iterable[str], people: Mapping[str, Row], rows: Rows) -> Sources:
    """For each user, everybody whose rows went into his grants."""
    sources: Sources = {}
    for user in asked:
        person = people.get(user)
        found = {user}
        if person is not None:
            found.add(person["uuid"])
        if person is not None and not person["is_admin"]:
            found.update(stand_ins(person["uuid"], rows.get(person["uuid"], ())))
        sources[user] = frozenset(found)
    return sources


async def _digests(snapshot: Snapshot, sources: Sources) -> dict[str, str]:
    everybody = sorted(set().union(*sources.values())) if sources else []
    found: dict[str, str] = {}
    for sql in (_USER_DIGESTS, _ROW_DIGESTS):
        for uuid, digest in await snapshot.fetch(sql, everybody):
            found[uuid] = f"{found.get(uuid, '')}/{digest}"
    return {
        user: " ".join(f"{uuid}{found.get(uuid, '')}" for uuid in sorted(uuids))
        for user, uuids in sources.items()
    }


async def _owners(snapshot: Snapshot, uuids: Iterable[str]) -> dict[str, str]:
    by_infix: dict[str, set[str]] = {}
    for uuid in with_live_owner(uuids):
        by_infix.setdefault(uuid[5:12], set()).add(uuid)
    owners: dict[str, str] = {}
    for infix, wanted in by_infix.items():
        sql = _OWNERS.format(table=_TABLES[infix])
        for owner, joined in await snapshot.fetch(sql, [*wanted]):
            owners.update(dict.fromkeys(map(intern, joined.split()), intern(owner)))
    return owners


def _grants(
    person: Row | None, user: str, rows: Rows, owners: Mapping[str, str], reading: Reading
) -> Grants:
    state, generation = reading.cluster.state, reading.generation
    if person is None:
        return Grants(user, cluster=state, generation=generation)
    uuid, is_admin = person["uuid"], person["is_admin"]
    targets = fold(uuid, {uuid: rows.get(uuid, [])} if is_admin else rows)
    beside = owners_beside(targets, owners)
    return Grants(uuid, is_admin, person["is_active"], targets, beside, state, generation)
