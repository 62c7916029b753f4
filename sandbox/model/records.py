# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Rows as the model handles them: columns, decoding, uuids, etags, and the two JSON forms.

A row is a dict of Python values: times are naive UTC datetimes, JSON columns (real `jsonb` and
the text columns that hold JSON, golden/schema.json column_notes) are dicts and lists.
"""

from __future__ import annotations

import copy
import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec

from arvados_nats.contract.subjects import KIND_OF_NAME, KINDS, Kind
from sandbox import ages

Row = dict[str, Any]

ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_REQUEST_JSON: dict[str, type] = {
    "environment": dict,
    "mounts": dict,
    "runtime_constraints": dict,
    "command": list,
    "scheduling_parameters": dict,
    "output_glob": list,
}
JSON_IN_TEXT: dict[str, dict[str, type]] = {
    "users": {"prefs": dict},
    "logs": {"properties": dict},
    "api_client_authorizations": {"scopes": list},
    "container_requests": _REQUEST_JSON,
    "containers": _REQUEST_JSON,
}
"""Text columns that hold JSON, by table, with the type an empty (NULL) one stands for."""
NEVER_LOGGED = frozenset({"secret_mounts", "runtime_token", "api_token", "secret"})


@dataclass(frozen=True, slots=True)
class Table:
    """One table: its kind, and its columns in table order with their PostgreSQL types."""

    kind: Kind
    columns: Mapping[str, str]

    @property
    def name(self) -> str:
        """The table's name, which is the REST collection's."""
        return self.kind.path

    @property
    def json_in_text(self) -> dict[str, type]:
        """Its text columns that hold JSON."""
        known = JSON_IN_TEXT.get(self.name, {})
        return {name: kind for name, kind in known.items() if name in self.columns}

    def decode(self, stored: asyncpg.Record) -> Row:
        """A row as read from PostgreSQL."""
        row = dict(stored)
        for column, empty in self.json_in_text.items():
            text = row.get(column)
            row[column] = msgspec.json.decode(text) if text else empty()
        return row

    def encode(self, column: str, value: Any) -> Any:
        """A value as stored; an empty JSON text is NULL."""
        if column in self.json_in_text:
            return dump(value) if value else None
        return value


@dataclass(slots=True)
class Record:
    """One object: `row` as it will be or is, `was` as it was stored (None: not yet)."""

    table: Table
    row: Row
    was: Row | None = None

    @property
    def kind(self) -> Kind:
        """The object's kind."""
        return self.table.kind

    @property
    def uuid(self) -> str:
        """The object's uuid."""
        return str(self.row["uuid"])

    @property
    def is_new(self) -> bool:
        """Whether it is not stored yet."""
        return self.was is None

    def __getitem__(self, column: str) -> Any:
        return self.row.get(column) if column in ages.NEWER_COLUMNS else self.row[column]

    def __setitem__(self, column: str, value: Any) -> None:
        self.row[column] = value

    def before(self, column: str) -> Any:
        """The stored value, None for a new record."""
        return self.was.get(column) if self.was is not None else None

    def changed(self, *columns: str) -> bool:
        """Whether any of the columns differs from what is stored."""
        return any(self.row.get(column) != self.before(column) for column in columns)

    def changes(self) -> list[str]:
        """The columns that differ from what is stored, in table order."""
        return [column for column in self.row if self.changed(column)]


def dump(value: Any) -> str:
    """Compact JSON, as Arvados stores it in text columns."""
    return msgspec.json.encode(value).decode()


def now() -> datetime:
    """The time as the database writes it: UTC without zone, microseconds."""
    return datetime.now(UTC).replace(tzinfo=None)


def stamp(time: datetime, nanoseconds: int = 0) -> str:
    """Nine decimals and Z, as times look inside log properties and in API answers."""
    return f"{time.isoformat(timespec='microseconds')}{nanoseconds:03d}Z"


def parse_time(value: Any) -> datetime | None:
    """A time from a request: ISO 8601 text or a datetime; None stays None."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        raise ValueError(f"not a time: {value!r}")
    return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value


def in_json(row: Mapping[str, Any]) -> Row:
    """A row with its times as text."""
    return {k: stamp(v) if isinstance(v, datetime) else v for k, v in row.items()}


def etag(row: Mapping[str, Any]) -> str:
    """Changes whenever any column does; looks like Arvados' (base 36, about 25 characters)."""
    digest = hashlib.md5(dump(in_json(row)).encode(), usedforsecurity=False).digest()
    return base36(int.from_bytes(digest))


def base36(number: int) -> str:
    """A number in base 36."""
    digits = ""
    while number:
        number, rest = divmod(number, 36)
        digits = ALPHABET[rest] + digits
    return digits or "0"


def random_name(length: int = 15) -> str:
    """The random last part of a uuid, or a secret."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def logged(row: Mapping[str, Any]) -> Row:
    """What a log row shows of an object: all of it but the secrets."""
    return in_json({k: v for k, v in row.items() if k not in NEVER_LOGGED})


def tables_from(columns: Iterable[asyncpg.Record]) -> dict[str, Table]:
    """Tables by kind name, from rows (table, column, type) in table order."""
    found: dict[str, dict[str, str]] = {}
    for table, column, data_type in columns:
        found.setdefault(table, {})[column] = data_type
    return {kind.name: Table(kind, found[kind.path]) for kind in KINDS if kind.path in found}


def kind_named(name: str) -> Kind:
    """A kind by its singular or plural REST name."""
    return KIND_OF_NAME.get(name) or next(kind for kind in KINDS if kind.path == name)


def copied(row: Row) -> Row:
    """A copy that shares no JSON value with the original."""
    return {k: copy.deepcopy(v) if isinstance(v, dict | list) else v for k, v in row.items()}


def load(text: str | None, empty: Any) -> Any:
    """What a text column with JSON holds."""
    return msgspec.json.decode(text) if text else empty
