# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What is read of Arvados' database: every table and column, and since which release it is there.

Pure, and the only place that says so. From it come the GRANT lines (docs/install.md, `check
grants`, the chart's notes), what is looked at on start and by `check connections`, the texts about
what is missing, and the statements that follow a column's being there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

ROLE = "arvados_nats"
"""The role that docs/install.md has the publishers log in as."""
RELEASES = "Arvados 2.5 to 3.2 are supported"
_OLDEST_SERVER = 11
_HASH = "hashtextextended(text,bigint)"


class Column(NamedTuple):
    """A column that not every supported release has; `without` is what happens where it is not."""

    table: str
    name: str
    since: str
    without: str

    def __str__(self) -> str:
        return f"{self.table}.{self.name}"


class Table(NamedTuple):
    """What is read of one table, and what for. `secret`: granted by column, since others hold
    secrets or are nobody's business. `xmin`, which every table has, is the transaction that wrote
    the row (`publishers.events.verification`)."""

    name: str
    columns: tuple[str, ...]
    used_by: str
    newer: tuple[Column, ...] = ()
    secret: bool = False


REFRESHES_AT = Column(
    "api_client_authorizations",
    "refreshes_at",
    "3.1",
    "tokens of other clusters are asked about again at expires_at",
)
COLLECTION_UUID = Column(
    "workflows", "collection_uuid", "3.2", "no workflow is linked to a collection"
)


def _table(
    name: str, columns: str, used_by: str, *newer: Column, secret: bool = False
) -> tuple[str, Table]:
    return name, Table(name, tuple(columns.split()), used_by, newer, secret)


TABLES: Mapping[str, Table] = dict(
    (
        _table(
            "logs",
            "id uuid owner_uuid event_type event_at created_at object_uuid object_owner_uuid"
            " properties xmin",
            "events, and logs of containers that were tried again",
        ),
        _table(
            "materialized_permissions",
            "user_uuid target_uuid perm_level traverse_owned",
            "permissions",
        ),
        _table("trashed_groups", "group_uuid trash_at", "permissions, live messages"),
        _table("frozen_groups", "uuid", "permissions"),
        _table(
            "users",
            "id uuid owner_uuid created_at modified_at is_admin is_active username"
            " redirect_to_user_uuid xmin",
            "events, permissions, tokens",
        ),
        _table(
            "groups",
            "uuid owner_uuid created_at modified_at name is_trashed trash_at delete_at group_class"
            " frozen_by_uuid xmin",
            "events, permissions",
        ),
        _table(
            "links",
            "uuid owner_uuid created_at modified_at name link_class tail_uuid head_uuid xmin",
            "events",
        ),
        _table(
            "container_requests",
            "uuid owner_uuid created_at modified_at name state requesting_container_uuid"
            " container_uuid container_count priority log_uuid output_uuid cumulative_cost xmin",
            "events, permissions, container logs, live messages",
            secret=True,
        ),
        _table(
            "containers",
            "uuid owner_uuid created_at modified_at state priority exit_code progress output log"
            " locked_by_uuid lock_count auth_uuid started_at finished_at runtime_status cost"
            " gateway_address scheduling_parameters runtime_constraints xmin",
            "events, container logs, the queue",
            secret=True,
        ),
        _table(
            "collections",
            "uuid owner_uuid created_at modified_at name portable_data_hash is_trashed trash_at"
            " delete_at version current_version_uuid file_count file_size_total xmin",
            "events, permissions, container logs",
        ),
        _table(
            "workflows",
            "uuid owner_uuid created_at modified_at name xmin",
            "events, permissions",
            COLLECTION_UUID,
        ),
        _table(
            "api_client_authorizations",
            "uuid user_id scopes expires_at xmin",
            "events, tokens",
            REFRESHES_AT,
            secret=True,
        ),
    )
)


CLUSTER_ID = """
SELECT left(uuid, 5) FROM groups
WHERE uuid LIKE '_____-j7d0g-000000000000000'
  AND owner_uuid = left(uuid, 5) || '-tpzed-000000000000000'
ORDER BY created_at, uuid LIMIT 1
"""
"""The cluster's five characters, by its system group: of no other cluster is there any."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a look at the database has shown; `columns` says of each table's whether the role may
    read it."""

    role: str = ROLE
    server: str = ""
    server_number: int = 0
    can_hash: bool = False
    columns: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)

    def has(self, column: Column) -> bool:
        """Whether it is there; readable or not."""
        return column.name in self.columns.get(column.table, {})


LOOK = """
SELECT current_user::text AS role, current_setting('server_version') AS server,
       current_setting('server_version_num')::int AS server_number,
       (SELECT has_function_privilege(f::oid, 'EXECUTE') FROM to_regprocedure($2) AS f) AS can_hash,
       ARRAY(SELECT ARRAY[c.relname::text, a.attname::text,
                          has_column_privilege(c.oid, a.attnum, 'SELECT')::text]
             FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
             WHERE (a.attnum > 0 OR a.attname = 'xmin') AND NOT a.attisdropped AND c.oid = ANY(
               ARRAY(SELECT to_regclass(name)::oid FROM unnest($1::text[]) AS name))) AS columns
"""
"""One row for `found`, with `LOOK_ARGUMENTS`."""
LOOK_ARGUMENTS = ([*TABLES], _HASH)


def found(row: Mapping[str, object]) -> Found:
    """What the row of `LOOK` says."""
    columns: dict[str, dict[str, bool]] = {}
    listed: list[list[str]] = row["columns"]  # type: ignore[assignment]
    for table, column, readable in listed:
        columns.setdefault(table, {})[column] = readable == "true"
    return Found(
        role=str(row["role"]),
        server=str(row["server"]),
        server_number=int(str(row["server_number"])),
        can_hash=bool(row["can_hash"]),
        columns=columns,
    )


def lacks(found: Found) -> list[str]:
    """What is missing, each by its name, with what mends it; an empty list is well."""
    if found.server_number < _OLDEST_SERVER * 10_000:
        return [f"PostgreSQL {found.server} is too old: {_OLDEST_SERVER} to 17 are supported"]
    texts = []
    if not found.can_hash:
        texts.append(
            f"function {_HASH} is not there or not granted to {found.role}: run GRANT EXECUTE ON"
            f" FUNCTION pg_catalog.{_HASH} TO {found.role}"
        )
    if not found.columns:
        return [
            *texts,
            "no table of Arvados is there: give the name of Arvados' database in postgres_dsn, or"
            f" run GRANT USAGE ON SCHEMA public TO {found.role}",
        ]
    for table in TABLES.values():
        texts += _lacks_of(table, found)
    return texts


def _lacks_of(table: Table, found: Found) -> Iterator[str]:
    there = found.columns.get(table.name)
    if there is None:
        yield f"table {table.name} is not there ({table.used_by} need it): {RELEASES}"
        return
    for name in table.columns:
        if name not in there:
            yield f"{table.name}.{name} is not there ({table.used_by} need it): {RELEASES}"
    read = [*table.columns, *(column.name for column in table.newer)]
    refused = [name for name in read if there.get(name) is False]
    if not refused:
        return
    named = table.name if len(refused) == len([*filter(there.__contains__, read)]) else None
    for what in [named] if named else [f"{table.name}.{name}" for name in refused]:
        yield (
            f"{what} is not granted to {found.role} ({table.used_by} need it): run"
            f" {_grant(table, refused, found.role)}"
        )


def older(found: Found) -> list[str]:
    """What this release does not have, and need not have."""
    return [
        f"{column} is not there: Arvados older than {column.since}, supported; {column.without}"
        for table in TABLES.values()
        for column in table.newer
        if table.name in found.columns and not found.has(column)
    ]


def grants(role: str = ROLE) -> list[str]:
    """The lines of SQL that a role needs; those of newer releases fail on older ones, and say so
    in a comment."""
    whole = ", ".join(table.name for table in TABLES.values() if not table.secret)
    secret = [table for table in TABLES.values() if table.secret]
    return [
        f"GRANT SELECT ON {whole} TO {role};",
        *(f"{_grant(table, table.columns, role)};" for table in secret),
        *(
            f"{_grant(table, [column.name], role)}; -- Arvados {column.since} and newer"
            for table in secret
            for column in table.newer
        ),
    ]


def _grant(table: Table, columns: list[str] | tuple[str, ...], role: str) -> str:
    if table.secret:
        return f"GRANT SELECT ({', '.join(columns)}) ON {table.name} TO {role}"
    return f"GRANT SELECT ON {table.name} TO {role}"
