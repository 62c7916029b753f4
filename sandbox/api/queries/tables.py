# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the API knows of a table: its columns by type, and which of them filters may name.

The types are read from the database itself, so they cannot drift from the schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import asyncpg

from arvados_nats.contract import subjects

_CATEGORIES = {
    "character varying": "text",
    "text": "text",
    "bigint": "integer",
    "integer": "integer",
    "boolean": "boolean",
    "double precision": "float",
    "timestamp without time zone": "datetime",
    "jsonb": "jsonb",
}
_NEVER_SEARCHED = frozenset(
    {"secret_mounts", "secret_mounts_md5", "runtime_token", "gateway_address", "api_token",
     "secret", "perm_level", "traverse_owned", "file_names"}
)  # fmt: skip
_MODELS = {
    "api_client_authorizations": "ApiClientAuthorization",
    "materialized_permissions": "ComputedPermission",
}


@dataclass(frozen=True, slots=True)
class Table:
    """One table: `columns` maps a name to text, integer, boolean, float, datetime or jsonb."""

    name: str
    model: str
    infix: str | None
    columns: Mapping[str, str]

    def searchable(self, operator: str) -> list[str]:
        """The columns that a filter with this operator may name."""
        kinds = {"text"} if operator in ("like", "ilike") else {"text", "integer", "boolean"}
        if operator not in ("like", "ilike"):
            kinds.add("datetime")
        return [
            name
            for name, kind in self.columns.items()
            if kind in kinds and name not in _NEVER_SEARCHED
        ]


def _model(table: str) -> str:
    return _MODELS.get(table) or "".join(part.title() for part in table.rstrip("s").split("_"))


_QUERY = """
SELECT table_name, column_name, data_type FROM information_schema.columns
WHERE table_schema = 'public' ORDER BY table_name, ordinal_position
"""


async def read(pool: asyncpg.Pool) -> dict[str, Table]:
    """All tables of the database, by name."""
    columns: dict[str, dict[str, str]] = {}
    for row in await pool.fetch(_QUERY):
        kind = _CATEGORIES.get(row["data_type"], "text")
        columns.setdefault(row["table_name"], {})[row["column_name"]] = kind
    infixes = {kind.path: kind.infix for kind in subjects.KINDS}
    return {
        name: Table(name, _model(name), infixes.get(name), found) for name, found in columns.items()
    }
