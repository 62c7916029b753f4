# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Priorities of containers, written by raw SQL: no log row ever tells of them.

A container's priority is the highest of its committed requests outside the trash: for a request
of a user its priority times 2^50 less its age in milliseconds, so that the older goes first; for
a request of another container that container's priority (docs/facts/arvados.md 0.1, 5, 9).
"""

from __future__ import annotations

from sandbox.model.database import Connection

SCALE = 1 << 50
_ONE = """
SELECT coalesce(max(CASE
    WHEN parent.uuid = $2 THEN $3
    WHEN parent.priority IS NOT NULL THEN parent.priority
    ELSE r.priority * $4::bigint - (extract(epoch FROM r.created_at) * 1000)::bigint END), 0)
FROM container_requests r LEFT JOIN containers parent ON parent.uuid = r.requesting_container_uuid
WHERE r.container_uuid = $1 AND r.state = 'Committed' AND r.priority > 0
AND r.owner_uuid NOT IN (SELECT group_uuid FROM trashed_groups
    WHERE trash_at <= statement_timestamp() AT TIME ZONE 'UTC')
"""
_CHILDREN = """
SELECT DISTINCT c.uuid FROM container_requests r JOIN containers c ON c.uuid = r.container_uuid
WHERE r.requesting_container_uuid = $1 AND c.state IN ('Queued', 'Locked', 'Running')
"""


async def update(connection: Connection, container_uuid: str) -> None:
    """Set the priority of a container and of all that it has requested."""
    waiting: list[tuple[str, str, int]] = [(container_uuid, "", 0)]
    seen: set[tuple[str, int]] = set()
    while waiting:
        uuid, parent, inherited = waiting.pop(0)
        priority = await connection.fetchval(_ONE, uuid, parent, inherited, SCALE)
        if (uuid, priority) in seen:
            continue
        seen.add((uuid, priority))
        await connection.execute(
            "UPDATE containers SET priority = $2 WHERE uuid = $1 AND priority <> $2",
            uuid,
            priority,
        )
        children = await connection.fetch(_CHILDREN, uuid)
        waiting += [(row[0], uuid, priority) for row in children]
