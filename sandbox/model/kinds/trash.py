# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Trash times of groups and collections: when they go to the trash, and when they go for good.

`trash_at` may lie in the future and then passes without any log row (docs/facts/arvados.md 1). The
sweep, `POST /sys/trash_sweep`, logs groups and deletions but not collections that expire.
"""

from __future__ import annotations

from datetime import timedelta

from sandbox.model import records
from sandbox.model.records import Record
from sandbox.model.refusal import raised
from sandbox.model.rules import Problems
from sandbox.model.writer import Writer


def lifetime(unit: Writer, record: Record) -> timedelta:
    """From trash_at to delete_at where the request does not say."""
    return timedelta(0) if _is_role(record) else unit.config.default_trash_lifetime


def shortest(unit: Writer, record: Record) -> timedelta:
    """The least time from trash_at to delete_at."""
    return timedelta(0) if _is_role(record) else unit.config.blob_signing_ttl


def _is_role(record: Record) -> bool:
    return record.row.get("group_class") == "role"


def prepare(unit: Writer, record: Record) -> None:
    """Make is_trashed, trash_at and delete_at agree before the object is checked."""
    time = records.now()
    if record.changed("trash_at") and record["trash_at"]:
        record["trash_at"] = max(time, record["trash_at"])
    if record["is_trashed"] is None:
        record["is_trashed"] = False
    if bool(record["is_trashed"]) != bool(record.before("is_trashed")) and not record.changed(
        "trash_at"
    ):
        record["trash_at"] = time if record["is_trashed"] else None
        if not record["is_trashed"]:
            record["delete_at"] = None
    record["is_trashed"] = bool(record["trash_at"] and record["trash_at"] <= time)
    if record.changed("trash_at") and not record.changed("delete_at"):
        trash_at = record["trash_at"]
        record["delete_at"] = trash_at + lifetime(unit, record) if trash_at else None
    elif record.changed("delete_at"):
        _not_too_early(unit, record)


def _not_too_early(unit: Writer, record: Record) -> None:
    trash_at, delete_at = record["trash_at"], record["delete_at"]
    if not trash_at or not delete_at or trash_at > delete_at:
        return
    start = min(t for t in (records.now(), record.before("trash_at")) if t)
    earliest = start + shortest(unit, record)
    limits = [t for t in (earliest, record.before("delete_at")) if t]
    record["delete_at"] = max(delete_at, min(limits))


def validate(record: Record, problems: Problems) -> None:
    """Say what is wrong with the times."""
    trash_at, delete_at = record["trash_at"], record["delete_at"]
    if _is_role(record) and delete_at and delete_at != trash_at:
        problems.add("delete_at", "must be == trash_at for role groups")
    elif (trash_at is None) != (delete_at is None):
        problems.add("delete_at", "must be set if trash_at is set, and must be nil otherwise")
    elif delete_at and delete_at < trash_at:
        problems.add("delete_at", "must not be earlier than trash_at")


async def trash(unit: Writer, record: Record) -> Record:
    """Put it in the trash now."""
    if not record["is_trashed"]:
        await unit.update(record, trash_at=records.now())
    return record


async def delete(unit: Writer, record: Record) -> Record:
    """DELETE of a trashable: the trash, and the earliest end that is allowed."""
    await trash(unit, record)
    earliest = record["trash_at"] + shortest(unit, record)
    if record["delete_at"] > earliest:
        await unit.update(record, delete_at=earliest)
    return record


async def untrash(unit: Writer, record: Record, *, unique_name: bool = False) -> Record:
    """Take it out of the trash again, until delete_at."""
    kind = "ArvadosModel::InvalidStateTransitionError"
    if not record["is_trashed"]:
        raise raised(kind, "Item is not trashed, cannot untrash")
    if records.now() >= record["delete_at"]:
        raise raised(kind, "delete_at time has already passed, cannot untrash")
    record["trash_at"] = None
    await unit.save(record, unique_name=unique_name)
    return record


async def sweep(unit: Writer) -> None:
    """What `POST /sys/trash_sweep` does as the system user."""
    past = "< clock_timestamp() AT TIME ZONE 'UTC'"
    with unit.acting_as(unit.system):
        for collection in await unit.where("collection", f"delete_at {past} ORDER BY modified_at"):
            await unit.destroy(collection)
        await unit.connection.execute(
            f"UPDATE collections SET is_trashed = true WHERE NOT is_trashed AND trash_at {past}"
        )
        for group in await unit.where(
            "group", f"NOT is_trashed AND trash_at {past} ORDER BY modified_at"
        ):
            await unit.save(group)
        for group in await unit.where("group", f"delete_at {past} ORDER BY modified_at"):
            await _delete_with_contents(unit, group.uuid)
    refreshed = " OR refreshes_at <= statement_timestamp() AT TIME ZONE 'UTC'"
    await unit.connection.execute(
        "DELETE FROM api_client_authorizations WHERE expires_at <= statement_timestamp()"
        f" AT TIME ZONE 'UTC'{refreshed if unit.config.has_refreshes_at else ''}"
    )


async def _delete_with_contents(unit: Writer, uuid: str) -> None:
    group = await unit.find(uuid)
    if group is None:
        return
    if group["group_class"] == "project":
        for inner in await unit.where("group", "owner_uuid = $1 ORDER BY modified_at", uuid):
            await _delete_with_contents(unit, inner.uuid)
        for kind in ("container_request", "collection", "link", "workflow"):
            for owned in await unit.where(kind, "owner_uuid = $1 ORDER BY modified_at", uuid):
                if await unit.find(owned.uuid):
                    await unit.destroy(owned)
    await unit.destroy(group)
