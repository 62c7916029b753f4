# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Filters of list requests -> SQL conditions.

Pure. The operators, their operands and the wording of refusals follow the recorded Rails server
(golden/api.json, exchanges `filter.*` and `error.*`). Values never enter the SQL text: they are
collected in `Arguments`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from arvados_nats.contract import subjects
from sandbox.api.errors import argument_error
from sandbox.api.queries import json_filters
from sandbox.api.queries.arguments import Arguments, ruby, wrong_type
from sandbox.api.queries.tables import Table

_COMPARE = {"=", "<", "<=", ">", ">=", "!=", "<>", "like", "ilike"}
_TRUE = {"1", "t", "true", "y", "yes"}
_FALSE = {"0", "f", "false", "n", "no"}
_CASTS = {"text": "text", "integer": "bigint", "boolean": "boolean", "datetime": "timestamp"}
_INFIX_OF_CLASS = {kind.arvados: kind.infix for kind in subjects.KINDS}


def conditions(
    filters: Sequence[object], table: Table, tables: Mapping[str, Table], arguments: Arguments
) -> list[str]:
    """One SQL condition for each filter; all must hold.

    Raises `ApiError` 422 for what is no filter.
    """
    return [_filter(item, table, tables, arguments) for item in filters]


def _filter(item: object, table: Table, tables: Mapping[str, Table], arguments: Arguments) -> str:
    if not isinstance(item, list):
        shown = json.dumps(item)
        raise argument_error(f"Invalid element in filters array: {shown} is not an array")
    attribute, operator, operand = [*item, None, None, None][:3]
    if operator == "@@":
        raise argument_error("Full text search operator is no longer supported")
    if not isinstance(operator, str):
        raise argument_error(f"Invalid operator '' ({ruby(operator)}) in filter")
    operator = operator.lower()
    if attribute == "any" and operator in ("like", "ilike") and _substring(operand):
        return f"{_text_of_all(table)} {operator} {arguments.add(operand, 'text')}"
    if attribute == "any":
        names = sorted(table.searchable(operator), key=lambda name: table.columns[name])
    else:
        names = attribute if isinstance(attribute, list) else [attribute]
    parts = [_one(str(name), operator, operand, table, tables, arguments) for name in names]
    return "(" + " OR ".join(parts) + ")"


def _substring(operand: object) -> bool:
    return isinstance(operand, str) and len(operand) > 1 and operand[0] == operand[-1] == "%"


def _text_of_all(table: Table) -> str:
    names = table.searchable("ilike")
    texts = [f"coalesce({table.name}.{name}, '')" for name in names]
    texts += [
        f"coalesce({table.name}.{name}::text, '')"
        for name, kind in table.columns.items()
        if kind == "jsonb" and name == "properties"
    ]
    return "(" + " || ' ' || ".join(texts) + ")"


def _one(
    name: str,
    operator: str,
    operand: object,
    table: Table,
    tables: Mapping[str, Table],
    arguments: Arguments,
) -> str:
    column, _, path = name.partition(".")
    if column == "container" and table.name == "container_requests":
        inner = _one(path, operator, operand, tables["containers"], tables, arguments)
        join = "containers.uuid = container_requests.container_uuid"
        return f"EXISTS (SELECT 1 FROM containers WHERE {join} AND ({inner}))"
    if path:
        return json_filters.subproperty(column, path, operator, operand, table, arguments)
    kind = table.columns.get(column)
    if column == "scopes" and isinstance(operand, list) and operator == "=":
        return f"{table.name}.scopes::jsonb = {arguments.add(json.dumps(operand), 'text::jsonb')}"
    if kind == "jsonb" and operator in ("=", "!=", "<>", "contains", "exists"):
        return json_filters.whole(f"{table.name}.{column}", operator, operand, arguments)
    if column not in table.searchable(operator):
        raise argument_error(f"Invalid attribute '{column}' in filter")
    if operator in _COMPARE:
        return _compare(f"{table.name}.{column}", str(kind), operator, operand, arguments)
    if operator in ("in", "not in"):
        return _membership(f"{table.name}.{column}", str(kind), operator, operand, arguments)
    if operator == "is_a":
        return _is_a(f"{table.name}.{column}", table.infix, operand, arguments)
    raise argument_error(f"Invalid operator '{operator}'")


def _compare(column: str, kind: str, operator: str, operand: object, arguments: Arguments) -> str:
    operator = "<>" if operator == "!=" else operator
    if operand is None and operator in ("=", "<>"):
        return f"{column} IS {'' if operator == '=' else 'NOT '}NULL"
    if operand is None and kind == "integer":
        return "NULL"
    value = _value(column, kind, operator, operand)
    condition = f"{column} {operator} {arguments.add(value, _CASTS[kind])}"
    return f"({condition} OR {column} IS NULL)" if operator == "<>" else condition


def _value(column: str, kind: str, operator: str, operand: object) -> object:
    if kind == "boolean":
        return _boolean(column, operator, operand)
    if kind == "integer":
        return _integer(operator, operand)
    if not isinstance(operand, str):
        raise wrong_type(operator, operand)
    return moment(operand) if kind == "datetime" else operand


def _boolean(column: str, operator: str, operand: object) -> bool:
    if operator not in ("=", "<>"):
        raise argument_error(f"Invalid operator '{operator}' for boolean attribute")
    if isinstance(operand, bool):
        return operand
    text = str(operand).lower()
    if text not in _TRUE | _FALSE:
        attribute = column.partition(".")[2]
        raise argument_error(f"Invalid operand '{operand}' for boolean attribute '{attribute}'")
    return text in _TRUE


def _integer(operator: str, operand: object) -> int:
    if isinstance(operand, bool) or not isinstance(operand, (int, float, str)):
        raise wrong_type(operator, operand)
    try:
        return int(operand)
    except ValueError:
        return 0


def moment(text: str) -> datetime:
    """A time as clients write it -> UTC without zone, as the columns hold it."""
    try:
        parsed = datetime.fromisoformat(text.strip().replace(" UTC", "Z"))
    except ValueError:
        raise argument_error(f'no time information in "{text}"') from None
    return parsed.astimezone(UTC).replace(tzinfo=None) if parsed.tzinfo else parsed


def _membership(
    column: str, kind: str, operator: str, operand: object, arguments: Arguments
) -> str:
    if not isinstance(operand, list):
        raise wrong_type(operator, operand)
    values = [_value(column, kind, "=", item) for item in operand if item is not None]
    place = arguments.add(values, f"{_CASTS[kind]}[]")
    if operator == "in":
        return f"{column} = ANY({place})"
    if len(values) < len(operand):
        return "NULL"
    return f"({column} <> ALL({place}) OR {column} IS NULL)"


def _is_a(column: str, infix: str | None, operand: object, arguments: Arguments) -> str:
    classes = operand if isinstance(operand, list) else [operand]
    infixes = [_INFIX_OF_CLASS[name] for name in classes if name in _INFIX_OF_CLASS]
    if column.endswith(".uuid"):
        return "true" if infix in infixes else "false"
    return f"substring({column}, 7, 5) = ANY({arguments.add(infixes, 'text[]')})"
