# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""GET of one object and of lists, the same for all kinds of objects that have a table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sandbox.api import parameters
from sandbox.api.calls import Call
from sandbox.api.errors import argument_error
from sandbox.api.handlers import forms
from sandbox.api.queries import listing, readable
from sandbox.api.queries.arguments import Arguments
from sandbox.api.queries.listing import Options
from sandbox.api.queries.tables import Table
from sandbox.model.refusal import not_found

Form = dict[str, Any]

_PDH = re.compile(r"[0-9a-f]{32}\+\d+")
_OF_OTHER_USERS = ("kind", "uuid", "email", "username", "first_name", "last_name", "is_active",
                   "is_admin", "is_invited", "can_write", "can_manage")  # fmt: skip
"""All that users other than admins are shown of each other."""


async def show(call: Call) -> Form:
    """One object by uuid; a collection also by its portable data hash."""
    if call.resource == "collections" and _PDH.match(call.uuid):
        return await _by_hash(call)
    row = await find(call, call.table, call.uuid)
    select = parameters.array(call.parameters, "select")
    if select is not None and not set(select) & forms.attributes(call.table):
        raise argument_error("Attribute selection list cannot be empty")
    form = (await forms.present(call, call.table, [row]))[0]
    if call.uuid != call.caller.user_uuid:
        form = _reduced(call, form)
    return listing.selected(form, select)


def _reduced(call: Call, form: Form) -> Form:
    """What the caller is shown of another user."""
    if call.resource != "users" or call.caller.is_admin:
        return form
    return {name: form[name] for name in _OF_OTHER_USERS if name in form}


async def find(call: Call, table: Table, uuid: str) -> Mapping[str, Any]:
    """The row of an object that the caller may read; `Refusal` 404 otherwise."""
    arguments = Arguments()
    which = f"{table.name}.uuid = {arguments.add(uuid, 'text')}"
    trash = parameters.flag(call.parameters, "include_trash")
    may = readable.condition(table, call.caller, arguments, include_trash=trash)
    query = f"SELECT * FROM {table.name} WHERE {which} AND {may}"
    row = await call.backend.row(query, *arguments.values)
    if row is None:
        raise not_found()
    return row


async def _by_hash(call: Call) -> Form:
    arguments = Arguments()
    which = f"collections.portable_data_hash = {arguments.add(call.uuid, 'text')}"
    may = readable.condition(call.table, call.caller, arguments)
    query = f"SELECT * FROM collections WHERE {which} AND {may} LIMIT 1"
    row = await call.backend.row(query, *arguments.values)
    if row is None:
        raise not_found()
    names = ("portable_data_hash", "trash_at", "manifest_text")
    return {"uuid": call.uuid, **{name: row[name] for name in names}}


async def index(call: Call) -> Form:
    """A list of objects."""
    wanted = listing.options(call.parameters)
    listing.check_select(wanted.select, call.table)
    answer = envelope(f"{forms.kind(call.table.name)}List", wanted)
    query = listing.query(call.table, wanted, call.caller, call.backend.tables)
    if call.resource == "users" and not call.caller.is_admin:
        query.where.append("users.is_active")
    answer["items"] = await _page(call, query, wanted)
    if wanted.count:
        count = await call.backend.value(query.count(), *query.arguments.values)
        answer["items_available"] = count
    return answer


def envelope(kind: str, wanted: Options) -> Form:
    """A list's answer with no items yet."""
    return {
        "kind": kind,
        "etag": "",
        "self_link": "",
        "offset": wanted.offset,
        "limit": wanted.limit,
        "items": [],
    }


async def _page(call: Call, query: listing.Query, wanted: Options) -> list[Form]:
    statement = query.rows(wanted, by_selected=True)
    rows = await call.backend.rows(statement, *query.arguments.values)
    found = await items(call, call.table, rows, wanted.select)
    return [_reduced(call, item) for item in found]


async def items(
    call: Call, table: Table, rows: Sequence[Mapping[str, Any]], select: Sequence[Any] | None
) -> list[Form]:
    """Rows as items of a list, which keep their kind and leave out a manifest's text."""
    found = await forms.present(call, table, rows)
    if select is None:
        for item in found:
            item.pop("manifest_text", None)
        return found
    return [listing.selected(item, select, "kind") for item in found]
