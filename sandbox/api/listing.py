# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The options of a list request -> one SELECT.

Pure. filters, order, select, limit, offset, count and distinct behave as recorded
(golden/api.json, exchanges `list.*`): an unknown attribute is ignored in order and refused in
select; limit is at most 1000; text is ordered by code point.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.api import filters, parameters, readable
from sandbox.api.callers import Caller
from sandbox.api.errors import argument_error
from sandbox.api.filters import Arguments
from sandbox.api.tables import Table

_ORDER = re.compile(r"(?:(\w+)\.)?(\w+)(?:\s+(asc|desc))?", re.IGNORECASE)
_DERIVED = {"kind", "etag", "writable_by", "can_write", "can_manage", "full_name", "is_invited",
            "unsigned_manifest_text", "head_kind", "tail_kind", "object_kind", "owner_uuid",
            "modified_by_user_uuid", "modified_at"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Options:
    """What a list request asks for; `select` None means every attribute of the API form."""

    filters: Sequence[Any]
    order: Sequence[str]
    select: Sequence[str] | None
    limit: int
    offset: int
    count: bool
    distinct: bool
    include_trash: bool
    include_old_versions: bool


def options(given: Mapping[str, Any]) -> Options:
    """Read the options; raises `Refusal` 422 for what can not be understood."""
    return Options(
        filters=parameters.array(given, "filters") or [],
        order=parameters.words(given, "order"),
        select=parameters.array(given, "select"),
        limit=parameters.limit(given),
        offset=parameters.offset(given),
        count=given.get("count") != "none",
        distinct=parameters.flag(given, "distinct"),
        include_trash=parameters.flag(given, "include_trash"),
        include_old_versions=parameters.flag(given, "include_old_versions"),
    )


@dataclass(slots=True)
class Query:
    """The WHERE of one list, and the values in it."""

    table: Table
    where: list[str]
    arguments: Arguments

    def count(self) -> str:
        """SQL that counts all that match."""
        return f"SELECT count(*) FROM {self.table.name} WHERE {self._condition}"

    def rows(self, wanted: Options, columns: str = "*", extra: str = "") -> str:
        """SQL for the rows of one page."""
        order = "" if wanted.distinct and not wanted.order else self._order(wanted)
        distinct = "DISTINCT " if wanted.distinct else ""
        return (
            f"SELECT {distinct}{columns} FROM {self.table.name} WHERE {self._condition}{extra}"
            f"{order} LIMIT {wanted.limit} OFFSET {wanted.offset}"
        )

    @property
    def _condition(self) -> str:
        return " AND ".join(self.where) or "true"

    def _order(self, wanted: Options) -> str:
        default = [] if wanted.distinct else _default_order(self.table.name)
        terms = order_terms(wanted.order, self.table) + [
            _term(self.table, *item.split()) for item in default
        ]
        return f" ORDER BY {', '.join(terms)}" if terms else ""


def query(table: Table, wanted: Options, caller: Caller, tables: Mapping[str, Table]) -> Query:
    """The rows of `table` that match the filters and that the caller may read."""
    arguments = Arguments()
    where = filters.conditions(_renamed(table, wanted.filters), table, tables, arguments)
    where.append(readable.condition(table.name, caller, arguments, trash=wanted.include_trash))
    if table.name == "collections" and not wanted.include_old_versions:
        where.append("collections.uuid = collections.current_version_uuid")
    return Query(table, where, arguments)


def _renamed(table: Table, given: Sequence[Any]) -> Sequence[Any]:
    """Links may be filtered by the kind of their ends."""
    if table.name != "links":
        return given
    kinds = {"head_kind": "head_uuid", "tail_kind": "tail_uuid"}
    return [
        [kinds[item[0]], "is_a", item[2]]
        if isinstance(item, list) and len(item) == 3 and item[0] in kinds
        else item
        for item in given
    ]


def _default_order(table: str) -> list[str]:
    if table == "logs":
        return ["id asc"]
    if table == "api_client_authorizations":
        return ["id desc"]
    return ["modified_at desc", "uuid asc"]


def order_terms(order: Sequence[str], table: Table) -> list[str]:
    """ORDER BY terms; what names no column of `table` is left out."""
    matches = (_ORDER.fullmatch(item.strip()) for item in order)
    return [
        _term(table, match[2], (match[3] or "asc").lower())
        for match in matches
        if match and match[1] in (None, table.name) and match[2] in table.columns
    ]


def _term(table: Table, column: str, direction: str) -> str:
    collation = ' COLLATE "C"' if table.columns[column] == "text" else ""
    return f"{table.name}.{column}{collation} {direction}"


def check_select(select: Sequence[Any] | None, table: Table) -> None:
    """Refuse attributes that the model does not have."""
    for name in select or ():
        if name not in table.columns and name not in _DERIVED:
            raise argument_error(f"Invalid attribute '{name}' of {table.model} in select parameter")


def selected(item: dict[str, Any], select: Sequence[Any] | None, *always: str) -> dict[str, Any]:
    """The attributes of an API form that were asked for."""
    if select is None:
        return item
    wanted = {*select, *always}
    return {name: value for name, value in item.items() if name in wanted}
