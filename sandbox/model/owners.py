# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""May the actor write where an object is, and where it shall be (ensure_owner_uuid_...)?"""

from __future__ import annotations

from arvados_nats.contract.subjects import kind_of
from sandbox.model.records import Record
from sandbox.model.refusal import denied, invalid
from sandbox.model.writer import Writer


async def permit(unit: Writer, record: Record) -> None:
    """A new or moved object needs both owners writable, a changed one itself; else 403."""
    owner = record["owner_uuid"]
    kind = kind_of(owner)
    if kind is None or kind.name not in ("user", "group"):
        raise denied("Owner uuid must be set to User or Group")
    if not record.changed("owner_uuid"):
        await _permit_object(unit, record)
        return
    for which, uuid in (("old", record.before("owner_uuid")), ("new", owner)):
        if uuid is not None:
            await _permit_owner(unit, which, uuid)
    await _check_chain(unit, record)


async def _permit_object(unit: Writer, record: Record) -> None:
    thawing = record.before("frozen_by_uuid") and not record.row.get("frozen_by_uuid")
    action = "unfreeze" if thawing else "write"
    if not await unit.can(action, record.uuid, record.before("owner_uuid")):
        raise denied(f"Uuid  {record.uuid} is not writable by {unit.actor.uuid}")


async def _permit_owner(unit: Writer, which: str, uuid: str) -> None:
    owner = await unit.find(uuid)
    if not await unit.can("write", uuid, owner["owner_uuid"] if owner else None):
        frozen = f"because {which} owner is frozen"
        closed = f"without write permission on {which} owner"
        said = frozen if await unit.is_frozen(uuid) else closed
        raise denied(f"Owner uuid cannot be set or changed {said}")
    if which == "new" and owner and owner.row.get("group_class", "project") != "project":
        raise denied("Owner uuid must be a project")


async def _check_chain(unit: Writer, record: Record) -> None:
    seen, owner = {record.row.get("uuid")}, record["owner_uuid"]
    while (kind := kind_of(owner)) and kind.name != "user":
        if owner in seen:
            raise invalid("Owner uuid would create an ownership cycle")
        seen.add(owner)
        found = await unit.find(owner)
        owner = found["owner_uuid"] if found else None
