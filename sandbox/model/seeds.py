# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What every cluster has from the start: root, the anonymous user, three roles, a project."""

from __future__ import annotations

from sandbox.model.writer import Writer


async def sow(unit: Writer) -> None:
    """Create the built-in objects, as database_seeds.rb does; nothing if they are there."""
    config = unit.config
    if await unit.find(config.system_user):
        return
    root = {"email": "root", "first_name": "root", "last_name": "", "is_active": True}
    await unit.create("user", {**root, "uuid": config.system_user, "is_admin": True})
    await _role(unit, config.system_group, "System group")
    await _link(unit, config.system_group, "can_manage", config.system_user)
    await _role(unit, config.all_users, "All users")
    await _role(unit, config.anonymous_group, "Anonymous users")
    await _link(unit, config.all_users, "can_read", config.anonymous_group)
    nobody = {"email": "anonymous", "first_name": "Anonymous", "last_name": ""}
    await unit.create("user", {**nobody, "uuid": config.anonymous_user})
    await _link(unit, config.anonymous_user, "can_read", config.anonymous_group)
    favorites = {"name": "Public favorites", "description": "Public favorites"}
    await unit.create(
        "group", {**favorites, "uuid": config.public_favorites, "group_class": "project"}
    )
    await _link(unit, config.anonymous_group, "can_read", config.public_favorites)
    empty = await unit.create("collection", {"name": "empty collection"})
    await _link(unit, config.anonymous_group, "can_read", empty.uuid)


async def _role(unit: Writer, uuid: str, name: str) -> None:
    given = {"uuid": uuid, "name": name, "description": name, "group_class": "role"}
    await unit.create("group", given)


async def _link(unit: Writer, tail: str, name: str, head: str) -> None:
    given = {"link_class": "permission", "name": name, "tail_uuid": tail, "head_uuid": head}
    await unit.create("link", given)
