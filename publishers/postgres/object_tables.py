# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Objects as they are in Arvados' database now, by uuid, whatever their kind.

The only SQL about the tables of objects. For each kind it reads what the permission rule asks for
and the attributes that events carry, by which a log row is checked (`enrich`). Kinds whose tables
the role may not read are not found.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from arvados_nats.contract.serialized import MAX_YAML_BYTES
from arvados_nats.contract.subjects import kind_of
from arvados_nats.postgres.arvados_tables import COLLECTION_UUID
from publishers.postgres.database import Database, Row

ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    kind: tuple(columns.split())
    for kind, columns in {
        "container": "state exit_code progress output log locked_by_uuid lock_count started_at"
        " finished_at runtime_status cost gateway_address",
        "container_request": "name state requesting_container_uuid container_uuid container_count"
        " priority log_uuid output_uuid cumulative_cost",
        "collection": "name portable_data_hash is_trashed trash_at delete_at version"
        " current_version_uuid file_count file_size_total",
        "group": "name is_trashed trash_at delete_at group_class frozen_by_uuid",
        "user": "is_active is_admin username redirect_to_user_uuid",
        "link": "name link_class tail_uuid head_uuid",
        "workflow": "name collection_uuid",
    }.items()
}
"""What is compared with a row's new_attributes. Not a container's priority: Arvados changes it by
raw SQL that logs nothing (docs/facts/arvados.md 0.1)."""

MOST_REQUESTS = 1000
"""Of those that show one container the first: whoever submits the same again has one more, and each
is looked at for each of its events."""

_COMMON = ("uuid", "owner_uuid", "created_at", "modified_at")
_EXTRA = {
    "container": f"""ARRAY(
        SELECT ARRAY[request.uuid, request.owner_uuid] FROM container_requests AS request
        WHERE request.container_uuid = object.uuid
        ORDER BY request.created_at, request.uuid LIMIT {MOST_REQUESTS}) AS requests,
        left(object.runtime_constraints, {MAX_YAML_BYTES + 1}) AS runtime_constraints""",
    "workflow": """coalesce(linked.owner_uuid, '') AS collection_owner_uuid,
        linked.trash_at AS collection_trash_at""",
}
_JOINED = {
    "workflow": " LEFT JOIN collections AS linked ON linked.uuid = object.collection_uuid",
}
_UNCHECKED = {"container": ("priority",)}
"""Read, but not compared with rows."""


def _select(kind: str, table: str) -> str:
    columns = [*_COMMON, *ATTRIBUTES[kind], *_UNCHECKED.get(kind, ())]
    listed = ", ".join(f"object.{column}" for column in (*columns, "xmin"))
    extra = f", {_EXTRA[kind]}" if kind in _EXTRA else ""
    return (
        f"SELECT {listed}{extra} FROM {table} AS object{_JOINED.get(kind, '')}"
        " WHERE object.uuid = ANY($1::varchar[])"
    )


_SQL = {kind: _select(kind, f"{kind}s") for kind in ATTRIBUTES} | {
    "api_client_authorization": """
        SELECT token.uuid, owner.uuid AS owner_uuid, token.user_id, token.expires_at, token.xmin
        FROM api_client_authorizations AS token LEFT JOIN users AS owner ON owner.id = token.user_id
        WHERE token.uuid = ANY($1::varchar[])
    """,
}
_UNLINKED_WORKFLOWS = f"""
    SELECT {", ".join((*_COMMON, "name"))}, xmin, NULL AS collection_uuid FROM workflows
    WHERE uuid = ANY($1::varchar[])
"""
"""Before Arvados 3.2."""
_REQUESTS = f"""
    SELECT container_uuid, uuid, owner_uuid FROM (
        SELECT container_uuid, uuid, owner_uuid,
               row_number() OVER (PARTITION BY container_uuid ORDER BY created_at, uuid) AS place
        FROM container_requests WHERE container_uuid = ANY($1::varchar[])
    ) AS request WHERE place <= {MOST_REQUESTS} ORDER BY place
"""

Record = Mapping[str, Any]
Requests = list[tuple[str, str]]
"""(uuid, owner uuid) of container requests."""


def can_read(kind: str) -> bool:
    """Whether objects of this kind are found at all, so that a missing one is gone."""
    return kind in _SQL


async def read(database: Database, uuids: Iterable[str]) -> dict[str, Record]:
    """Records by uuid; what does not exist, or cannot be read, is missing."""
    by_kind: defaultdict[str, list[str]] = defaultdict(list)
    for uuid in uuids:
        kind = kind_of(uuid)
        if kind and kind.name in _SQL:
            by_kind[kind.name].append(uuid)
    found = await asyncio.gather(
        *(_fetch(database, kind, named) for kind, named in by_kind.items())
    )
    return {row["uuid"]: dict(row) for rows in found for row in rows}


async def _fetch(database: Database, kind: str, uuids: list[str]) -> Sequence[Row]:
    linked = kind != "workflow" or await database.columns.has(COLLECTION_UUID)
    return await database.fetch(_SQL[kind] if linked else _UNLINKED_WORKFLOWS, uuids)


async def requests_of(database: Database, containers: Iterable[str]) -> dict[str, Requests]:
    """The container requests that point to each container; those without any are missing."""
    requests: defaultdict[str, Requests] = defaultdict(list)
    for container, uuid, owner in await database.fetch(_REQUESTS, list(containers)):
        requests[container].append((uuid, owner))
    return dict(requests)
