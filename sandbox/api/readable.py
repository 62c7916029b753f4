# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The read rule of facts/permission-rule.md as SQL conditions.

Pure. Each function answers a condition over a table's row for one caller; `ANY` of its arrays and
correlated EXISTS let PostgreSQL use the index on (user_uuid, target_uuid) for one row and hash for
a list.
"""

from __future__ import annotations

from collections.abc import Callable

from sandbox.api.arguments import Arguments
from sandbox.api.callers import Caller

_NOW = "(clock_timestamp() AT TIME ZONE 'UTC')"
_TRASHED_TYPES = ("groups", "collections")


def condition(
    table: str, caller: Caller, arguments: Arguments, *, trash: bool = False, single: bool = False
) -> str:
    """What must hold for `caller` to read a row of `table`.

    `trash`: include_trash was asked. `single`: a GET of one object, not a list; links and old
    collection versions differ.
    """
    if caller.is_admin and table != "api_client_authorizations":
        return _for_admin(table, trash)
    if table == "links":
        return _links(caller, arguments, single)
    special = _SPECIAL.get(table)
    if special:
        return special(caller, arguments, trash)
    return _generic(table, caller, arguments, trash)


def _for_admin(table: str, trash: bool) -> str:
    if table in ("logs", "containers"):
        return "true"
    if table == "users":
        return "users.redirect_to_user_uuid IS NULL"
    if table in _TRASHED_TYPES and trash:
        return "true"
    return f"NOT {_hidden(table)}"


def _hidden(table: str) -> str:
    owner = (
        f"EXISTS (SELECT 1 FROM trashed_groups g WHERE g.group_uuid = {table}.owner_uuid"
        f" AND g.trash_at <= {_NOW})"
    )
    if table not in _TRASHED_TYPES:
        return owner
    return f"({owner} OR coalesce({table}.trash_at <= {_NOW}, false))"


def _may_be_seen(table: str, trash: bool) -> str:
    """Not hidden, or hidden but asked for (include_trash, never inside a frozen project)."""
    hidden = _hidden(table)
    if not (trash and table in _TRASHED_TYPES):
        return f"NOT {hidden}"
    frozen = f"EXISTS (SELECT 1 FROM frozen_groups f WHERE f.uuid = {table}.owner_uuid)"
    return f"(NOT {hidden} OR NOT {frozen})"


def _permitted(target: str, users: str, level: int = 1, extra: str = "") -> str:
    return (
        "EXISTS (SELECT 1 FROM materialized_permissions p"
        f" WHERE p.user_uuid = ANY({users}) AND p.target_uuid = {target}"
        f" AND p.perm_level >= {level}{extra})"
    )


def _owned(target: str, users: str, level: int = 1) -> str:
    return _permitted(target, users, level, " AND p.traverse_owned")


def _reaches(table: str, users: str) -> str:
    direct = _permitted(f"{table}.uuid", users)
    return f"({direct} OR {_owned(f'{table}.owner_uuid', users)})"


def _users(caller: Caller, arguments: Arguments) -> str:
    return arguments.add(caller.acting_as(1), "text[]")


def _generic(table: str, caller: Caller, arguments: Arguments, trash: bool) -> str:
    users = _users(caller, arguments)
    return f"{_reaches(table, users)} AND {_may_be_seen(table, trash)}"


def _groups(caller: Caller, arguments: Arguments, trash: bool) -> str:
    direct = _permitted("groups.uuid", _users(caller, arguments))
    role = "groups.group_class = 'role'" if caller.user["is_active"] else "false"
    return f"({direct} OR {role}) AND {_may_be_seen('groups', trash)}"


def _user_rows(caller: Caller, arguments: Arguments, trash: bool) -> str:
    me = arguments.add(caller.user_uuid, "text")
    visible = f"(users.uuid = {me} OR users.is_active) AND users.redirect_to_user_uuid IS NULL"
    return (
        f"{_reaches('users', _users(caller, arguments))} AND {visible} AND NOT {_hidden('users')}"
    )


def _containers(caller: Caller, arguments: Arguments, trash: bool) -> str:
    request = _generic("container_requests", caller, arguments, False)
    join = "container_requests.container_uuid = containers.uuid"
    return f"EXISTS (SELECT 1 FROM container_requests WHERE {join} AND {request})"


def _logs(caller: Caller, arguments: Arguments, trash: bool) -> str:
    """Looser than the objects: no U_n, no traverse_owned, no trash."""
    me = f"ARRAY[{arguments.add(caller.user_uuid, 'text')}]"
    own = [
        _permitted(f"logs.{column}", me)
        for column in ("object_uuid", "owner_uuid", "object_owner_uuid")
    ]
    request = " OR ".join(_permitted(f"r.{column}", me) for column in ("uuid", "owner_uuid"))
    own.append(
        "EXISTS (SELECT 1 FROM container_requests r WHERE r.container_uuid = logs.object_uuid"
        f" AND ({request}))"
    )
    return "(" + " OR ".join(own) + ")"


def _workflows(caller: Caller, arguments: Arguments, trash: bool) -> str:
    collection = _generic("collections", caller, arguments, False)
    linked = (
        "(workflows.collection_uuid IS NULL OR EXISTS (SELECT 1 FROM collections"
        f" WHERE collections.uuid = workflows.collection_uuid AND {collection}))"
    )
    return f"{_generic('workflows', caller, arguments, False)} AND {linked}"


def _tokens(caller: Caller, arguments: Arguments, trash: bool) -> str:
    if caller.is_root:
        return "true"
    user = arguments.add(caller.user["id"], "bigint")
    return f"api_client_authorizations.user_id = {user}"


def manageable(uuid: str, caller: Caller, arguments: Arguments) -> str:
    """Whether the caller manages the object whose uuid the SQL expression `uuid` names."""
    if caller.is_admin:
        return "true"
    users = arguments.add(caller.acting_as(3), "text[]")
    owners = " UNION ALL ".join(
        f"SELECT owner_uuid FROM {table} WHERE {table}.uuid = {uuid}" for table in _OWNED
    )
    owner = f"EXISTS (SELECT 1 FROM ({owners}) o WHERE {_owned('o.owner_uuid', users, 3)})"
    me = arguments.add(caller.user_uuid, "text")
    return f"({uuid} = {me} OR {_permitted(uuid, users, 3)} OR {owner})"


_OWNED = ("groups", "collections", "container_requests", "workflows", "users")


def _links(caller: Caller, arguments: Arguments, single: bool) -> str:
    me = arguments.add(caller.user_uuid, "text")
    manages = manageable("links.head_uuid", caller, arguments)
    ends = f"links.tail_uuid = {me}" + ("" if single else f" OR links.head_uuid = {me}")
    permission = f"links.link_class = 'permission' AND ({ends} OR {manages})"
    generic = _generic("links", caller, arguments, False)
    if single:
        generic = f"links.link_class IS DISTINCT FROM 'permission' AND {generic}"
    return f"(({permission}) OR ({generic}))"


_Special = Callable[[Caller, Arguments, bool], str]
_SPECIAL: dict[str, _Special] = {
    "groups": _groups,
    "users": _user_rows,
    "containers": _containers,
    "logs": _logs,
    "workflows": _workflows,
    "api_client_authorizations": _tokens,
}
