# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Projects, filter groups and roles: their owners, trash, freezing, and who manages a role."""

from __future__ import annotations

from typing import Any

from sandbox.model.derived import permission_graph as graph
from sandbox.model.derived import permission_table, project_tree
from sandbox.model.derived.permission_graph import Change
from sandbox.model.kinds import trash
from sandbox.model.records import Record
from sandbox.model.refusal import denied, raised
from sandbox.model.rules import Problems, Rules
from sandbox.model.writer import Writer

_CLASSES = ("project", "role", "filter")
_FILTERS = "filters property must be an array of arrays, each with 3 elements"
_OPERATORS = (
    "=", "<", "<=", ">", ">=", "!=", "like", "ilike", "in", "not in", "is_a", "exists", "contains",
)  # fmt: skip


class GroupRules(Rules):
    """app/models/group.rb."""

    def __init__(self) -> None:
        self._managers: dict[str, str] = {}

    async def prepare(self, unit: Writer, record: Record) -> None:
        """Names, trash times, and the owner of roles."""
        trash.prepare(unit, record)
        if record["properties"] is None:
            record["properties"] = {}
        if not record["name"]:
            record["uuid"] = record["uuid"] or unit.new_uuid(record.table)
            record["name"] = record["uuid"]
        if record["frozen_by_uuid"] == "":
            record["frozen_by_uuid"] = None

    async def validate(self, unit: Writer, record: Record, problems: Problems) -> None:
        """Class, filters, times and freezing."""
        group_class = record["group_class"]
        if group_class not in _CLASSES:
            text = "value must be one of 'project', 'role' or 'filter', was"
            problems.add("group_class", f"{text} '{group_class or ''}'")
        elif record.before("group_class") not in (None, group_class):
            problems.add("group_class", "cannot be modified after record is created")
        if group_class == "filter":
            _check_filters(record["properties"], problems)
        if record["name"] in (".", "..") and group_class != "role":
            problems.add("name", "cannot be '.' or '..'")
        elif "/" in record["name"] and group_class != "role":
            problems.add("name", "cannot contain a '/' character")
        trash.validate(record, problems)
        if record.changed("frozen_by_uuid"):
            await _check_freezing(unit, record, problems)

    async def permit_save(self, unit: Writer, record: Record) -> None:
        """Active users; roles only where users may make them; nothing frozen."""
        await super().permit_save(unit, record)
        roles = unit.config.can_create_role_groups or unit.actor.is_admin
        if record.is_new and record["group_class"] == "role" and not roles:
            text = "this cluster does not allow users to create role groups"
            raise denied(f"#<ArvadosModel::PermissionDeniedError: {text}>")
        if record["frozen_by_uuid"] and record.before("frozen_by_uuid"):
            raise denied(f"Uuid {record.uuid} is frozen and cannot be modified")

    async def permit_owner(self, unit: Writer, record: Record) -> None:
        """A role belongs to the system; who made it becomes its manager by a link."""
        if record["group_class"] != "role":
            await super().permit_owner(unit, record)
        elif record.is_new:
            record["uuid"] = record["uuid"] or unit.new_uuid(record.table)
            self._managers[record.uuid] = record["owner_uuid"]
            record["owner_uuid"] = unit.config.system_user
        elif record["owner_uuid"] != unit.config.system_user:
            raise raised("RuntimeError", "Owner uuid for role must be system user")
        elif not await unit.can("manage", record.uuid, record["owner_uuid"]):
            text = "role group cannot be modified without can_manage permission"
            raise denied(f"#<ArvadosModel::PermissionDeniedError: {text}>")

    async def before_write(self, unit: Writer, record: Record) -> None:
        """Take the old owner's hold away while it still is the owner."""
        if not record.is_new and record.changed("owner_uuid"):
            old = record.before("owner_uuid")
            await forget_hold(unit, old, record.uuid)
            change = Change(old, record.uuid, graph.REVOKED, record.uuid)
            await permission_table.update(unit.connection, change)

    async def after_write(self, unit: Writer, record: Record) -> None:
        """The graph, the trash, the freezer, and a new role's manager."""
        moved = record.changed("owner_uuid")
        if moved:
            change = Change(record["owner_uuid"], record.uuid, graph.MANAGE, record.uuid)
            await permission_table.update(unit.connection, change)
        manager = self._managers.pop(record.uuid, None)
        if manager:
            with unit.acting_as(unit.system):
                await unit.create("link", manage_link(manager, record.uuid))
        if record.changed("trash_at") or moved:
            await project_tree.update_trash(unit, record)
        if record.changed("frozen_by_uuid") or moved:
            await project_tree.update_frozen(unit, record)

    async def before_destroy(self, unit: Writer, record: Record) -> None:
        """Links first, then what the tables know of the group."""

    async def after_destroy(self, unit: Writer, record: Record) -> None:
        """Nothing may remember it."""
        await project_tree.forget(unit, record.uuid)


async def forget_hold(unit: Writer, user: str, target: str) -> None:
    """The former owner's own row goes first."""
    query = "DELETE FROM materialized_permissions WHERE user_uuid = $1 AND target_uuid = $2"
    await unit.connection.execute(query, user, target)


def manage_link(tail: str, head: str) -> dict[str, Any]:
    """Attributes of a can_manage link."""
    return {"link_class": "permission", "name": "can_manage", "tail_uuid": tail, "head_uuid": head}


def _check_filters(properties: dict[str, Any], problems: Problems) -> None:
    if "filters" not in properties:
        text = "filters property missing, it must be an array of arrays, each with 3 elements"
        problems.add("properties", text)
        return
    filters = properties["filters"]
    if not isinstance(filters, list) or any(
        not isinstance(f, list) or len(f) != 3 for f in filters
    ):
        problems.add("properties", _FILTERS)
        return
    for attribute, operator, _ in filters:
        if "." not in attribute and attribute.lower() != "uuid":
            text = "filter attribute must be 'uuid' or contain a dot (e.g. groups.name)"
            problems.add("properties", text)
        elif str(operator).lower() not in _OPERATORS:
            text = f"filter operator is not valid (must be {','.join(_OPERATORS)})"
            problems.add("properties", text)


async def _check_freezing(unit: Writer, record: Record, problems: Problems) -> None:
    frozen_by = record["frozen_by_uuid"]
    if record["group_class"] != "project":
        problems.add("frozen_by_uuid", "cannot be modified on a non-project group")
    elif frozen_by and frozen_by != unit.actor.uuid:
        problems.add("frozen_by_uuid", "can only be set to the current user's UUID")
    elif not record.is_new and not await unit.can("manage", record.uuid, record["owner_uuid"]):
        raise denied()
    elif record["trash_at"] or record["delete_at"]:
        problems.add("frozen_by_uuid", "cannot be set on a trashed project")
