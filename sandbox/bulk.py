# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Many objects at once, for benchmarks: as in a database that was restored, so without log rows.

A thousand users made one by one would take minutes where users see each other, since each then
adds a row for every other to the permission table.
"""

from __future__ import annotations

from sandbox.cluster import Cluster
from sandbox.model import records
from sandbox.model.actors import Actor
from sandbox.model.database import Connection
from sandbox.model.derived import permission_table
from sandbox.model.records import Record

_USERS = """
INSERT INTO users (uuid, owner_uuid, created_at, modified_at, updated_at, email, first_name,
  username, is_active, is_admin)
SELECT u, $2::varchar, $3::timestamp, $3, $3, n || '@example.com', n, n, true, false
FROM unnest($1::varchar[], $4::varchar[]) AS given(u, n) RETURNING id, uuid
"""
_TOKENS = """
INSERT INTO api_client_authorizations (uuid, api_token, user_id, created_at, updated_at)
SELECT t, s, u, $4::timestamp, $4
FROM unnest($1::varchar[], $2::varchar[], $3::bigint[]) AS given(t, s, u)
"""
_LINKS = """
INSERT INTO links (uuid, owner_uuid, created_at, modified_at, updated_at, tail_uuid, head_uuid,
  link_class, name, properties)
SELECT l, $2::varchar, $3::timestamp, $3, $3, t, h, 'permission', $4::varchar, '{}'
FROM unnest($1::varchar[], $5::varchar[], $6::varchar[]) AS given(l, t, h)
"""
_CONTAINERS = """
INSERT INTO containers (uuid, owner_uuid, created_at, modified_at, updated_at, state, priority,
  command, cwd, output_path, container_image, mounts, runtime_constraints, scheduling_parameters,
  runtime_user_uuid, runtime_auth_scopes)
SELECT k, $2::varchar, $3::timestamp, $3, $3, 'Queued', $4::bigint, c.command, c.cwd,
  c.output_path, c.container_image, c.mounts, c.runtime_constraints, c.scheduling_parameters,
  c.runtime_user_uuid, c.runtime_auth_scopes
FROM unnest($1::varchar[]) AS given(k), containers c WHERE c.uuid = $5::varchar
"""
_REQUESTS = """
INSERT INTO container_requests (uuid, owner_uuid, created_at, modified_at, modified_by_user_uuid,
  updated_at, name, state, container_uuid, container_count, container_count_max, priority,
  command, cwd, output_path, container_image, mounts, runtime_constraints, use_existing,
  scheduling_parameters, properties)
SELECT q, r.owner_uuid, $3::timestamp, $3, r.modified_by_user_uuid, $3, r.name, 'Committed', k, 1,
  r.container_count_max, r.priority, r.command, r.cwd, r.output_path, r.container_image,
  r.mounts, r.runtime_constraints, false, r.scheduling_parameters, '{}'
FROM unnest($1::varchar[], $2::varchar[]) AS given(q, k), container_requests r
WHERE r.uuid = $4::varchar
"""


async def requests(cluster: Cluster, like: Record, count: int) -> list[tuple[str, str]]:
    """`count` more committed requests `like` one, each with a queued container of its own.

    Returns (request uuid, container uuid).
    """
    config = cluster.config
    first = await cluster.container_of(like)
    pairs = [(_new(cluster, "xvhdp"), _new(cluster, "dz642")) for _ in range(count)]
    wanted, containers = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    async with cluster.transaction() as transaction:
        connection, now = transaction.connection, records.now()
        priority = first["priority"]
        await connection.execute(
            _CONTAINERS, containers, config.system_user, now, priority, first.uuid
        )
        await connection.execute(_REQUESTS, wanted, containers, now, like.uuid)
    return pairs


def _new(cluster: Cluster, infix: str) -> str:
    return cluster.config.uuid(infix, records.random_name())


async def users(cluster: Cluster, count: int, prefix: str = "user") -> list[Actor]:
    """`count` active users who are set up, each with a name that nobody has and a token."""
    async with cluster.transaction() as transaction:
        connection = transaction.connection
        config = cluster.config
        uuids = [_new(cluster, "tpzed") for _ in range(count)]
        names = [f"{prefix}{uuid[-15:]}" for uuid in uuids]
        made = await connection.fetch(_USERS, uuids, config.system_user, records.now(), names)
        ids = {row["uuid"]: row["id"] for row in made}
        actors = [_actor(cluster, uuid, ids[uuid]) for uuid in uuids]
        await _tokens(connection, actors)
        everybody = [config.all_users] * count
        await _links(cluster, connection, "can_manage", [config.system_group] * count, uuids)
        await _links(cluster, connection, "can_write", uuids, everybody)
        if config.activated_users_are_visible_to_others:
            await _links(cluster, connection, "can_read", everybody, uuids)
        await permission_table.refresh(connection)
        return actors


def _actor(cluster: Cluster, uuid: str, user_id: int) -> Actor:
    token = _new(cluster, "gj3su")
    return Actor(uuid, user_id, False, True, token, f"v2/{token}/{records.random_name(50)}")


async def _tokens(connection: Connection, actors: list[Actor]) -> None:
    await connection.execute(
        _TOKENS,
        [actor.token_uuid for actor in actors],
        [actor.token.split("/")[2] for actor in actors],
        [actor.id for actor in actors],
        records.now(),
    )


async def _links(
    cluster: Cluster, connection: Connection, level: str, tails: list[str], heads: list[str]
) -> None:
    config = cluster.config
    uuids = [_new(cluster, "o0j2j") for _ in tails]
    await connection.execute(_LINKS, uuids, config.system_user, records.now(), level, tails, heads)
