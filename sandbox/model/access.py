# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a user may read and change, asked of `materialized_permissions`.

The read rule is docs/facts/permission-rule.md, as SQL conditions on the rows of one table; `can` is
the rule of writes (User#can?). Both go through every user whom the reader manages. Conditions name
the reader's uuid by a placeholder, `$1` unless told otherwise. The array of users (`_users`) is
computed once per statement; EXISTS lets PostgreSQL look up one row by index and hash for a list.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from sandbox.model.actors import Actor
from sandbox.model.config import ClusterConfig

_NOW = "(clock_timestamp() AT TIME ZONE 'UTC')"
_READERS = (
    "(SELECT target_uuid FROM materialized_permissions WHERE user_uuid = {me}"
    " AND target_uuid LIKE '_____-tpzed-%' AND traverse_owned AND perm_level >= {level})"
)
_LEVELS = {"read": 1, "write": 2, "manage": 3, "unfreeze": 3}
_CAN = (
    "SELECT EXISTS (SELECT 1 FROM materialized_permissions WHERE user_uuid IN {readers}"
    " AND perm_level >= $3 AND (target_uuid = $2 OR (target_uuid = $4 AND traverse_owned)))"
)
_TRASHABLE = ("groups", "collections")
_WITH_OWNER = ("groups", "collections", "container_requests", "workflows", "users")


class Named(Protocol):
    """A table by its name."""

    @property
    def name(self) -> str: ...


class Reader(NamedTuple):
    """Who reads, how, and by which SQL expression their uuid is named."""

    actor: Actor
    config: ClusterConfig
    me: str
    include_trash: bool
    listing: bool


def readable(
    table: Named,
    actor: Actor,
    config: ClusterConfig,
    *,
    include_trash: bool = False,
    listing: bool = False,
    me: str = "$1",
) -> str:
    """SQL condition on the rows of `table` that the actor, whose uuid is `me`, may GET.

    `listing`: for a list, where permission links differ. Inactive users are among the users:
    whoever GETs one must look at `is_active` as well.
    """
    name = table.name
    reader = Reader(actor, config, me, include_trash, listing)
    if actor.is_admin and name not in ("api_client_authorizations", "users"):
        return _for_admin(name, include_trash)
    return _RULES.get(name, _generic)(name, reader)


def _for_admin(table: str, include_trash: bool) -> str:
    if table in ("logs", "containers") or (table in _TRASHABLE and include_trash):
        return "true"
    return f"NOT {_hidden(table)}"


def _generic(table: str, reader: Reader) -> str:
    return f"{_reached(table, reader)} AND {_shown(table, reader.include_trash)}"


def _users(reader: Reader, level: int = 1) -> str:
    """U_n: the users whose permissions of this level count for the reader, as an SQL array."""
    return f"ARRAY{_READERS.format(me=reader.me, level=level)}"


def _permitted(target: str, users: str, level: int = 1, extra: str = "") -> str:
    return (
        "EXISTS (SELECT 1 FROM materialized_permissions p"
        f" WHERE p.user_uuid = ANY({users}) AND p.target_uuid = {target}"
        f" AND p.perm_level >= {level}{extra})"
    )


def _owned(target: str, users: str, level: int = 1) -> str:
    return _permitted(target, users, level, " AND p.traverse_owned")


def _reached(table: str, reader: Reader) -> str:
    users = _users(reader)
    return f"({_permitted(f'{table}.uuid', users)} OR {_owned(f'{table}.owner_uuid', users)})"


def _hidden(table: str) -> str:
    owner = (
        f"EXISTS (SELECT 1 FROM trashed_groups g WHERE g.group_uuid = {table}.owner_uuid"
        f" AND g.trash_at <= {_NOW})"
    )
    if table not in _TRASHABLE:
        return owner
    return f"({owner} OR coalesce({table}.trash_at <= {_NOW}, false))"


def _shown(table: str, include_trash: bool) -> str:
    """Not hidden, or hidden but asked for (include_trash, never inside a frozen project)."""
    hidden = _hidden(table)
    if not (include_trash and table in _TRASHABLE):
        return f"NOT {hidden}"
    frozen = f"EXISTS (SELECT 1 FROM frozen_groups f WHERE f.uuid = {table}.owner_uuid)"
    return f"(NOT {hidden} OR NOT {frozen})"


def _groups(table: str, reader: Reader) -> str:
    direct = _permitted("groups.uuid", _users(reader))
    sees_roles = reader.config.role_groups_visible_to_all and reader.actor.is_active
    role = "groups.group_class = 'role'" if sees_roles else "false"
    return f"({direct} OR {role}) AND {_shown('groups', reader.include_trash)}"


def _user_rows(table: str, reader: Reader) -> str:
    present = "users.redirect_to_user_uuid IS NULL"
    return present if reader.actor.is_admin else f"{_reached('users', reader)} AND {present}"


def _containers(table: str, reader: Reader) -> str:
    request = _generic("container_requests", reader)
    join = "container_requests.container_uuid = containers.uuid"
    return f"EXISTS (SELECT 1 FROM container_requests WHERE {join} AND {request})"


def _logs(table: str, reader: Reader) -> str:
    """Looser than the objects: no U_n, no traverse_owned, no trash."""
    me = f"ARRAY[{reader.me}]"
    columns = ("object_uuid", "owner_uuid", "object_owner_uuid")
    held = [_permitted(f"logs.{column}", me) for column in columns]
    request = " OR ".join(_permitted(f"r.{column}", me) for column in ("uuid", "owner_uuid"))
    held.append(
        "EXISTS (SELECT 1 FROM container_requests r WHERE r.container_uuid = logs.object_uuid"
        f" AND ({request}))"
    )
    return "(" + " OR ".join(held) + ")"


def _workflows(table: str, reader: Reader) -> str:
    collection = _generic("collections", reader._replace(include_trash=False))
    own = _generic("workflows", reader)
    if reader.config.release < "3.2":
        return own
    return (
        f"((workflows.collection_uuid IS NULL AND {own}) OR EXISTS (SELECT 1 FROM collections"
        f" WHERE collections.uuid = workflows.collection_uuid AND {collection}))"
    )


def _tokens(table: str, reader: Reader) -> str:
    """One's own, even for an admin; SystemRootToken sees all."""
    if reader.actor.token_uuid == reader.config.root_token_uuid:
        return "true"
    return f"api_client_authorizations.user_id = {int(reader.actor.id)}"


def _links(table: str, reader: Reader) -> str:
    ends = f"links.tail_uuid = {reader.me}"
    if reader.listing:
        ends += f" OR links.head_uuid = {reader.me}"
    manages = managed("links.head_uuid", reader.actor, reader.me)
    permission = f"links.link_class = 'permission' AND ({ends} OR {manages})"
    generic = _generic("links", reader)
    if not reader.listing:
        generic = f"links.link_class IS DISTINCT FROM 'permission' AND {generic}"
    return f"(({permission}) OR ({generic}))"


def managed(uuid: str, actor: Actor, me: str = "$1") -> str:
    """SQL condition: the actor manages the object whose uuid the expression `uuid` gives."""
    if actor.is_admin:
        return "true"
    users = f"ARRAY{_READERS.format(me=me, level=3)}"
    owners = " UNION ALL ".join(
        f"SELECT owner_uuid FROM {table} WHERE {table}.uuid = {uuid}" for table in _WITH_OWNER
    )
    owner = f"EXISTS (SELECT 1 FROM ({owners}) o WHERE {_owned('o.owner_uuid', users, 3)})"
    return f"({uuid} = {me} OR {_permitted(uuid, users, 3)} OR {owner})"


_Rule = Callable[[str, Reader], str]
_RULES: dict[str, _Rule] = {
    "api_client_authorizations": _tokens,
    "containers": _containers,
    "groups": _groups,
    "links": _links,
    "logs": _logs,
    "users": _user_rows,
    "workflows": _workflows,
}


def can(action: str) -> tuple[str, int]:
    """Query and level: does $1 have it on $2, or on its owner $4 with what that owns?"""
    level = _LEVELS[action]
    return _CAN.format(readers=_READERS.format(me="$1", level=level)), level
