# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Read from Arvados' database what users may read: all the SQL of the permission publisher.

Read are the rows at share points (`share_points`): all but those at users whom the user merely
sees, and of those at groups the ones to which a permission link leads from the user, or from a role
that the user reaches; there the row must be, and the level is that of the link, since what comes
from above follows the group. What lies below share points is read with each object.

Everything in one `Reading` is of one snapshot. Its generation is the snapshot's own place in the
order of all snapshots of this database, so that answers of any replica can be ordered without any
of them talking to another: a later snapshot has a higher xmax, or the same and fewer transactions
that are still open. Times are the database's, in seconds since 1970.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from sys import intern

from arvados_nats.permission_client import grants_messages
from arvados_nats.permissions.grants import ClusterState, Grants, PermissionRows, fold, stand_ins
from publishers.postgres.database import Database, Row, Snapshot

# The planner takes a user's rows for unrelated, and would read the whole table to join it, or
# compile for longer than an index takes: what follows in this transaction goes by indexes. And it
# is planned for how many are asked about (since PostgreSQL 12): a plan for all is one for ten.
_SNAPSHOT = """
SELECT set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
       set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true),
       set_config('max_parallel_workers_per_gather', '0', true),
       CASE WHEN current_setting('server_version_num')::int >= 120000
            THEN set_config('plan_cache_mode', 'force_custom_plan', true) END,
       (txid_snapshot_xmax(s) << 20) + 1048575
         - (SELECT count(*) FROM txid_snapshot_xip(s)) AS generation,
       extract(epoch FROM clock_timestamp())::float8 AS now
FROM txid_current_snapshot() AS s
"""
_USERS = """
SELECT uuid, coalesce(is_admin, false) AS is_admin, coalesce(is_active, false) AS is_active,
       coalesce(redirect_to_user_uuid, '') AS redirect
FROM users WHERE uuid = ANY($1::varchar[])
"""
# All but the rows at groups, which may be very many: by the ranges of the index in which they
# stand, for each cluster that users are of. Of rows at users, which are many where all see each
# other, only those that traverse count: who merely sees a user is known by the role.
_BESIDE_GROUPS = """
SELECT asked.uuid, own.perm_level, own.traverse_owned, string_agg(own.target_uuid, ' ') AS targets
FROM unnest($1::varchar[]) AS asked(uuid)
CROSS JOIN (SELECT DISTINCT left(uuid, 5) || '-' AS cluster FROM users) AS known
CROSS JOIN (VALUES ('00000', 'j7d0f'), ('j7d0h', 'zzzzz')) AS kinds(first, last)
CROSS JOIN LATERAL (
    SELECT target_uuid, perm_level, traverse_owned FROM materialized_permissions
    WHERE user_uuid = asked.uuid
      AND target_uuid >= known.cluster || kinds.first || '-000000000000000'
      AND target_uuid <= known.cluster || kinds.last || '-zzzzzzzzzzzzzzz'
    OFFSET 0
) AS own
WHERE own.perm_level >= 1 AND (own.traverse_owned OR own.target_uuid NOT LIKE '_____-tpzed-%')
GROUP BY asked.uuid, own.perm_level, own.traverse_owned
"""
_LEVEL = "CASE links.name WHEN 'can_manage' THEN 3 WHEN 'can_write' THEN 2 ELSE 1 END"
_LEADS = """links.link_class = 'permission' AND links.head_uuid LIKE '_____-j7d0g-%'
          AND links.name IN ('can_read', 'can_login', 'can_write', 'can_manage')"""
# Roles are found from those who are asked about, by their links and what they own: the links of all
# others are not looked at.
_GIVEN = f"""
tails AS (
    SELECT head_uuid AS tail_uuid FROM links WHERE tail_uuid = ANY($1::varchar[]) AND {_LEADS}
    UNION
    SELECT uuid FROM groups WHERE owner_uuid = ANY($1::varchar[]) AND group_class = 'role'
    UNION
    SELECT links.head_uuid FROM tails JOIN links ON links.tail_uuid = tails.tail_uuid AND {_LEADS}
), given AS (
    -- A role's links once, not for each of its members: one with everybody leads to everybody.
    SELECT reached.user_uuid, head_uuid, least(reached.perm_level, link_level) AS level
    FROM tails
    CROSS JOIN LATERAL (
        SELECT array_agg(head_uuid) AS heads, array_agg({_LEVEL}) AS levels FROM links
        WHERE links.tail_uuid = tails.tail_uuid AND {_LEADS}
    ) AS there
    JOIN materialized_permissions AS reached ON reached.target_uuid = tails.tail_uuid
    CROSS JOIN LATERAL unnest(there.heads, there.levels) AS link(head_uuid, link_level)
    WHERE reached.user_uuid = ANY($1::varchar[]) AND reached.perm_level >= 1
    UNION ALL
    SELECT asked.uuid, links.head_uuid, {_LEVEL}
    FROM unnest($1::varchar[]) AS asked(uuid)
    JOIN links ON links.tail_uuid = asked.uuid AND {_LEADS}
)
"""
_GIVEN_AT = f"""
given AS (
    SELECT reached.user_uuid, links.head_uuid, least(reached.perm_level, {_LEVEL}) AS level
    FROM links JOIN materialized_permissions AS reached ON reached.target_uuid = links.tail_uuid
    WHERE links.head_uuid = ANY($2::varchar[]) AND {_LEADS}
      AND links.tail_uuid LIKE '_____-j7d0g-%'
      AND reached.user_uuid = ANY($1::varchar[]) AND reached.perm_level >= 1
    UNION ALL
    SELECT links.tail_uuid, links.head_uuid, {_LEVEL} FROM links
    WHERE links.head_uuid = ANY($2::varchar[]) AND {_LEADS}
      AND links.tail_uuid = ANY($1::varchar[])
)
"""
_HEADS = """SELECT DISTINCT head_uuid FROM links
          WHERE link_class = 'permission' AND head_uuid LIKE '_____-j7d0g-%'"""
_HEADS_AT = "SELECT unnest($2::varchar[]) AS head_uuid"


def _held(given: str, heads: str) -> str:
    return f"""
WITH RECURSIVE {given}, held AS (
    SELECT given.user_uuid, own.target_uuid, bool_or(own.traverse_owned) AS traverse_owned,
           max(least(given.level, own.perm_level)) AS perm_level
    FROM given
    JOIN materialized_permissions AS own
      ON own.user_uuid = given.user_uuid AND own.target_uuid = given.head_uuid
    WHERE own.perm_level >= 1
    GROUP BY given.user_uuid, own.target_uuid
    UNION ALL
    -- A row that no link explains and no row above: Arvados forgot to take it away, and goes by it.
    SELECT own.user_uuid, own.target_uuid, own.traverse_owned, own.perm_level
    FROM ({heads}) AS heads
    JOIN groups ON groups.uuid = heads.head_uuid
    JOIN materialized_permissions AS own ON own.target_uuid = heads.head_uuid
    WHERE own.user_uuid = ANY($1::varchar[]) AND own.perm_level >= 1
      AND NOT EXISTS (
          SELECT FROM materialized_permissions AS above
          WHERE above.user_uuid = own.user_uuid AND above.target_uuid = groups.owner_uuid
            AND above.traverse_owned AND above.perm_level >= 1)
)
SELECT user_uuid, perm_level, traverse_owned, string_agg(target_uuid, ' ') AS targets
FROM held GROUP BY user_uuid, perm_level, traverse_owned
"""


_AT_GROUPS = _held(_GIVEN, _HEADS)
_AT_HEADS = _held(_GIVEN_AT, _HEADS_AT)
_ROLES = """
SELECT count(*) FROM groups WHERE uuid = ANY($1::varchar[]) AND group_class IS DISTINCT FROM 'role'
"""
_REACHING = """
SELECT DISTINCT user_uuid FROM materialized_permissions WHERE target_uuid = ANY($1::varchar[])
"""
_MAX_REDIRECTS = 5

Rows = dict[str, list[PermissionRows]]
Sources = dict[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Reading:
    """What the database said of some users at one moment.

    `grants` is keyed by who was asked about, and so are the `versions` of them; `sources` gives,
    for each, the users whose rows went in.
    """

    generation: int
    now: float
    role_groups_visible: bool | None = None
    grants: Mapping[str, Grants] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    sources: Sources = field(default_factory=dict)


class GrantsQuery:
    """Reads grants."""

    def __init__(self, database: Database, *, role_groups_visible: bool | None) -> None:
        self._database = database
        self._role_groups_visible = role_groups_visible

    async def read(self, users: Iterable[str]) -> Reading:
        """Grants of these users, whether or not they exist. Raises Unavailable."""
        asked = sorted(set(users))
        async with self._database.snapshot() as snapshot:
            moment = (await snapshot.fetch(_SNAPSHOT))[0]
            people = await _people(snapshot, asked) if asked else {}
            rows = await _rows(snapshot, people)
        visible = self._role_groups_visible
        reading = Reading(moment["generation"], moment["now"], visible)
        state = ClusterState(role_groups_visible=visible)
        grants, versions = {}, {}
        for user in asked:
            grants[user] = _grants(people.get(user), user, rows, state, reading.generation)
            versions[user] = grants_messages.grants_version(grants[user])
            await asyncio.sleep(0)  # events do not wait for two hundred users
        sources = _sources(asked, people, rows)
        return replace(reading, grants=grants, versions=versions, sources=sources)

    async def read_at(self, users: Iterable[str], groups: Sequence[str]) -> Reading | None:
        """What these users, in whose place nobody stands, have at some groups alone; None where one
        of these is a role, or none, since more can depend on it."""
        asked = sorted(set(users))
        async with self._database.snapshot() as snapshot:
            moment = (await snapshot.fetch(_SNAPSHOT))[0]
            if (await snapshot.fetch(_ROLES, groups))[0]["count"] != len({*groups}):
                return None
            found: Rows = {}
            for user, level, traverse, joined in await snapshot.fetch(_AT_HEADS, asked, groups):
                found.setdefault(user, []).append(PermissionRows(level, traverse, joined.split()))
        visible = self._role_groups_visible
        grants = {user: Grants(user, targets=fold(user, found)) for user in found}
        return Reading(moment["generation"], moment["now"], visible, grants)

    async def reaching(self, targets: Iterable[str]) -> set[str]:
        """Every user with a row on one of these targets."""
        rows = await self._database.fetch(_REACHING, sorted(targets))
        return {row["user_uuid"] for row in rows}


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
    for sql in (_BESIDE_GROUPS, _AT_GROUPS) if users else ():
        for user, level, traverse, joined in await snapshot.fetch(sql, sorted(users)):
            targets = [*map(intern, joined.split())]
            rows.setdefault(user, []).append(PermissionRows(level, traverse, targets))
            await asyncio.sleep(0)
    return rows


def _sources(asked: Iterable[str], people: Mapping[str, Row], rows: Rows) -> Sources:
    """For each user, everybody whose rows went into their grants."""
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


def _grants(
    person: Row | None, user: str, rows: Rows, state: ClusterState, generation: int
) -> Grants:
    if person is None:
        return Grants(user, cluster=state, generation=generation)
    uuid, is_admin = person["uuid"], person["is_admin"]
    targets = fold(uuid, {uuid: rows.get(uuid, [])} if is_admin else rows)
    return Grants(uuid, is_admin, person["is_active"], targets, state, generation)
