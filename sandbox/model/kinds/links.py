# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Links; a permission link is an edge of the graph, and only one between the same two stays.

Redundant ones disappear without a log row (docs/facts/arvados.md 1, 9).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from arvados_nats.contract.subjects import kind_of
from sandbox.model.derived import permission_graph as graph
from sandbox.model.derived import permission_table
from sandbox.model.derived.permission_graph import Change
from sandbox.model.records import Record
from sandbox.model.refusal import denied, raised
from sandbox.model.rules import Problems, Rules
from sandbox.model.writer import Writer

_RANK = {"can_read": 0, "can_write": 1, "can_manage": 2}
_NAMES = "name IN ('can_read', 'can_write', 'can_manage')"
_SAME = f"link_class = 'permission' AND tail_uuid = $1 AND head_uuid = $2 AND {_NAMES}"
_SAME_LOGIN = (
    "link_class = 'permission' AND tail_uuid = $1 AND head_uuid = $2 AND name = 'can_login'"
    " AND properties @> $4"
)


class LinkRules(Rules):
    """app/models/link.rb."""

    async def prepare(self, unit: Writer, record: Record) -> None:
        """No properties is an empty object."""
        if record["properties"] is None:
            record["properties"] = {}

    async def validate(self, unit: Writer, record: Record, problems: Problems) -> None:
        """A permission has a known level, from a user or role, on something the actor manages."""
        if record["link_class"] == "name":
            problems.add("name", "Name links are obsolete")
        if record["link_class"] != "permission":
            return
        if record["name"] not in graph.LEVELS:
            levels = "'can_read', 'can_write', 'can_manage', 'can_login'"
            problems.add("name", f"is invalid permission, must be one of {levels}")
        elif await _tail_fits(unit, record, problems) and not unit.actor.is_admin:
            head = await unit.find(record["head_uuid"])
            if head is None:
                problems.add("head_uuid", "does not exist")
            elif head.row.get("current_version_uuid", head.uuid) != head.uuid:
                problems.add("head_uuid", "cannot point to a past version of a collection")

    async def permit_owner(self, unit: Writer, record: Record) -> None:
        """Permission links belong to the system; making one needs can_manage on the head."""
        if record["link_class"] != "permission":
            await super().permit_owner(unit, record)
            return
        head = await unit.find(record["head_uuid"])
        owner = head.row.get("owner_uuid") if head else None
        if not await unit.can("manage", record["head_uuid"], owner):
            raise denied()
        record["owner_uuid"] = unit.config.system_user

    async def before_write(self, unit: Writer, record: Record) -> None:
        """Only the level of a permission may change, and it is the highest of all alike."""
        permission = "permission" in (record["link_class"], record.before("link_class"))
        if not record.is_new and permission and unit.actor.uuid != unit.config.system_user:
            if record.changed("link_class", "tail_uuid", "head_uuid"):
                raise raised("RuntimeError", "Can only alter permission link level")
        if record["link_class"] == "permission" and record["name"] in _RANK:
            for other in await _others(unit, record):
                if _RANK[other["name"]] > _RANK[record["name"]]:
                    record["name"] = other["name"]

    async def after_write(self, unit: Writer, record: Record) -> None:
        """The graph; then the redundant links, silently."""
        if record["link_class"] != "permission":
            return
        if not record.is_new:
            await _delete_overlapping(unit, record)
        if record.is_new or record.changed("name"):
            await _update_graph(unit, record, graph.LEVELS[record["name"]])

    async def before_destroy(self, unit: Writer, record: Record) -> None:
        """Take the permission away while the row is still there."""
        if record["link_class"] == "permission":
            await _update_graph(unit, record, graph.REVOKED)

    async def after_destroy(self, unit: Writer, record: Record) -> None:
        """Its duplicates go with it, silently."""
        if record["link_class"] == "permission":
            await _delete_overlapping(unit, record)


async def _tail_fits(unit: Writer, record: Record, problems: Problems) -> bool:
    kind = kind_of(record["tail_uuid"])
    if kind and kind.name == "user":
        return True
    if kind is None or kind.name != "group":
        problems.add("tail_uuid", "must be a user or role")
        return False
    tail = await unit.find(record["tail_uuid"])
    if tail is None:
        problems.add("tail_uuid", "does not exist")
    elif tail["group_class"] != "role":
        text = f"must be a user or role, was group with group_class {tail['group_class']}"
        problems.add("tail_uuid", text)
    return tail is not None and tail["group_class"] == "role"


async def _update_graph(unit: Writer, record: Record, level: int) -> None:
    change = Change(record["tail_uuid"], record["head_uuid"], level, record.uuid)
    await permission_table.update(unit.connection, change)


async def _others(unit: Writer, record: Record) -> list[Record]:
    tail, head, uuid = record["tail_uuid"], record["head_uuid"], record.uuid
    if record["name"] in _RANK:
        condition = f"{_SAME} AND uuid <> $3"
        return await unit.where("link", condition, tail, head, uuid, lock=True)
    properties = record["properties"]
    if record["name"] == "can_login" and "username" in properties:
        login = {"username": properties["username"]}
        condition = f"{_SAME_LOGIN} AND uuid <> $3"
        return await unit.where("link", condition, tail, head, uuid, login, lock=True)
    return []


async def _delete_overlapping(unit: Writer, record: Record) -> None:
    redundant = await _others(unit, record)
    for link in redundant:
        await _update_graph(unit, link, graph.REVOKED)
    if redundant:
        await unit.connection.execute(
            "DELETE FROM links WHERE uuid = ANY($1::varchar[])", [link.uuid for link in redundant]
        )


async def create(unit: Writer, given: Mapping[str, Any]) -> Record:
    """POST of a link: one that is there already is raised, or returned as it is."""
    existing = await _existing(unit, given)
    if existing is None:
        return await unit.create("link", given)
    if _RANK.get(given["name"], -1) > _RANK.get(existing["name"], 9):
        allowed = {k: v for k, v in given.items() if k in ("name", "properties")}
        return await unit.update(existing, **allowed)
    return existing


async def _existing(unit: Writer, given: Mapping[str, Any]) -> Record | None:
    if given.get("link_class") != "permission" or given.get("name") not in _RANK:
        return None
    tail, head = given.get("tail_uuid"), given.get("head_uuid")
    found = await unit.where("link", _SAME, tail, head, lock=True)
    return found[0] if found else None
