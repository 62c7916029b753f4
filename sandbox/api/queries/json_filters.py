# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Filters on JSON columns, and on one property of them (`properties.site`) -> SQL conditions.

Pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from sandbox.api.errors import argument_error
from sandbox.api.queries.arguments import Arguments, wrong_type
from sandbox.api.queries.tables import Table


def whole(column: str, operator: str, operand: object, arguments: Arguments) -> str:
    """A condition on a whole JSON column."""
    if operator == "exists":
        return f"jsonb_exists({column}, {arguments.add(str(operand), 'text')})"
    place = arguments.add(json.dumps(operand), "text::jsonb")
    sign = {"contains": "@>", "=": "="}.get(operator, "<>")
    return f"{column} {sign} {place}"


def subproperty(
    column: str, path: str, operator: str, operand: object, table: Table, arguments: Arguments
) -> str:
    """A condition on one property of a JSON column."""
    if table.columns.get(column) != "jsonb" or column == "secret_mounts":
        raise argument_error(f"Invalid attribute '{column}' for subproperty filter")
    if path.startswith("<") and path.endswith(">"):
        path = path[1:-1]
    build = _SUBPROPERTY.get(operator)
    if build is None:
        raise argument_error(f"Invalid operator for subproperty search '{operator}'")
    return build(f"{table.name}.{column}", path, operator, operand, arguments)


def _contains(column: str, value: object, arguments: Arguments) -> str:
    return f"{column} @> {arguments.add(json.dumps(value), 'text::jsonb')}"


def _sub_equal(column: str, path: str, operator: str, operand: object, arguments: Arguments) -> str:
    condition = _contains(column, {path: operand}, arguments)
    return condition if operator == "=" else f"NOT ({condition})"


def _sub_in(column: str, path: str, operator: str, operand: object, arguments: Arguments) -> str:
    if not isinstance(operand, list):
        raise wrong_type(operator, operand)
    parts = [_contains(column, {path: item}, arguments) for item in operand]
    return "(" + (" OR ".join(parts) or "false") + ")"


def _sub_not_in(
    column: str, path: str, operator: str, operand: object, arguments: Arguments
) -> str:
    if not isinstance(operand, list):
        raise wrong_type(operator, operand)
    field_text = f"{column} ->> {arguments.add(path, 'text')}"
    values = arguments.add([str(item) for item in operand], "text[]")
    return f"({field_text} <> ALL({values}) OR {field_text} IS NULL)"


def _sub_order(column: str, path: str, operator: str, operand: object, arguments: Arguments) -> str:
    left = f"{column} -> {arguments.add(path, 'text')}"
    return f"{left} {operator} {arguments.add(json.dumps(operand), 'text::jsonb')}"


def _sub_like(column: str, path: str, operator: str, operand: object, arguments: Arguments) -> str:
    left = f"{column} ->> {arguments.add(path, 'text')}"
    return f"{left} {operator} {arguments.add(str(operand), 'text')}"


def _sub_exists(
    column: str, path: str, operator: str, operand: object, arguments: Arguments
) -> str:
    if not isinstance(operand, bool):
        raise argument_error(f"Invalid operand '{operand}' for '{operator}' must be true or false")
    condition = f"jsonb_exists({column}, {arguments.add(path, 'text')})"
    return condition if operand else f"(NOT {condition} OR {column} IS NULL)"


def _sub_contains(
    column: str, path: str, operator: str, operand: object, arguments: Arguments
) -> str:
    one = _contains(column, {path: operand}, arguments)
    return f"({one} OR {_contains(column, {path: [operand]}, arguments)})"


_Builder = Callable[[str, str, str, object, Arguments], str]
_SUBPROPERTY: dict[str, _Builder] = {
    "=": _sub_equal,
    "!=": _sub_equal,
    "in": _sub_in,
    "not in": _sub_not_in,
    "<": _sub_order,
    "<=": _sub_order,
    ">": _sub_order,
    ">=": _sub_order,
    "like": _sub_like,
    "ilike": _sub_like,
    "exists": _sub_exists,
    "contains": _sub_contains,
}
