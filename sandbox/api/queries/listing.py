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

from sandbox.api import parameters
from sandbox.api.callers import Caller
from sandbox.api.errors import argument_error
from sandbox.api.queries import filters, readable
from sandbox.api.queries.arguments import Arguments
from sandbox.api.queries.tables import Table

_DEFAULT_ORDER = (("modified_at", "desc"), ("uuid", "desc"))
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
    """Read the options; raises `Refusal` 422 for what cannot be understood."""
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
    """FROM and WHERE of one list, and the values in it."""

    table: Table
    source: str
    where: list[str]
    arguments: Arguments

    def count(self) -> str:
        """SQL that counts all that match."""
        return f"SELECT count(*) FROM {self.source} WHERE {self._condition}"

    def rows(self, wanted: Options, *, by_selected: bool = False) -> str:
        """SQL for the rows of one page.

        `by_selected`: the default order goes by selected columns only.
        """
        columns = f"{self.table.name}.*"
        if wanted.distinct and wanted.select:
            columns = "DISTINCT " + ", ".join(f"{self.table.name}.{name}" for name in wanted.select)
        return (
            f"SELECT {columns} FROM {self.source} WHERE {self._condition}"
            f"{self._order(wanted, by_selected)} LIMIT {wanted.limit} OFFSET {wanted.offset}"
        )

    @property
    def _condition(self) -> str:
        return " AND ".join(self.where) or "true"

    def _order(self, wanted: Options, by_selected: bool) -> str:
        terms = columns_in_order(wanted.order, self.table)
        for column, direction in _DEFAULT_ORDER:
            if column in self.table.columns:
                terms.setdefault(column, direction)
        if wanted.select is not None and (wanted.distinct or by_selected):
            given = {} if wanted.distinct else columns_in_order(wanted.order, self.table)
            terms = {k: v for k, v in terms.items() if k in given or k in wanted.select}
        return order_by(terms, self.table, collate=not wanted.distinct)


def query(table: Table, wanted: Options, caller: Caller, tables: Mapping[str, Table]) -> Query:
    """The rows of `table` that match the filters and that the caller may read."""
    arguments = Arguments()
    where = filters.conditions(_renamed(table, wanted.filters), table, tables, arguments)
    may = readable.condition(
        table, caller, arguments, include_trash=wanted.include_trash, listing=True
    )
    where.append(may)
    if table.name == "collections" and not wanted.include_old_versions:
        where.append("collections.uuid = collections.current_version_uuid")
    source = table.name
    if table.name == "logs" and not caller.is_admin:
        # As recorded: a row about a container is listed once for each of its requests.
        source += " LEFT JOIN container_requests c ON c.container_uuid = logs.object_uuid"
    return Query(table, source, where, arguments)


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


def columns_in_order(order: Sequence[str], table: Table) -> dict[str, str]:
    """Column -> direction; what names no column of `table` is left out."""
    found: dict[str, str] = {}
    for match in (_ORDER.fullmatch(item.strip()) for item in order):
        if match and match[1] in (None, table.name) and match[2] in table.columns:
            found.setdefault(match[2], (match[3] or "asc").lower())
    return found


def order_by(terms: Mapping[str, str], table: Table, *, collate: bool = True) -> str:
    """The ORDER BY of these columns; text goes by code point."""
    parts = [
        f"{table.name}.{column}"
        + (' COLLATE "C"' if collate and table.columns[column] == "text" else "")
        + f" {direction}"
        for column, direction in terms.items()
    ]
    return f" ORDER BY {', '.join(parts)}" if parts else ""


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
