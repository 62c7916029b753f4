# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Takes what a request gives for an object into its row, in the column's type or with a refusal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox.model import records
from sandbox.model.records import Record, Table
from sandbox.model.refusal import raised

_UNKNOWN = (
    "unknown attribute '{name}' for {model}.\n\n"
    "          raise UnknownAttributeError.new(self, k.to_s)\n          ^^^^^"
)
_IGNORED = frozenset({"kind", "etag", "href", "head_kind", "tail_kind", "unsigned_manifest_text"})
_RUBY = {dict: "Hash", list: "Array", str: "String", int: "Integer", bool: "Boolean"}


def model_name(table: Table) -> str:
    """The Rails class, as it stands in error texts: container_requests is ContainerRequest."""
    return "".join(part.title() for part in table.kind.name.split("_"))


def assign(record: Record, attributes: Mapping[str, Any]) -> None:
    """Set attributes from a request; unknown ones and wrong types are refused (422)."""
    for name, value in attributes.items():
        if name in _IGNORED:
            continue
        if name not in record.table.columns and not _virtual(record.table, name):
            text = _UNKNOWN.format(name=name, model=model_name(record.table))
            raise raised("ActiveModel::UnknownAttributeError", text)
        record.row[name] = _cast(record.table, name, value)


def _virtual(table: Table, name: str) -> bool:
    return table.name == "api_client_authorizations" and name == "owner_uuid"


def _cast(table: Table, name: str, value: Any) -> Any:
    wanted = table.json_in_text.get(name)
    if wanted is not None:
        if value is None:
            return wanted()
        if not isinstance(value, wanted):
            ruby = _RUBY.get(type(value), type(value).__name__)
            text = f"{name} parameter must be {_RUBY[wanted]}, not {ruby}"
            raise raised("ArgumentError", text)
        return value
    return _CASTS.get(table.columns.get(name, ""), _text)(value)


def _time(value: Any) -> Any:
    try:
        return records.parse_time(value)
    except (ValueError, TypeError):
        return None


def _integer(value: Any) -> Any:
    try:
        return None if value is None or value == "" else int(value)
    except (ValueError, TypeError):
        return None


def _float(value: Any) -> Any:
    try:
        return None if value is None or value == "" else float(value)
    except (ValueError, TypeError):
        return None


def _boolean(value: Any) -> Any:
    if value is None or value == "":
        return None
    return value not in (False, 0, "0", "f", "F", "false", "False", "off")


def _text(value: Any) -> Any:
    return value if value is None or isinstance(value, str) else records.dump(value)


def _as_is(value: Any) -> Any:
    return value


_CASTS = {
    "timestamp without time zone": _time,
    "bigint": _integer,
    "integer": _integer,
    "double precision": _float,
    "boolean": _boolean,
    "jsonb": _as_is,
}
