# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The read rule of the model (`sandbox.model.access`) as conditions of the API's queries."""

from __future__ import annotations

from sandbox.api.callers import Caller
from sandbox.api.queries.arguments import Arguments
from sandbox.api.queries.tables import Table
from sandbox.model import access


def condition(
    table: Table,
    caller: Caller,
    arguments: Arguments,
    *,
    include_trash: bool = False,
    listing: bool = False,
) -> str:
    """What must hold for `caller` to read a row of `table`."""
    me = arguments.add(caller.user_uuid, "text")
    may = access.readable(
        table, caller.actor, caller.config, include_trash=include_trash, listing=listing, me=me
    )
    if table.name == "users" and not caller.is_admin:
        may = f"{may} AND (users.is_active OR users.uuid = {me})"
    # PostgreSQL refuses a value that no placeholder takes, and an admin's rule takes none.
    return f"({me} IS NOT NULL AND {may})"


def managed(uuid: str, caller: Caller, arguments: Arguments) -> str:
    """Whether the caller manages the object whose uuid the SQL expression `uuid` gives."""
    me = arguments.add(caller.user_uuid, "text")
    may = access.managed(uuid, caller.actor, me)
    return f"({me} IS NOT NULL AND {uuid} IS NOT NULL AND {may})"
