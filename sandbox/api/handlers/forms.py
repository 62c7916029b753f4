# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Rows as the API shows them: kind and etag, the public columns, and what is derived for a viewer.

Groups and users also say who may write them and what the viewer may do (golden/api.json).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from arvados_nats.contract import subjects
from sandbox.api.calls import Call
from sandbox.api.handlers.rights import Rights
from sandbox.api.queries.tables import Table
from sandbox.model import presentation, records
from sandbox.model.records import JSON_IN_TEXT

Form = dict[str, Any]

_KINDS = {kind.path: kind.arvados for kind in subjects.KINDS}
etag = records.etag


def kind(table: str) -> str:
    """The kind of a table's objects, e.g. `arvados#containerRequest`."""
    return _KINDS[table]


def table_of(uuid: str) -> str | None:
    """The table that a uuid belongs to."""
    found = subjects.kind_of(uuid)
    return found.path if found else None


def time(value: Any) -> str | None:
    """A time as the API shows it."""
    return records.stamp(value) if value is not None else None


def attributes(table: Table) -> set[str]:
    """The attributes that a single object may be asked for."""
    return {*presentation.keys(records.kind_named(table.name).name), "unsigned_manifest_text"}


def decoded(table: str, row: Mapping[str, Any]) -> Form:
    """A row with the JSON in its text columns read."""
    found = dict(row)
    for column, empty in JSON_IN_TEXT.get(table, {}).items():
        if isinstance(found.get(column, ()), str | None):
            found[column] = records.load(found[column], empty())
    return found


async def present(call: Call, table: Table, rows: Sequence[Mapping[str, Any]]) -> list[Form]:
    """The API forms of rows, for the caller."""
    rights = Rights()
    if table.name in ("users", "groups"):
        rights = await Rights.read(call, rows)
    owners: Mapping[int, str] = {}
    if table.name == "api_client_authorizations":
        owners = await _users(call, rows)
    return [_form(call, table.name, decoded(table.name, row), rights, owners) for row in rows]


async def _users(call: Call, rows: Sequence[Mapping[str, Any]]) -> Mapping[int, str]:
    ids = [row["user_id"] for row in rows if "user_id" in row]
    query = "SELECT id, uuid FROM users WHERE id = ANY($1::bigint[])"
    return {row["id"]: row["uuid"] for row in await call.backend.rows(query, ids)}


def _form(call: Call, table: str, row: Form, rights: Rights, owners: Mapping[int, str]) -> Form:
    form: Form = {"kind": kind(table), "etag": etag(row)}
    form |= records.in_json({key: row[key] for key in _keys(table) if key in row})
    if table == "api_client_authorizations":
        form |= {"modified_by_user_uuid": None, "modified_at": None}
        form["owner_uuid"] = owners.get(row.get("user_id", 0))
    elif table == "links":
        form |= {f"{end}_kind": _kind_of(row.get(f"{end}_uuid")) for end in ("head", "tail")}
    elif table == "logs":
        form["object_kind"] = _kind_of(row.get("object_uuid"))
    elif table == "users":
        form |= _user(row, rights)
    if table in ("users", "groups"):
        form |= rights.of(call, row)
    return form


def _keys(table: str) -> tuple[str, ...]:
    return presentation.keys(records.kind_named(table).name)


def _kind_of(uuid: str | None) -> str | None:
    found = subjects.kind_of(uuid)
    return found.arvados if found else None


def _user(row: Form, rights: Rights) -> Form:
    names = [row.get("first_name"), row.get("last_name")]
    return {
        "full_name": " ".join(name for name in names if name),
        "is_invited": bool(row.get("is_active")) or row.get("uuid") in rights.invited,
    }
