# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Grants read from PostgreSQL decide as a recorded Arvados did; generations order snapshots."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from arvados_nats.admin.permission_recording import PLAIN, WITH_TRASH, Recording, World
from arvados_nats.permissions.grant_subjects import subscriptions
from arvados_nats.permissions.grants import MANAGES_OWNED
from arvados_nats.permissions.judge import Judge
from arvados_nats.permissions.object_facts import ObjectFacts, timestamp
from arvados_nats.permissions.rule import Decision, Identity
from publishers.permissions.query import _GIVEN, _SNAPSHOT, GrantsQuery
from publishers.permissions.token_query import TokenQuery
from publishers.postgres import database as postgres
from publishers.postgres import places
from sandbox.cluster import open_cluster
from sandbox.servers.postgres import Database


@pytest.fixture
def query(reader: postgres.Database) -> GrantsQuery:
    return GrantsQuery(reader, role_groups_visible=True)


class Loader:
    """Keeps the tables that matter as they were recorded after a step."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._records: dict[str, dict[str, Any]] = {}

    async def advance(self, step: dict[str, Any]) -> None:
        execute = self._connection.executemany
        for user, target in step["permissions_removed"]:
            await self._connection.execute(
                "DELETE FROM materialized_permissions WHERE user_uuid = $1 AND target_uuid = $2",
                user,
                target,
            )
        await execute(
            "INSERT INTO materialized_permissions VALUES ($1, $2, $3, $4)"
            " ON CONFLICT (user_uuid, target_uuid) DO UPDATE"
            " SET perm_level = excluded.perm_level, traverse_owned = excluded.traverse_owned",
            step["permissions_set"],
        )
        await self._connection.execute("DELETE FROM trashed_groups")
        await self._connection.execute("DELETE FROM frozen_groups")
        trashed = [
            (uuid, datetime.fromisoformat(at).replace(tzinfo=None))
            for uuid, at in step["trashed_groups"].items()
        ]
        await execute("INSERT INTO trashed_groups VALUES ($1, $2)", trashed)
        await execute(
            "INSERT INTO frozen_groups VALUES ($1)", [(uuid,) for uuid in step["frozen_groups"]]
        )
        self._records.update(step["records_changed"])
        await self._owners(step)

    async def _owners(self, step: dict[str, Any]) -> None:
        for uuid in [*step["records_deleted"], *step["records_changed"]]:
            if table := _TABLE_OF.get(uuid[5:12]):
                await self._connection.execute(f"DELETE FROM {table} WHERE uuid = $1", uuid)
        for uuid, record in step["records_changed"].items():
            if table := _TABLE_OF.get(uuid[5:12]):
                row = {name: record.get(name, uuid) for name in _COLUMNS[table]} | {
                    "created_at": _THEN,
                    "updated_at": _THEN,
                }
                places = ", ".join(f"${n}" for n in range(1, len(row) + 1))
                await self._connection.execute(
                    f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", *row.values()
                )


_THEN = datetime(2026, 1, 1)
_TABLE_OF = {
    "-j7d0g-": "groups",
    "-4zz18-": "collections",
    "-xvhdp-": "container_requests",
    "-7fd4e-": "workflows",
    "-tpzed-": "users",
    "-o0j2j-": "links",
}
_COLUMNS = {
    "groups": ("uuid", "owner_uuid", "name"),
    "collections": ("uuid", "owner_uuid", "current_version_uuid", "version"),
    "container_requests": ("uuid", "owner_uuid"),
    "workflows": ("uuid", "owner_uuid"),
    "users": ("uuid", "owner_uuid", "is_admin", "is_active", "redirect_to_user_uuid"),
    "links": ("uuid", "owner_uuid", "tail_uuid", "head_uuid", "link_class", "name"),
}


async def test_every_recorded_cell_is_decided_from_the_tables(
    query: GrantsQuery, reader: postgres.Database, writer: asyncpg.Connection, golden: Path
) -> None:
    """Rows at share points in, decisions out: read as the publisher reads them, no cell differs
    from Arvados."""
    recording = msgspec.json.decode((golden / "permissions.json").read_bytes(), type=Recording)
    loader, world, cells = Loader(writer), World(recording), 0
    stale = {
        (cell["step"], cell["label"], cell["question"], index)
        for cell in recording.stale_cells
        for index in cell["objects"]
    }
    for step in recording.steps:
        await loader.advance(step)
        world.advance(step)
        reading = await query.read(recording.matrix_user_uuid.values())
        placed = await _placed(reader, world)
        for question in (PLAIN, WITH_TRASH):
            for label, readable in step[question].items():
                identity, _ = world.reader(label)
                grants = reading.grants[recording.matrix_user_uuid[label]]
                assert grants.user_uuid == identity.user_uuid
                for index, facts in world.asked_about(question) if readable is not None else ():
                    if (step["n"], label, question, index) not in stale:
                        judge = Judge(identity, grants, world.now)
                        got = judge.decide(placed(facts), include_trash=question == WITH_TRASH)
                        if facts.kind == "log":
                            assert got is Decision.ASK
                            continue
                        assert (got is Decision.YES) == (index in readable), (step["n"], label)
                        cells += 1
    assert cells > 100_000


async def _placed(reader: postgres.Database, world: World) -> Callable[[ObjectFacts], ObjectFacts]:
    """What puts the facts of any object in its place, as after this step."""
    everything = [facts for _, facts in world.asked_about(PLAIN)]
    found = await places.read(reader, (uuid for facts in everything for uuid in facts.owners()))
    users = await places.seen_by(reader, (facts.uuid for facts in everything))

    def put(facts: ObjectFacts) -> ObjectFacts:
        here = tuple(found[uuid] for uuid in set(facts.owners()))
        return msgspec.structs.replace(facts, places=here, seen_by=users.get(facts.uuid, ()))

    return put


async def test_a_later_snapshot_has_a_higher_generation(
    query: GrantsQuery, writer: asyncpg.Connection, database: Database
) -> None:
    """Whatever commits in between, and in which order: higher is later, equal is the same."""
    start = (await query.read([])).generation
    late = await asyncpg.connect(database.dsn)
    transaction = late.transaction()
    await transaction.start()
    await late.execute("INSERT INTO frozen_groups VALUES ('zzzzz-j7d0g-000000000000001')")
    opened = (await query.read([])).generation
    await writer.execute("INSERT INTO frozen_groups VALUES ('zzzzz-j7d0g-000000000000002')")
    other = await query.read([])
    await transaction.commit()
    committed = await query.read([])
    again = await query.read([])
    await late.close()

    assert start <= opened < other.generation < committed.generation <= again.generation


async def test_an_unknown_user_reads_nothing(query: GrantsQuery) -> None:
    """A uuid without a row gets an empty answer, as a token of a deleted user would."""
    stranger = "zzzzz-tpzed-000000stranger0"

    grants = (await query.read([stranger])).grants[stranger]

    assert (grants.targets, grants.is_admin, grants.is_active) == ({}, False, False)


async def test_users_merged_in_a_circle_read_nothing(
    query: GrantsQuery, writer: asyncpg.Connection
) -> None:
    """A broken table must not hang the publisher or lend anybody's grants."""
    one, two = "zzzzz-tpzed-000000000000001", "zzzzz-tpzed-000000000000002"
    for user, other in ((one, two), (two, one)):
        await writer.execute(
            "INSERT INTO users (uuid, owner_uuid, created_at, updated_at, redirect_to_user_uuid)"
            " VALUES ($1, $1, now(), now(), $2)",
            user,
            other,
        )
        await writer.execute("INSERT INTO materialized_permissions VALUES ($1, $1, 3, true)", user)

    reading = await query.read([one, two])

    assert all(not grants.targets for grants in reading.grants.values())


async def test_what_is_below_a_share_is_not_read(
    database: Database, reader: postgres.Database, writer: asyncpg.Connection
) -> None:
    """One row for a tree, however deep and wide; a share of somebody else inside it adds none, one
    of the user's own does, with the level of its link."""
    query = GrantsQuery(reader, role_groups_visible=True)
    async with open_cluster(database.dsn) as cluster:
        alice, bob, carol = [await cluster.user(name) for name in ("alice", "bob", "carol")]
        tree = await cluster.project("tree", owner=alice)
        inner = await cluster.project("inner", owner=tree, by=alice)
        theirs = await cluster.project("theirs", owner=inner, by=alice)
        mine = await cluster.project("mine", owner=inner, by=alice)
        await cluster.share(tree, bob, "can_manage")
        await cluster.share(theirs, carol)
        await cluster.share(mine, bob)
        grants = (await query.read([bob.uuid])).grants[bob.uuid]

    assert {tree.uuid, mine.uuid} <= grants.targets.keys()
    assert not {inner.uuid, theirs.uuid, alice.uuid, carol.uuid} & grants.targets.keys()
    assert grants.targets[tree.uuid] & MANAGES_OWNED
    assert not grants.targets[mine.uuid] & MANAGES_OWNED


_A_TREE = """
WITH made AS (
    INSERT INTO groups
      (uuid, owner_uuid, name, group_class, created_at, updated_at, modified_at)
    SELECT $3 || lpad(n::text, 10, '0'), $1, n::text, 'project', now(), now(), now()
    FROM generate_series(1, 100000) AS n
    RETURNING uuid
)
INSERT INTO materialized_permissions SELECT $2, uuid, 1, true FROM made
"""


async def test_a_tree_of_a_hundred_thousand_projects_is_a_handful_of_patterns(
    database: Database, reader: postgres.Database, writer: asyncpg.Connection
) -> None:
    """Somebody who can read them through one share: at most twenty, whatever the number."""
    query = GrantsQuery(reader, role_groups_visible=True)
    async with open_cluster(database.dsn) as cluster:
        alice, bob = await cluster.user("alice"), await cluster.user("bob")
        tree = await cluster.project("tree", owner=alice)
        await cluster.share(tree, bob)
        unique = f"zzzzz-j7d0g-{bob.uuid[-5:]}"
        await writer.execute(_A_TREE, tree.uuid, bob.uuid, unique)
        grants = (await query.read([bob.uuid])).grants[bob.uuid]
    found = subscriptions(Identity("zzzzz-gj3su-00000000000mine", bob.uuid), grants, 8000)

    assert f"arvados.live.{tree.uuid}.>" in found.patterns
    assert len(found.patterns) <= 20


_OTHERS = """
INSERT INTO links (uuid, owner_uuid, created_at, updated_at, modified_at, tail_uuid, head_uuid,
                   link_class, name, properties)
SELECT 'zzzzz-o0j2j-' || $1 || lpad(n::text, 10, '0'), 'zzzzz-tpzed-000000000000000',
       now(), now(), now(), 'zzzzz-tpzed-' || $1 || lpad(n::text, 10, '0'),
       'zzzzz-j7d0g-' || $1 || lpad(n::text, 10, '0'), 'permission', 'can_read', '{}'
FROM generate_series(1, 20000) AS n
"""


async def test_no_link_of_somebody_else_is_looked_at(
    database: Database, writer: asyncpg.Connection
) -> None:
    """To find the roles of who is asked about: each look at links is by whom they begin at."""
    async with open_cluster(database.dsn) as cluster:
        alice = await cluster.user("alice")
        await cluster.role("role", alice)
        await writer.execute(_OTHERS, alice.uuid[-5:])
        await writer.execute("ANALYZE links")
        sql = f"EXPLAIN (FORMAT JSON) WITH RECURSIVE {_GIVEN} SELECT * FROM given"
        async with writer.transaction():
            await writer.execute(_SNAPSHOT)
            plan = msgspec.json.decode(await writer.fetchval(sql, [alice.uuid]))
    looks = [node for node in _nodes(plan[0]["Plan"]) if node.get("Relation Name") == "links"]

    assert looks
    assert all("tail_uuid" in look.get("Index Cond", "") for look in looks), looks


async def test_it_is_planned_for_how_many_are_asked_about(writer: asyncpg.Connection) -> None:
    """A plan for any number is one for ten, which took 15 times as long for 200."""
    shown = []
    for _ in range(2):
        async with writer.transaction():
            shown.append(await writer.fetchval("SHOW plan_cache_mode"))
            await writer.execute(_SNAPSHOT)
            shown.append(await writer.fetchval("SHOW plan_cache_mode"))
    assert shown == ["auto", "force_custom_plan"] * 2


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All steps of a plan, and of a bitmap's heap what finds it."""
    below = plan.get("Plans", [])
    if plan["Node Type"] == "Bitmap Heap Scan":
        yield plan | {"Index Cond": str(below)}
        return
    yield plan
    for step in below:
        yield from _nodes(step)


async def test_a_row_that_arvados_forgot_is_read(
    database: Database, reader: postgres.Database, writer: asyncpg.Connection
) -> None:
    """No link explains it and nothing above: Arvados goes by it, so we do."""
    query = GrantsQuery(reader, role_groups_visible=True)
    async with open_cluster(database.dsn) as cluster:
        alice, bob, carol = [await cluster.user(name) for name in ("alice", "bob", "carol")]
        project = await cluster.project("p", owner=alice)
        collection = await cluster.collection("c", owner=alice)
        await cluster.share(project, carol)
        for target in (project, collection):
            await writer.execute(
                "INSERT INTO materialized_permissions VALUES ($1, $2, 1, true)",
                bob.uuid,
                target.uuid,
            )
        grants = (await query.read([bob.uuid])).grants[bob.uuid]

    assert {project.uuid, collection.uuid} <= grants.targets.keys()


async def test_an_admin_costs_his_own_rows_only(
    database: Database, reader: postgres.Database
) -> None:
    """They manage every user; the rule asks nothing of others' rows for them."""
    query = GrantsQuery(reader, role_groups_visible=True)
    async with open_cluster(database.dsn) as cluster:
        await cluster.user("alice")
        boss = await cluster.user("boss", admin=True)
        found = await query.read([boss.uuid, cluster.root.uuid])

    assert found.grants[boss.uuid].is_admin
    assert found.sources == {u: {u} for u in (boss.uuid, cluster.root.uuid)}


async def test_tokens_are_read_without_their_secrets(
    database: Database, reader: postgres.Database
) -> None:
    """Live tokens with owner, scopes and end; ended ones and strangers are left out."""
    query = TokenQuery(reader)
    end = datetime(2090, 1, 1)
    async with open_cluster(database.dsn) as cluster:
        alice = await cluster.user("alice")
        scoped = await cluster.token(alice, scopes=["GET /arvados/v1/"], expires_at=end)
        dead = await cluster.token(alice)
        await cluster.logout(dead)
        other = await cluster.token(alice)
        asked = [alice.token_uuid, scoped.token_uuid, dead.token_uuid, "zzzzz-gj3su-unknown"]
        named = [uuid for uuid in asked if uuid]
        answer = await query.states(named)
        alive, digest = await query.alive(named)
        seen = await query.digest(named)
        assert seen.digest != (await query.digest([*named, str(other.token_uuid)])).digest

    assert digest == seen.digest, "the two would be told apart at each look"
    found = {state.token_uuid: state for state in answer.tokens}
    assert found.keys() == {alice.token_uuid, scoped.token_uuid}
    assert {state.user_uuid for state in answer.tokens} == {alice.uuid}
    assert found[str(scoped.token_uuid)].scopes == ("GET /arvados/v1/",)
    assert found[str(scoped.token_uuid)].expires_at == timestamp(end)
    assert alive.keys() == found.keys()
