# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Uuids in an object: its own, which only admins choose, and those that name other objects."""

from __future__ import annotations

from arvados_nats.contract.subjects import kind_of
from sandbox.model.records import Record
from sandbox.model.rules import Problems
from sandbox.model.writer import Writer

_UNCHECKED = frozenset(
    {"current_version_uuid", "container_uuid", "modified_by_client_uuid", "modified_by_user_uuid"}
)


def check_uuid(unit: Writer, record: Record, problems: Problems) -> None:
    """A uuid of the right kind, and only from an admin (lib/has_uuid.rb)."""
    if not record.changed("uuid") or record["uuid"] in (None, *unit.ours):
        return
    kind = kind_of(record["uuid"])
    if not unit.actor.is_admin:
        problems.add("uuid", f"{'assignment' if record.is_new else 'change'} not permitted")
    elif kind is None:
        problems.add("uuid", f"not a valid Arvados uuid '{record['uuid']}'")
    elif kind is not record.kind:
        problems.add("uuid", f"type field is '{kind.infix}', expected '{record.kind.infix}'")


async def check(unit: Writer, record: Record, problems: Problems) -> None:
    """Objects that are named must exist and be readable (ensure_valid_uuids)."""
    for column in record.table.columns:
        if column.endswith("_uuid") and column not in _UNCHECKED and record.changed(column):
            uuid = record[column]
            kind = kind_of(uuid)
            if kind is None or kind.name not in unit.tables or uuid == unit.config.system_user:
                continue
            if not await unit.may_refer_to(kind.name, uuid):
                problems.add(column, f"'{uuid}' not found")
