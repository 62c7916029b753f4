# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who may do what: `computed_permissions` (admins only) and the permission links of one object."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from sandbox.api import errors
from sandbox.api.answers import plain_json
from sandbox.api.calls import Call
from sandbox.api.errors import argument_error
from sandbox.api.handlers import forms, objects
from sandbox.api.queries import filters, listing, readable
from sandbox.api.queries.arguments import Arguments
from sandbox.model.refusal import not_found

Form = dict[str, Any]

_LEVELS = {1: "can_read", 2: "can_write", 3: "can_manage"}
_ATTRIBUTES = ("user_uuid", "target_uuid", "perm_level")


async def computed(call: Call) -> Form:
    """Rows of `materialized_permissions` without traverse_owned; no offset and no count."""
    if not call.caller.is_admin:
        raise errors.forbidden()
    given = {"count": "none", **call.parameters}
    wanted = listing.options(given)
    if wanted.offset:
        text = f'non-zero offset parameter "{given["offset"]}" is not supported'
        raise argument_error(text)
    if wanted.count:
        raise argument_error("count parameter must be 'none'")
    table = call.backend.tables["materialized_permissions"]
    select = wanted.select or list(_ATTRIBUTES)
    for name in select:
        if name not in _ATTRIBUTES:
            text = f"Invalid attribute '{name}' of ComputedPermission in select parameter"
            raise argument_error(text)
    arguments = Arguments()
    where = filters.conditions(wanted.filters, table, call.backend.tables, arguments)
    default = list(select) if wanted.distinct else ["user_uuid", "target_uuid"]
    terms = listing.columns_in_order([*wanted.order, *default], table)
    order = listing.order_by(terms, table, collate=not wanted.distinct)
    query = (
        f"SELECT {'DISTINCT ' if wanted.distinct else ''}{', '.join(select)}"
        f" FROM {table.name} WHERE {' AND '.join(where) or 'true'}"
        f"{order} LIMIT {wanted.limit}"
    )
    rows = await call.backend.rows(query, *arguments.values)
    answer = objects.envelope("arvados#computedPermissionList", wanted)
    answer["items"] = [_item(dict(row)) for row in rows]
    return answer


def _item(row: Form) -> Form:
    if "perm_level" in row:
        row["perm_level"] = _LEVELS[row["perm_level"]]
    return row


async def of_object(call: Call) -> Form | Response:
    """The permission links that lead to an object, for those who manage it."""
    kind = forms.table_of(call.uuid)
    if kind is None:
        raise not_found()
    await objects.find(call, call.backend.tables[kind], call.uuid)
    arguments = Arguments()
    manages = readable.managed(arguments.add(call.uuid, "text"), call.caller, arguments)
    if not await call.backend.value(f"SELECT {manages}", *arguments.values):
        return plain_json({"errors": ["Forbidden"]}, 403)
    table = call.backend.tables["links"]
    rows = await call.backend.rows(
        "SELECT * FROM links WHERE link_class = 'permission' AND head_uuid = $1 ORDER BY id",
        call.uuid,
    )
    answer = objects.envelope("arvados#linkList", listing.options(call.parameters))
    answer["items"] = await forms.present(call, table, rows)
    answer["limit"] = answer["items_available"] = len(rows)
    return answer
