# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Keeps `materialized_permissions` true, inside the writer's transaction.

As Arvados does it: under an EXCLUSIVE lock, so that writers of the graph wait for each other
(docs/facts/arvados.md 1, 10). A change at a user recomputes all of their rows, a change at a group
the rows of everything below it.
"""

from __future__ import annotations

from collections.abc import Iterable

from sandbox.model.database import Connection
from sandbox.model.derived import permission_graph as graph
from sandbox.model.derived.permission_graph import Change, Edge, Grant, Grants

VIEW = """
CREATE OR REPLACE VIEW permission_graph_edges AS
SELECT owner_uuid AS tail_uuid, uuid AS head_uuid, 3 AS val, uuid AS edge_id FROM groups
UNION ALL SELECT owner_uuid, uuid, 3, uuid FROM users
UNION ALL SELECT uuid, uuid, 3, '' FROM users
UNION ALL SELECT tail_uuid, head_uuid,
    CASE name WHEN 'can_read' THEN 1 WHEN 'can_login' THEN 1
              WHEN 'can_write' THEN 2 WHEN 'can_manage' THEN 3 ELSE 0 END, uuid
FROM links WHERE link_class = 'permission'
"""
_BELOW = """
WITH RECURSIVE passed(uuid) AS (
    SELECT $1::varchar WHERE $2
    UNION
    SELECT e.head_uuid FROM passed JOIN permission_graph_edges e ON e.tail_uuid = passed.uuid
    WHERE e.head_uuid LIKE '_____-j7d0g-%')
SELECT e.tail_uuid, e.head_uuid, e.val, e.edge_id
FROM passed JOIN permission_graph_edges e ON e.tail_uuid = passed.uuid
"""
_INBOUND = """
SELECT tail_uuid, head_uuid, val, edge_id FROM permission_graph_edges
WHERE head_uuid = ANY($1::varchar[])
"""
_HOLDERS = """
SELECT user_uuid, target_uuid, perm_level FROM materialized_permissions
WHERE target_uuid = ANY($1::varchar[]) AND traverse_owned
AND (user_uuid = target_uuid OR target_uuid NOT LIKE '_____-tpzed-%')
"""
_STORE = """
INSERT INTO materialized_permissions (user_uuid, target_uuid, perm_level, traverse_owned)
SELECT * FROM unnest($1::varchar[], $2::varchar[], $3::int[], $4::bool[])
ON CONFLICT (user_uuid, target_uuid) DO UPDATE
SET perm_level = excluded.perm_level, traverse_owned = excluded.traverse_owned
"""
_DROP = """
DELETE FROM materialized_permissions p
USING unnest($1::varchar[], $2::varchar[]) AS gone(user_uuid, target_uuid)
WHERE p.user_uuid = gone.user_uuid AND p.target_uuid = gone.target_uuid
"""
_WITHOUT_SELF = """
SELECT reached FROM unnest($1::varchar[]) AS reached WHERE NOT EXISTS
    (SELECT 1 FROM materialized_permissions WHERE user_uuid = reached AND target_uuid = reached)
"""
_ROWS = "SELECT user_uuid, target_uuid, perm_level, traverse_owned FROM materialized_permissions"


async def update(connection: Connection, change: Change, *, all_users: bool = False) -> None:
    """Recompute what the change may touch; call it before a removed edge's row is gone."""
    await connection.execute("LOCK TABLE materialized_permissions IN EXCLUSIVE MODE")
    if graph.is_user(change.origin) and not all_users:
        await _update_user(connection, change)
    else:
        await _update_below(connection, change)


async def _update_user(connection: Connection, change: Change) -> None:
    user = change.origin
    exists = await connection.fetchval("SELECT true FROM users WHERE uuid = $1", user)
    edges = await _edges(connection, _BELOW, user, True)
    new = graph.of_user(user, edges, change) if exists else {}
    old = await _rows(connection, f"{_ROWS} WHERE user_uuid = $1", user)
    selves = {t for _, t in new.keys() - old.keys() if graph.is_user(t) and t != user}
    await _store(connection, old, new)
    await _restore_selves(connection, selves)


async def _restore_selves(connection: Connection, users: set[str]) -> None:
    """Every user that is newly reached holds themselves."""
    if not users:
        return
    rows = await connection.fetch(_WITHOUT_SELF, list(users))
    missing = [row[0] for row in rows]
    await _store(connection, {}, {(u, u): Grant(graph.MANAGE, True) for u in missing})


async def _update_below(connection: Connection, change: Change) -> None:
    expands = change.origin == change.start or not graph.is_user(change.start)
    inner = await _edges(connection, _BELOW, change.start, expands)
    targets = list(graph.affected(inner, change))
    inbound = await _edges(connection, _INBOUND, targets)
    found = graph.origins(inner, inbound, change)
    holders = await connection.fetch(_HOLDERS, list(found))
    new = graph.through(found, ((r[0], r[1], r[2]) for r in holders))
    old = await _rows(connection, f"{_ROWS} WHERE target_uuid = ANY($1::varchar[])", targets)
    await _store(connection, old, new)


async def refresh(connection: Connection) -> None:
    """Compute the whole table anew, as after a bulk load or a migration."""
    await connection.execute("LOCK TABLE materialized_permissions IN EXCLUSIVE MODE")
    users = [row[0] for row in await connection.fetch("SELECT uuid FROM users")]
    edges = await _edges(
        connection, "SELECT tail_uuid, head_uuid, val, edge_id FROM permission_graph_edges"
    )
    await connection.execute("DELETE FROM materialized_permissions")
    await _insert(connection, graph.everything(edges, users))


async def _edges(connection: Connection, query: str, *args: object) -> list[Edge]:
    return [Edge(r[0], r[1], r[2], r[3]) for r in await connection.fetch(query, *args)]


async def _rows(connection: Connection, query: str, *args: object) -> Grants:
    return {(r[0], r[1]): Grant(r[2], r[3]) for r in await connection.fetch(query, *args)}


async def _store(connection: Connection, old: Grants, new: Grants) -> None:
    await _delete(connection, [key for key in old if key not in new])
    await _insert(connection, {k: g for k, g in new.items() if old.get(k) != g})


async def _insert(connection: Connection, grants: Grants) -> None:
    if grants:
        keys, values = list(grants), list(grants.values())
        await connection.execute(
            _STORE,
            [user for user, _ in keys],
            [target for _, target in keys],
            [grant.level for grant in values],
            [grant.traverse_owned for grant in values],
        )


async def _delete(connection: Connection, keys: Iterable[tuple[str, str]]) -> None:
    gone = list(keys)
    if gone:
        await connection.execute(_DROP, [user for user, _ in gone], [t for _, t in gone])
