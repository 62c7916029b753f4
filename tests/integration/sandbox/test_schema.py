# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The sandbox's tables against the recording of a real Arvados database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from sandbox import schema
from sandbox.servers import postgres

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "golden" / "schema.json").read_text(encoding="utf-8")
)["tables"]

_COLUMNS = """
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
       NOT a.attnotnull AS nullable, pg_get_expr(d.adbin, d.adrelid) AS default
FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_INDEXES = """
SELECT c.relname AS name, i.indisunique AS unique, i.indisprimary AS primary, m.amname AS method,
       pg_get_expr(i.indpred, i.indrelid) AS where,
       ARRAY(SELECT pg_get_indexdef(i.indexrelid, k, true)
             FROM generate_series(1, i.indnkeyatts) k) AS columns
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
WHERE i.indrelid = $1::regclass ORDER BY c.relname
"""


@pytest.fixture
async def connection(database: postgres.Database) -> Any:
    """A connection as the owner of the tables."""
    connection = await asyncpg.connect(database.dsn)
    yield connection
    await connection.close()


def test_the_packaged_description_is_the_recording() -> None:
    """What the sandbox ships is the recorded shape, without the sample rows."""
    shapes = {
        name: {key: value for key, value in table.items() if key != "row_samples"}
        for name, table in RECORDED.items()
    }
    assert schema.tables() == shapes


@pytest.mark.parametrize("table", RECORDED)
async def test_columns_are_as_recorded(connection: asyncpg.Connection, table: str) -> None:
    """Names, order, types, NULL and defaults of every column."""
    found = [dict(row) for row in await connection.fetch(_COLUMNS, table)]
    assert [_column(row) for row in found] == [
        (column["name"], column["type"], column["nullable"], _default(column["default"]))
        for column in RECORDED[table]["columns"]
    ]


@pytest.mark.parametrize("table", RECORDED)
async def test_indexes_are_as_recorded(connection: asyncpg.Connection, table: str) -> None:
    """Names, columns, uniqueness, method and partial conditions of every plain index."""
    found = [
        {key: value for key, value in dict(row).items() if value is not None}
        for row in await connection.fetch(_INDEXES, table)
    ]
    keys = ("name", "unique", "primary", "method", "where", "columns")
    assert found == [
        {key: index[key] for key in keys if key in index}
        for index in sorted(RECORDED[table]["indexes"], key=lambda index: str(index["name"]))
        if schema.is_plain(index)
    ]


@pytest.mark.parametrize("table", RECORDED)
async def test_recorded_rows_go_in_and_come_back_unchanged(
    connection: asyncpg.Connection, table: str
) -> None:
    """Rows as a real Arvados stored them fit the tables, to the character."""
    columns = [column["name"] for column in RECORDED[table]["columns"]]
    types = {column["name"]: column["type"] for column in RECORDED[table]["columns"]}
    for sample in RECORDED[table]["row_samples"]:
        values = [sample[name] for name in columns]
        places = ", ".join(f"${n}::text::{types[name]}" for n, name in enumerate(columns, 1))
        shown = ", ".join(f"{name}::text" for name in columns)
        row = await connection.fetchrow(
            f"INSERT INTO {table} VALUES ({places}) RETURNING {shown}", *values
        )
        assert row is not None
        assert list(row) == values


async def test_ids_come_from_the_recorded_sequences(connection: asyncpg.Connection) -> None:
    """An id is taken when the row is written, and a rollback leaves a gap, as in Arvados."""
    insert = (
        "INSERT INTO logs (uuid, created_at, updated_at) VALUES ($1, now(), now()) RETURNING id"
    )
    first = await connection.fetchval(insert, "zzzzz-57u5n-000000000000001")
    transaction = connection.transaction()
    await transaction.start()
    await connection.fetchval(insert, "zzzzz-57u5n-000000000000002")
    await transaction.rollback()
    assert await connection.fetchval(insert, "zzzzz-57u5n-000000000000003") == first + 2


def _column(row: dict[str, Any]) -> tuple[Any, ...]:
    default = row["default"]
    if default is not None and default.startswith("nextval"):
        default = {"kind": "sequence", "sequence": default.split("'")[1]}
    elif default is not None:
        default = {"kind": "constant", "value": default.partition("::")[0].strip("'")}
    return row["name"], row["type"], row["nullable"], _default(default)


def _default(default: dict[str, Any] | None) -> Any:
    """A default as compared: '0.0' and '0' are the same number."""
    if default is None or default["kind"] == "sequence":
        return default
    try:
        return float(default["value"])
    except ValueError:
        return default["value"]
