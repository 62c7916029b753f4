# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Users: made, set up, activated, taken out again, merged (app/models/user.rb)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sandbox.model.derived import permission_graph as graph
from sandbox.model.derived import permission_table
from sandbox.model.derived.permission_graph import Change
from sandbox.model.kinds import groups
from sandbox.model.records import Record
from sandbox.model.refusal import denied, invalid, not_found, raised
from sandbox.model.rules import Problems, Rules
from sandbox.model.writer import Writer

_MEMBER = "link_class = 'permission' AND tail_uuid = $1 AND head_uuid = $2"
OWNED = (
    "groups", "collections", "container_requests", "containers", "links", "workflows",
    "credentials", "authorized_keys", "virtual_machines", "users", "logs",
)  # fmt: skip


class UserRules(Rules):
    """app/models/user.rb."""

    async def prepare(self, unit: Writer, record: Record) -> None:
        """Every user belongs to the system; the username comes from the email."""
        record["owner_uuid"] = unit.config.system_user
        record["is_active"] = bool(record["is_active"])
        record["is_admin"] = bool(record["is_admin"])
        record["identity_url"] = record["identity_url"] or None
        if record.is_new and record["email"]:
            record["username"] = await _username(unit, record)

    async def validate(self, unit: Writer, record: Record, problems: Problems) -> None:
        """Who is in All users cannot be made inactive directly."""
        username = record["username"]
        if username is not None and not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*", username):
            problems.add("username", "must begin with a letter and contain only alphanumerics")
        leaves = record.before("is_active") and not record["is_active"]
        if leaves and await unit.where("link", _MEMBER, record.uuid, unit.config.all_users):
            text = (
                "cannot be set to false directly, use the 'Deactivate' button on Workbench,"
                " or the 'unsetup' API call"
            )
            problems.add("is_active", text)

    async def permit_save(self, unit: Writer, record: Record) -> None:
        """Admins make users; users may change themselves, even inactive, but not their rights."""
        if record.is_new:
            if not unit.actor.is_admin:
                raise denied()
            return
        if not (unit.actor.is_admin or (unit.actor.uuid == record.uuid and unit.actor.is_active)):
            raise denied(f"Uuid  {record.uuid} is not writable by {unit.actor.uuid}")
        if not unit.actor.is_admin and record.changed("is_admin", "is_active", "uuid"):
            raise denied()

    async def permit_owner(self, unit: Writer, record: Record) -> None:
        """Needs write permission on the user."""
        if not record.is_new and not await unit.can("write", record.uuid, record["owner_uuid"]):
            raise denied(f"Uuid  {record.uuid} is not writable by {unit.actor.uuid}")

    async def before_write(self, unit: Writer, record: Record) -> None:
        """An inactive user is never an admin."""
        if not record.is_new and not record["is_active"] and record["is_admin"]:
            raise raised("RuntimeError", "Inactive users cannot be admins")

    async def after_write(self, unit: Writer, record: Record) -> None:
        """The graph, the system group's link, and the set-up that comes with activation."""
        if record.is_new:
            own = Change(record["owner_uuid"], record.uuid, graph.MANAGE, record.uuid)
            await permission_table.update(unit.connection, own)
            await _set_up_when_activated(unit, record)
            if record.uuid != unit.config.system_user and await unit.find(unit.config.system_group):
                with unit.acting_as(unit.system):
                    link = groups.manage_link(unit.config.system_group, record.uuid)
                    await unit.create("link", link)
        elif record.changed("is_active"):
            await _set_up_when_activated(unit, record)

    async def before_destroy(self, unit: Writer, record: Record) -> None:
        """Refused while they own anything, log rows included; their grants go."""
        for table in OWNED:
            owns = f"SELECT true FROM {table} WHERE owner_uuid = $1 AND uuid <> $1 LIMIT 1"
            if await unit.connection.fetchval(owns, record.uuid):
                text = f"Cannot delete record because dependent {table.replace('_', ' ')} exist"
                raise invalid(text)
        await clear_permissions(unit, record.uuid)

    async def after_destroy(self, unit: Writer, record: Record) -> None:
        """Nobody holds them any more."""
        await unit.connection.execute(
            "DELETE FROM materialized_permissions WHERE target_uuid = $1", record.uuid
        )


async def clear_permissions(unit: Writer, user: str) -> None:
    """All that the user holds, but themselves."""
    await unit.connection.execute(
        "DELETE FROM materialized_permissions WHERE user_uuid = $1 AND target_uuid <> $1", user
    )


async def _username(unit: Writer, record: Record) -> str | None:
    local, _, domain = str(record["email"]).partition("@")
    wanted = record["username"] or (local.partition("+")[0] if domain else "")
    base = re.sub(r"[^A-Za-z0-9]", "", re.sub(r"^[^A-Za-z]+", "", wanted))
    if not base:
        return None
    query = "SELECT username FROM users WHERE username ~ ('^' || $1 || '[0-9]*$')"
    taken = {row[0] for row in await unit.connection.fetch(query, base)}
    numbered = (f"{base}{n}" for n in range(2, len(taken) + 3))
    return base if base not in taken else next(name for name in numbered if name not in taken)


async def _set_up_when_activated(unit: Writer, record: Record) -> None:
    special = (unit.config.system_user, unit.config.anonymous_user)
    if record["is_active"] and record.uuid not in special:
        await set_up(unit, record)


async def set_up(unit: Writer, user: Record) -> list[Record]:
    """Into All users, and visible to all where the cluster says so; returns the links."""
    everybody = unit.config.all_users
    links = [await _link_once(unit, user.uuid, "can_write", everybody)]
    if unit.config.activated_users_are_visible_to_others:
        links.append(await _link_once(unit, everybody, "can_read", user.uuid))
    return links


async def _link_once(unit: Writer, tail: str, name: str, head: str) -> Record:
    found = await unit.where("link", f"{_MEMBER} AND name = $3", tail, head, name)
    if found:
        return found[0]
    given = {"link_class": "permission", "name": name, "tail_uuid": tail, "head_uuid": head}
    return await unit.create("link", given)


async def activate(unit: Writer, user: Record) -> Record:
    """Makes an invited user active; they may ask for it themselves."""
    if user["is_active"]:
        return user
    if not (unit.actor.is_admin or await is_invited(unit, user)):
        raise raised("ArgumentError", "Cannot activate without being invited.")
    with unit.acting_as(unit.system):
        return await unit.update(user, is_active=True)


async def is_invited(unit: Writer, user: Record) -> bool:
    """Active, or in All users."""
    if user["is_active"] or unit.config.new_users_are_active:
        return True
    query = "SELECT true FROM materialized_permissions WHERE user_uuid = $1 AND target_uuid = $2"
    return bool(await unit.connection.fetchval(query, user.uuid, unit.config.all_users))


async def unsetup(unit: Writer, user: Record) -> Record:
    """Takes their links, tokens and keys, and makes them inactive; each is logged."""
    if user.uuid == unit.config.system_user:
        raise raised("RuntimeError", "System root user cannot be deactivated")
    conditions: tuple[tuple[str, str, Any], ...] = (
        ("link", "tail_uuid = $1 AND link_class = 'permission'", user.uuid),
        ("link", "tail_uuid = $1 AND link_class = 'signature'", user.uuid),
        ("api_client_authorization", "user_id = $1", user["id"]),
        ("authorized_key", "$1 IN (owner_uuid, authorized_user_uuid)", user.uuid),
    )
    for kind, condition, value in conditions:
        for found in await unit.where(kind, f"{condition} ORDER BY id", value):
            await unit.destroy(found)
    return await unit.update(user, prefs={}, is_admin=False, is_active=False)


async def one(unit: Writer, uuid: str) -> Record:
    """The user, or 404."""
    user = await unit.find(uuid)
    if user is None or user.kind.name != "user":
        raise not_found()
    return user


def names(given: Mapping[str, Any]) -> str:
    """first_name and last_name as one."""
    return f"{given.get('first_name') or ''} {given.get('last_name') or ''}".strip()
