# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Keeps `trashed_groups` and `frozen_groups` true below a group that was changed.

A trash time and a freeze hold for everything below; only these two tables say so, not the rows
of the groups below (docs/facts/arvados.md 1).
"""

from __future__ import annotations

from sandbox.model.derived import container_priority
from sandbox.model.records import Record
from sandbox.model.refusal import raised
from sandbox.model.writer import Writer

_BELOW_TRASH = """
WITH RECURSIVE below(uuid, trash_at) AS (
    SELECT $1::varchar, least($2::timestamp, $3::timestamp)
    UNION SELECT g.uuid, least(below.trash_at, g.trash_at)
    FROM groups g JOIN below ON g.owner_uuid = below.uuid)
SELECT uuid, min(trash_at) AS trash_at FROM below GROUP BY uuid
"""
_BELOW_FROZEN = """
WITH RECURSIVE below(uuid, frozen) AS (
    SELECT $1::varchar, $2::boolean
    UNION SELECT g.uuid, below.frozen OR g.frozen_by_uuid IS NOT NULL
    FROM groups g JOIN below ON g.owner_uuid = below.uuid)
SELECT uuid, bool_or(frozen) AS frozen FROM below GROUP BY uuid
"""
_SET_TRASHED = """
INSERT INTO trashed_groups (group_uuid, trash_at)
SELECT * FROM unnest($1::varchar[], $2::timestamp[])
ON CONFLICT (group_uuid) DO UPDATE SET trash_at = excluded.trash_at
"""
_WAITING = """
SELECT DISTINCT container_uuid FROM container_requests WHERE owner_uuid = ANY($1::varchar[])
AND requesting_container_uuid IS NULL AND state = 'Committed' AND container_uuid IS NOT NULL
"""


async def update_trash(unit: Writer, group: Record) -> None:
    """After trash_at or owner of a group changed; container priorities follow, without rows."""
    above = await unit.connection.fetchval(
        "SELECT trash_at FROM trashed_groups WHERE group_uuid = $1", group["owner_uuid"]
    )
    rows = await unit.connection.fetch(_BELOW_TRASH, group.uuid, above, group["trash_at"])
    trashed = {row["uuid"]: row["trash_at"] for row in rows if row["trash_at"]}
    await _refuse_frozen(unit, [row["uuid"] for row in rows] if group.changed("trash_at") else [])
    if group["trash_at"] and group["group_class"] == "role":
        links = "link_class = 'permission' AND tail_uuid = $1 ORDER BY id"
        for link in await unit.where("link", links, group.uuid):
            await unit.destroy(link)
    below = [row["uuid"] for row in rows]
    if trashed:
        await unit.connection.execute(_SET_TRASHED, list(trashed), list(trashed.values()))
    await unit.connection.execute(
        "DELETE FROM trashed_groups WHERE group_uuid = ANY($1::varchar[])",
        [uuid for uuid in below if uuid not in trashed],
    )
    for row in await unit.connection.fetch(_WAITING, below):
        await container_priority.update(unit.connection, row[0])


async def _refuse_frozen(unit: Writer, below: list[str]) -> None:
    frozen = await unit.connection.fetchval(
        "SELECT uuid FROM frozen_groups WHERE uuid = ANY($1::varchar[]) LIMIT 1", below
    )
    if frozen:
        text = f"cannot trash project containing frozen project {frozen}"
        raise raised("ArgumentError", text)


async def update_frozen(unit: Writer, group: Record) -> None:
    """After a group was frozen, thawed or moved."""
    frozen_now = group["frozen_by_uuid"] is not None
    rows = await unit.connection.fetch(_BELOW_FROZEN, group.uuid, frozen_now)
    frozen = [row["uuid"] for row in rows if row["frozen"]]
    if frozen_now:
        await _refuse_running(unit, frozen)
    await unit.connection.execute(
        "DELETE FROM frozen_groups WHERE uuid = ANY($1::varchar[])",
        [row["uuid"] for row in rows if not row["frozen"]],
    )
    await unit.connection.execute(
        "INSERT INTO frozen_groups (uuid) SELECT unnest($1::varchar[]) ON CONFLICT DO NOTHING",
        frozen,
    )


async def _refuse_running(unit: Writer, frozen: list[str]) -> None:
    busy = await unit.connection.fetchrow(
        "SELECT uuid, state FROM container_requests WHERE owner_uuid = ANY($1::varchar[])"
        " AND state NOT IN ('Uncommitted', 'Final') LIMIT 1",
        frozen,
    )
    if busy:
        text = (
            f"cannot freeze project containing container request {busy['uuid']}"
            f" with state = {busy['state']}"
        )
        raise raised("ArgumentError", text)


async def forget(unit: Writer, uuid: str) -> None:
    """Before a group's row goes."""
    for query in (
        "DELETE FROM materialized_permissions WHERE target_uuid = $1",
        "DELETE FROM trashed_groups WHERE group_uuid = $1",
        "DELETE FROM frozen_groups WHERE uuid = $1",
    ):
        await unit.connection.execute(query, uuid)
