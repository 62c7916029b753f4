# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The tables of an Arvados database as DDL, and what a read-only role of ours may see of them.

Pure: it reads the packaged `data/schema.json`, recorded from the catalogues of a real database.
Left out are expression and trigram indexes (full-text search), which need an extension that the
PostgreSQL wheel does not carry. A test compares the outcome with the recording.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

from arvados_nats.postgres import arvados_tables

READER = arvados_tables.ROLE
"""The role that publishers log in as."""


@functools.cache
def tables() -> dict[str, Any]:
    """Table name -> columns, keys and indexes, as recorded."""
    data = resources.files("sandbox").joinpath("data/schema.json").read_text(encoding="utf-8")
    recorded: dict[str, Any] = json.loads(data)["tables"]
    return recorded


def statements() -> Iterator[str]:
    """The DDL of all tables, in an order that works on an empty database."""
    for name, table in tables().items():
        for sequence in table["sequences"]:
            yield f"CREATE SEQUENCE {sequence}"
        yield _create_table(name, table)
        for sequence in table["sequences"]:
            yield f"ALTER SEQUENCE {sequence} OWNED BY {name}.id"
        for index in table["indexes"]:
            if not index["primary"] and is_plain(index):
                yield _create_index(name, index)


def grants() -> Iterator[str]:
    """What the role `READER` may read in one database: of each table exactly the columns that
    `arvados_tables` names, so that a statement that reads another fails in the tests."""
    for table in arvados_tables.TABLES.values():
        there = {column["name"] for column in tables()[table.name]["columns"]}
        newer = (column.name for column in table.newer if column.name in there)
        columns = ", ".join((*table.columns, *newer))
        yield f"GRANT SELECT ({columns}) ON {table.name} TO {READER}"


def add_column(table: str, name: str) -> Iterator[str]:
    """A column that a migration adds, with its indexes."""
    recorded = tables()[table]
    (column,) = (one for one in recorded["columns"] if one["name"] == name)
    yield f"ALTER TABLE {table} ADD COLUMN {_column(column)}"
    for index in recorded["indexes"]:
        if name in index["columns"] and is_plain(index):
            yield _create_index(table, index)


def is_plain(index: dict[str, Any]) -> bool:
    """Whether an index is made of columns alone, with the default operator classes."""
    return index["kind"] == "columns" and "opclasses" not in index


def _create_table(name: str, table: dict[str, Any]) -> str:
    lines = [_column(column) for column in table["columns"]]
    lines += [
        f"CONSTRAINT {index['name']} PRIMARY KEY ({', '.join(index['columns'])})"
        for index in table["indexes"]
        if index["primary"]
    ]
    return f"CREATE TABLE {name} (\n  " + ",\n  ".join(lines) + "\n)"


def _column(column: dict[str, Any]) -> str:
    match column["default"]:
        case {"kind": "sequence", "sequence": sequence}:
            default = f" DEFAULT nextval('{sequence}')"
        case {"kind": "constant", "value": value}:
            quoted = str(value).replace("'", "''")
            default = f" DEFAULT '{quoted}'"
        case _:
            default = ""
    null = "" if column["nullable"] else " NOT NULL"
    return f"{column['name']} {column['type']}{default}{null}"


def _create_index(table: str, index: dict[str, Any]) -> str:
    unique = "UNIQUE " if index["unique"] else ""
    where = f" WHERE {index['where']}" if "where" in index else ""
    over = f"{table} USING {index['method']} ({', '.join(index['columns'])})"
    return f"CREATE {unique}INDEX {index['name']} ON {over}{where}"
