# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a user may read and change, asked of `materialized_permissions`.

The read rule is facts/permission-rule.md, as SQL conditions on one table; `can` is the rule of
writes (User#can?). Both go through every user whom the reader manages.
"""

from __future__ import annotations

from sandbox.model.actors import Actor
from sandbox.model.config import ClusterConfig
from sandbox.model.records import Table

_READERS = (
    "(SELECT target_uuid FROM materialized_permissions WHERE user_uuid = $1"
    " AND target_uuid LIKE '_____-tpzed-%' AND traverse_owned AND perm_level >= {level})"
)
_HELD = (
    "EXISTS (SELECT 1 FROM materialized_permissions p WHERE p.user_uuid IN {readers} AND ({match}))"
)
_HIDDEN_BY_OWNER = (
    "{t}.owner_uuid IN (SELECT group_uuid FROM trashed_groups"
    " WHERE trash_at <= clock_timestamp() AT TIME ZONE 'UTC')"
)
_HIDDEN_ITSELF = "coalesce({t}.trash_at <= clock_timestamp() AT TIME ZONE 'UTC', false)"
_IN_FROZEN = "{t}.owner_uuid IN (SELECT uuid FROM frozen_groups)"
_LOG = """EXISTS (SELECT 1 FROM materialized_permissions p
 LEFT JOIN container_requests cr ON cr.container_uuid = logs.object_uuid
 WHERE p.user_uuid = $1 AND p.perm_level >= 1 AND p.target_uuid IN
 (cr.uuid, cr.owner_uuid, logs.object_uuid, logs.owner_uuid, logs.object_owner_uuid))"""
_LEVELS = {"read": 1, "write": 2, "manage": 3, "unfreeze": 3}
_CAN = (
    "SELECT EXISTS (SELECT 1 FROM materialized_permissions WHERE user_uuid IN {readers}"
    " AND perm_level >= $3 AND (target_uuid = $2 OR (target_uuid = $4 AND traverse_owned)))"
)


def readable(
    table: Table, actor: Actor, config: ClusterConfig, *, include_trash: bool = False
) -> str:
    """SQL condition on the rows of `table` that the reader (parameter $1, his uuid) may see.

    Inactive users are among them: whoever GETs one must look at `is_active` as well.
    """
    name = table.name
    if name == "api_client_authorizations":
        sees_all = actor.token_uuid == config.root_token_uuid
        return "true" if sees_all else f"{name}.user_id = {actor.id}"
    if name == "users":
        seen = "true" if actor.is_admin else _held(name)
        return f"users.redirect_to_user_uuid IS NULL AND {seen}"
    if actor.is_admin:
        return f"NOT {_hidden(name, include_trash, admin=True)}"
    if name == "containers":
        requests = "container_requests"
        shown = f"{_held(requests)} AND NOT {_hidden(requests, False)}"
        return (
            f"EXISTS (SELECT 1 FROM container_requests"
            f" WHERE container_requests.container_uuid = containers.uuid AND {shown})"
        )
    if name == "logs":
        return _LOG
    if name == "links":
        return _links(actor)
    visible = f"NOT {_hidden(name, include_trash)}"
    if name == "groups":
        roles = "true" if config.role_groups_visible_to_all and actor.is_active else "false"
        role = f"(groups.group_class = 'role' AND {roles})"
        return f"({_held(name, owned=False)} OR {role}) AND {visible}"
    return f"{_held(name)} AND {visible}"


def _links(actor: Actor) -> str:
    manage = _held("links", column="head_uuid", level=3, owned=False)
    return (
        "CASE WHEN links.link_class = 'permission'"
        f" THEN links.tail_uuid = $1 OR links.head_uuid = $1 OR {manage}"
        f" ELSE {_held('links')} AND NOT {_hidden('links', False)} END"
    )


def _held(name: str, *, column: str = "uuid", level: int = 1, owned: bool = True) -> str:
    match = f"p.target_uuid = {name}.{column}"
    if owned:
        match += f" OR (p.target_uuid = {name}.owner_uuid AND p.traverse_owned)"
    if level > 1:
        match = f"p.perm_level >= {level} AND ({match})"
    return _HELD.format(readers=_READERS.format(level=level), match=match)


def _hidden(name: str, include_trash: bool, *, admin: bool = False) -> str:
    trashable = name in ("groups", "collections")
    if name in ("users", "containers", "logs", "api_client_authorizations"):
        return "false"
    conditions = [_HIDDEN_BY_OWNER] + ([_HIDDEN_ITSELF] if trashable else [])
    hidden = "(" + " OR ".join(c.format(t=name) for c in conditions) + ")"
    if not (trashable and include_trash):
        return hidden
    return "false" if admin else f"({hidden} AND {_IN_FROZEN.format(t=name)})"


def can(action: str) -> tuple[str, int]:
    """Query and level: does $1 have it on $2, or on its owner $4 with what that owns?"""
    level = _LEVELS[action]
    return _CAN.format(readers=_READERS.format(level=level)), level
