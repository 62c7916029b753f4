# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""GET of one object and of lists, the same for all kinds of objects that have a table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sandbox.api import forms, listing, parameters, readable
from sandbox.api.calls import Call
from sandbox.api.errors import argument_error
from sandbox.api.filters import Arguments
from sandbox.api.listing import Options
from sandbox.api.tables import Table
from sandbox.model.refusal import not_found

Form = dict[str, Any]

_PDH = re.compile(r"[0-9a-f]{32}\+\d+")


async def show(call: Call) -> Form:
    """One object by uuid; a collection also by its portable data hash."""
    if call.resource == "collections" and _PDH.match(call.uuid):
        return await _by_hash(call)
    row = await find(call, call.table, call.uuid)
    select = parameters.array(call.parameters, "select")
    if select is not None and not set(select) & forms.attributes(call.table):
        raise argument_error("Attribute selection list cannot be empty")
    form = (await forms.present(call, call.table, [row]))[0]
    return listing.selected(form, select)


async def find(call: Call, table: Table, uuid: str) -> Mapping[str, Any]:
    """The row of an object that the caller may read; `Refusal` 404 otherwise."""
    arguments = Arguments()
    which = f"{table.name}.uuid = {arguments.add(uuid, 'text')}"
    trash = parameters.flag(call.parameters, "include_trash")
    may = readable.condition(table.name, call.caller, arguments, trash=trash, single=True)
    query = f"SELECT * FROM {table.name} WHERE {which} AND {may}"
    row = await call.backend.row(query, *arguments.values)
    if row is None:
        raise not_found()
    return row


async def _by_hash(call: Call) -> Form:
    arguments = Arguments()
    which = f"collections.portable_data_hash = {arguments.add(call.uuid, 'text')}"
    may = readable.condition("collections", call.caller, arguments, single=True)
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
    answer["items"] = await _page(call, query, wanted)
    if "container_uuid" in parameters.words(call.parameters, "include"):
        answer["included"] = await _containers(call, answer["items"])
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
    columns = ", ".join(wanted.select) if wanted.distinct and wanted.select else "*"
    rows = await call.backend.rows(query.rows(wanted, columns), *query.arguments.values)
    return await items(call, call.table, rows, wanted.select)


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


async def _containers(call: Call, requests: Sequence[Form]) -> list[Form]:
    table = call.backend.tables["containers"]
    uuids = sorted({item["container_uuid"] for item in requests if item.get("container_uuid")})
    arguments = Arguments()
    which = f"containers.uuid = ANY({arguments.add(uuids, 'text[]')})"
    may = readable.condition("containers", call.caller, arguments)
    query = f"SELECT * FROM containers WHERE {which} AND {may} ORDER BY uuid"
    rows = await call.backend.rows(query, *arguments.values)
    return await forms.present(call, table, rows)
