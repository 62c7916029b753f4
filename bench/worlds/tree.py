# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A tree of projects that everybody can read, put in by SQL as a restored database has it.

Each project holds up to twenty others. What the table of permissions holds of it, users times
projects, is put in with its indexes away, as pg_restore does: ten million rows in half the time.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from bench.worlds.cluster import World
from sandbox import raw_rows
from sandbox.model.records import Record
from sandbox.raw_rows import new_uuid

_WIDTH = 20
_PROJECTS = """
INSERT INTO groups (uuid, owner_uuid, name, group_class, created_at, updated_at, modified_at)
SELECT uuid, owner, uuid, 'project', now(), now(), now()
FROM unnest($1::varchar[], $2::varchar[]) AS given(uuid, owner)
"""
_ROWS = """
INSERT INTO materialized_permissions
SELECT users.uuid, target, 1, true FROM users, unnest($1::varchar[]) AS target
WHERE users.uuid = ANY($2::varchar[])
"""
_INDEXES = "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'materialized_permissions'"
_MOVE = "UPDATE groups SET owner_uuid = $2, modified_at = now(), updated_at = now() WHERE uuid = $1"


@dataclass(frozen=True, slots=True)
class Tree:
    """`top` is what was shared; `branch` a project with a twentieth of the others in it."""

    top: Record
    branch: str
    other: str


async def plant(made: World, projects: int) -> Tree:
    """Make it, and share it with the role that everybody has."""
    cluster, writer = made.sandbox.cluster, made.writer
    top = await cluster.project("tree", owner=cluster.root)
    uuids = [new_uuid("j7d0g") for _ in range(projects)]
    owners = [top.uuid if n < _WIDTH else uuids[n // _WIDTH - 1] for n in range(projects)]
    await cluster.share(top, cluster.config.all_users)
    await writer.execute(_PROJECTS, uuids, owners)
    readers = [user.uuid for user in made.users]
    async with _without_indexes(writer):
        await writer.execute(_ROWS, uuids, readers)
    # Else autovacuum does it, in the midst of what is measured.
    await writer.execute("VACUUM (ANALYZE, FREEZE)")
    return Tree(top, uuids[0], uuids[1])


@asynccontextmanager
async def _without_indexes(writer: asyncpg.Connection) -> AsyncIterator[None]:
    indexes = await writer.fetch(_INDEXES)
    await writer.execute("SET maintenance_work_mem = '512MB'")
    for name, _ in indexes:
        await writer.execute(f"DROP INDEX {name}")
    yield
    for _, definition in indexes:
        await writer.execute(definition)


async def move_branch(made: World, tree: Tree) -> tuple[str, float]:
    """Move it beside itself: whoever can read it can still, so the table has nothing new.

    Its uuid, and the moment of the commit.
    """
    was = {"uuid": tree.branch, "owner_uuid": tree.top.uuid, "group_class": "project"}
    row = raw_rows.row(
        tree.branch,
        properties=raw_rows.change(was, was | {"owner_uuid": tree.other}),
        object_owner_uuid=tree.other,
    )
    async with made.sandbox.cluster.pool.acquire() as writer, writer.transaction():
        await writer.execute(_MOVE, tree.branch, tree.other)
        await raw_rows.insert(writer, [row])
    return tree.branch, time.monotonic()
