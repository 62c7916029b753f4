# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What is in a project (`groups/contents`), and what others share (`groups/shared`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sandbox.api import parameters
from sandbox.api.calls import Call
from sandbox.api.handlers import forms, objects
from sandbox.api.queries import listing, readable
from sandbox.api.queries.arguments import Arguments
from sandbox.api.queries.listing import Options
from sandbox.model.refusal import not_found

Form = dict[str, Any]

_TABLES = ("groups", "container_requests", "workflows", "collections")
_BELOW = """
WITH RECURSIVE below(uuid) AS (
    SELECT {root} UNION
    SELECT g.uuid::text FROM groups g JOIN below b ON g.owner_uuid = b.uuid)
SELECT uuid FROM below"""


async def contents(call: Call) -> Form:
    """Objects of a project, of everything below it, or of everything that is readable."""
    wanted = listing.options(call.parameters)
    root = await _root(call)
    answer = objects.envelope("arvados#objectList", wanted)
    available = 0
    for name in _TABLES:
        own = _filters_for(name, wanted.filters)
        if own is None:
            continue
        part = replace(wanted, filters=own)
        count, items = await _of_table(call, name, part, root, len(answer["items"]), available)
        available += count
        answer["items"] += items
    if include := parameters.words(call.parameters, "include"):
        answer["included"] = await _included(call, include, answer["items"])
    if wanted.count:
        answer["items_available"] = available
    return answer


async def _root(call: Call) -> str | None:
    """The project asked for; None for all that is readable."""
    uuid = call.uuid or call.parameters.get("uuid")
    if not uuid:
        return None
    if uuid != call.caller.user_uuid:
        name = forms.table_of(uuid)
        if name not in ("groups", "users"):
            raise not_found()
        await objects.find(call, call.backend.tables[name], uuid)
    return str(uuid)


def _filters_for(table: str, given: Sequence[Any]) -> list[Any] | None:
    """The filters that concern a table; None when they leave nothing of it."""
    found: list[Any] = []
    named = {
        str(item[0]).partition(".")[0]
        for item in given
        if isinstance(item, list) and item and str(item[0]).partition(".")[0] in _TABLES
    }
    if named and table not in named:
        return None
    for item in given:
        name, dot, column = str(item[0]).partition(".") if isinstance(item, list) else ("", "", "")
        if dot and name in _TABLES:
            if name == table:
                found.append([column, *item[1:]])
        else:
            found.append(item)
    return found


async def _of_table(
    call: Call, name: str, wanted: Options, root: str | None, taken: int, before: int
) -> tuple[int, list[Form]]:
    """How many objects of a table match, and those that are on the page."""
    table = call.backend.tables[name]
    query = listing.query(table, wanted, call.caller, call.backend.tables)
    query.where.append(_place(call, name, root, query.arguments))
    if name == "groups":
        query.where.append("groups.group_class IN ('project', 'filter')")
    values = query.arguments.values
    count: int = await call.backend.value(query.count(), *values)
    room = wanted.limit - taken
    if room <= 0:
        return count, []
    page = replace(wanted, limit=room, offset=max(wanted.offset - before, 0))
    rows = await call.backend.rows(query.rows(page), *values)
    return count, await objects.items(call, table, rows, wanted.select)


def _place(call: Call, table: str, root: str | None, arguments: Arguments) -> str:
    """SQL for: owned by the project, or below it; or not in the caller's own home."""
    if root is None:
        if not parameters.flag(call.parameters, "exclude_home_project"):
            return "true"
        return _shared(call, table, arguments)
    place = arguments.add(root, "text")
    if parameters.flag(call.parameters, "recursive"):
        return f"{table}.owner_uuid IN ({_BELOW.format(root=place)})"
    return f"{table}.owner_uuid = {place}"


async def _included(call: Call, include: Sequence[str], items: Sequence[Form]) -> list[Form]:
    """What these objects name, as far as it is asked for: owners, containers of requests.

    Who reads a request may read its container (services/api groups_controller.rb).
    """
    found = await _owners(call, items) if "owner_uuid" in include else []
    if "container_uuid" in include:
        uuids = sorted({item["container_uuid"] for item in items if item.get("container_uuid")})
        table = call.backend.tables["containers"]
        query = "SELECT * FROM containers WHERE uuid = ANY($1::text[]) ORDER BY uuid"
        found += await forms.present(call, table, await call.backend.rows(query, uuids))
    return found


async def _owners(call: Call, items: Sequence[Form]) -> list[Form]:
    """The owners of these objects that the caller may read, users first."""
    wanted = sorted({item["owner_uuid"] for item in items if item.get("owner_uuid")})
    found: list[Form] = []
    for name in ("users", "groups"):
        arguments = Arguments()
        which = f"{name}.uuid = ANY({arguments.add(wanted, 'text[]')})"
        may = readable.condition(call.backend.tables[name], call.caller, arguments, listing=True)
        query = f"SELECT * FROM {name} WHERE {which} AND {may} ORDER BY uuid"
        rows = await call.backend.rows(query, *arguments.values)
        found += await forms.present(call, call.backend.tables[name], rows)
    select = parameters.array(call.parameters, "select")
    return [listing.selected(item, select, "kind") for item in found]


async def shared(call: Call) -> Form:
    """Readable groups that lie at the top of what others share with the caller."""
    wanted = listing.options(call.parameters)
    table = call.backend.tables["groups"]
    query = listing.query(table, wanted, call.caller, call.backend.tables)
    query.where.append(_shared(call, "groups", query.arguments))
    rows = await call.backend.rows(query.rows(wanted), *query.arguments.values)
    answer = objects.envelope("arvados#groupList", wanted)
    answer["items"] = await objects.items(call, table, rows, wanted.select)
    if parameters.words(call.parameters, "include"):
        answer["included"] = await _owners(call, rows_with_owner(rows))
    if wanted.count:
        count = await call.backend.value(query.count(), *query.arguments.values)
        answer["items_available"] = count
    return answer


def rows_with_owner(rows: Sequence[Form]) -> list[Form]:
    """Only what `_owners` looks at."""
    return [{"owner_uuid": row["owner_uuid"]} for row in rows]


def _shared(call: Call, table: str, arguments: Arguments) -> str:
    """Of others, and in no project that the caller can read: the top of what is shared."""
    me = arguments.add(call.caller.user_uuid, "text")
    groups = readable.condition(call.backend.tables["groups"], call.caller, arguments)
    above = groups.replace("groups.", "parent.")
    return (
        f"{table}.owner_uuid <> {me} AND NOT EXISTS (SELECT 1 FROM groups parent WHERE"
        f" parent.uuid = {table}.owner_uuid AND parent.group_class = 'project' AND {above})"
    )
