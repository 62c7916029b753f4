# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The releases of Arvados that the pretend cluster can be, and what sets them apart.

The recorded schema is of 3.2; an older one is the same without some columns
(golden/schemas.json, which a test compares with). Releases are compared as text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from arvados_nats.postgres import arvados_tables
from sandbox import schema

AGES = ("2.5", "2.6", "2.7", "3.0", "3.1", "3.2")
NEWEST = AGES[-1]


class _Added(NamedTuple):
    table: str
    column: str
    since: str


_ADDED = (
    _Added("container_requests", "output_glob", "3.0"),
    _Added("containers", "output_glob", "3.0"),
    _Added("api_client_authorizations", "refreshes_at", "3.1"),
    _Added("container_requests", "service", "3.2"),
    _Added("container_requests", "published_ports", "3.2"),
    _Added("containers", "service", "3.2"),
    _Added("containers", "published_ports", "3.2"),
    _Added("workflows", "collection_uuid", "3.2"),
)
_WIDER_IDS = "2.6"
"""Since then the id of a row is a bigint."""
_IDS = {
    "api_client_authorizations": ("id", "api_client_id", "user_id"),
    "collections": ("id",),
    "container_requests": ("id",),
    "containers": ("id",),
    "groups": ("id",),
    "links": ("id",),
    "logs": ("id",),
    "users": ("id",),
    "workflows": ("id",),
}
NEWER_COLUMNS = frozenset(added.column for added in _ADDED)
"""Columns that some release lacks."""


def to_older(age: str) -> Iterator[str]:
    """From the recorded schema to that of an older release; indexes on a column go with it."""
    for added in _ADDED:
        if age < added.since:
            yield f"ALTER TABLE {added.table} DROP COLUMN {added.column}"
    if age < _WIDER_IDS:
        yield from _ids("integer")


def to_newer(before: str, age: str) -> Iterator[str]:
    """What `db:migrate` does to these tables, and the GRANT that the release notes ask for."""
    if before < _WIDER_IDS <= age:
        yield from _ids("bigint")
    for added in _ADDED:
        if before < added.since <= age:
            yield from schema.add_column(added.table, added.column)
    for table in arvados_tables.TABLES.values():
        for column in table.newer:
            if before < column.since <= age:
                yield f"GRANT SELECT ({column.name}) ON {table.name} TO {schema.READER}"


def _ids(kind: str) -> Iterator[str]:
    for table, columns in _IDS.items():
        changes = ", ".join(f"ALTER COLUMN {column} TYPE {kind}" for column in columns)
        yield f"ALTER TABLE {table} {changes}"
