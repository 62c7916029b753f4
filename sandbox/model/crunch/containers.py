# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Containers: locked, run, finished by a dispatcher, and what their end does to requests.

app/models/container.rb; the order of the log rows is docs/facts/arvados.md 10.
"""

from __future__ import annotations

import hashlib
from typing import Any

from sandbox.model import records
from sandbox.model.crunch import container_ends, outputs, transitions
from sandbox.model.crunch.container_states import (
    CANCELLED,
    COMPLETE,
    FINAL,
    LOCKED,
    QUEUED,
    RUNNING,
)
from sandbox.model.derived import container_priority
from sandbox.model.records import Record
from sandbox.model.refusal import denied, raised
from sandbox.model.rules import Problems, Rules
from sandbox.model.writer import Writer

_FOLLOWS: dict[str | None, tuple[str, ...]] = {
    None: (QUEUED,),
    QUEUED: (LOCKED, CANCELLED),
    LOCKED: (QUEUED, RUNNING, CANCELLED),
    RUNNING: (COMPLETE, CANCELLED),
    COMPLETE: (CANCELLED,),
}
_PROGRESS = (
    "progress", "runtime_status", "subrequests_cost", "cost", "log", "output",
    "output_properties", "exit_code",
)  # fmt: skip
_PERMITTED: dict[tuple[str | None, str], tuple[str, ...]] = {
    (RUNNING, COMPLETE): ("finished_at", *_PROGRESS),
    (RUNNING, CANCELLED): ("finished_at", *_PROGRESS),
    (QUEUED, CANCELLED): ("finished_at", "log", "runtime_status", "cost"),
    (LOCKED, CANCELLED): ("finished_at", "log", "runtime_status", "cost"),
}
_SORTED = ("environment", "mounts", "runtime_constraints", "scheduling_parameters")
_TEXTS = ("error", "errorDetail", "warning", "warningDetail", "activity", "preemptionNotice")


class ContainerRules(Rules):
    """app/models/container.rb."""

    async def prepare(self, unit: Writer, record: Record) -> None:
        """Defaults, times of the change, and the count of locks."""
        if record.is_new:
            _fill(record)
        state, before = record["state"], record.before("state")
        if state == RUNNING != before:
            record["started_at"] = record["started_at"] or records.now()
        if state in FINAL and before != state:
            record["finished_at"] = record["finished_at"] or records.now()
        if (before, state) == (QUEUED, LOCKED):
            if record["priority"] <= 0:
                raise raised("ArvadosModel::LockFailedError", "cannot lock when priority<=0")
            record["lock_count"] += 1
        if (before, state) == (LOCKED, QUEUED):
            _count_attempts(unit, record)

    async def validate(self, unit: Writer, record: Record, problems: Problems) -> None:
        """States, who may change what, the lock, and the output."""
        status = record["runtime_status"] or {}
        for key in _TEXTS:
            if key in status and not isinstance(status[key], str):
                problems.add("runtime_status", f"'{key}' value must be a string")
        transitions.check_state(record, _FOLLOWS, problems)
        if not record.is_new:
            transitions.check_permitted(record, _permitted(unit, record), problems)
        _check_lock(unit, record, problems)
        if record["output"] and record.changed("output"):
            await _check_output(unit, record, problems)

    async def permit_save(self, unit: Writer, record: Record) -> None:
        """Only admins make containers; who may change one was asked before."""
        if record.is_new and not unit.actor.is_admin:
            raise denied()

    async def permit_owner(self, unit: Writer, record: Record) -> None:
        """All containers belong to the system."""

    async def resolve(self, unit: Writer, record: Record) -> None:
        """A token for the container while it is locked or running."""
        if record["state"] not in (LOCKED, RUNNING):
            token = await unit.find(record["auth_uuid"])
            if token:
                await unit.update(token, expires_at=records.now())
            record["auth_uuid"] = None
        elif record["auth_uuid"] is None and record["runtime_token"] is None:
            user = await unit.find(record["runtime_user_uuid"])
            given = {"user_id": user["id"] if user else unit.actor.id}
            scopes = record["runtime_auth_scopes"] or ["all"]
            token = await unit.create("api_client_authorization", {**given, "scopes": scopes})
            record["auth_uuid"] = token.uuid

    async def before_write(self, unit: Writer, record: Record) -> None:
        """Sorted JSON, and no secrets in the end."""
        for column in _SORTED:
            record[column] = outputs.deep_sorted(record[column])
        if record.changed("secret_mounts"):
            text = records.dump(outputs.deep_sorted(record["secret_mounts"] or {}))
            digest = hashlib.md5(text.encode(), usedforsecurity=False)
            record["secret_mounts_md5"] = digest.hexdigest()
        if record["state"] in FINAL and record.changed("state"):
            record["secret_mounts"], record["runtime_token"] = {}, None
        if (record.before("state"), record["state"]) == (LOCKED, QUEUED):
            record["runtime_status"] = {}

    async def after_write(self, unit: Writer, record: Record) -> None:
        """Requests get the log at a checkpoint; at the end they are retried or made Final."""
        if record["state"] not in FINAL:
            if record.changed("log") and not record.is_new:
                await outputs.save_logs(unit, record)
        elif record.changed("state"):
            with unit.acting_as(unit.system):
                await container_ends.end(unit, record)


def _fill(record: Record) -> None:
    defaults: dict[str, Any] = {
        "state": QUEUED, "cwd": ".", "priority": 0, "lock_count": 0, "secret_mounts": {},
        "runtime_status": {}, "runtime_auth_scopes": [], "output_storage_classes": ["default"],
        "output_properties": {}, "cost": 0.0, "subrequests_cost": 0.0, "service": False,
        "published_ports": {}, "interactive_session_started": False,
    }  # fmt: skip
    for column, value in defaults.items():
        if column in record.table.columns and record[column] is None:
            record[column] = value


def _count_attempts(unit: Writer, record: Record) -> None:
    if record["locked_by_uuid"] != unit.actor.token_uuid:
        raise denied("#<ArvadosModel::PermissionDeniedError: locked by a different token>")
    if record["lock_count"] >= unit.config.max_dispatch_attempts:
        text = (
            "Failed to start container.  Cancelled after exceeding"
            f" 'Containers.MaxDispatchAttempts' (lock_count={record['lock_count']})"
        )
        record["state"], record["runtime_status"] = CANCELLED, {"error": text}
        record["finished_at"] = records.now()


def _permitted(unit: Writer, record: Record) -> set[str]:
    before, state = record.before("state"), record["state"]
    allowed = {"state", *_PERMITTED.get((before, state), ())}
    if state == LOCKED:
        allowed |= {"priority", "runtime_status", "log", "lock_count"}
    elif state == QUEUED:
        allowed |= {"priority"}
    elif state == RUNNING:
        allowed |= {"priority", "gateway_address", "interactive_session_started", *_PROGRESS}
        allowed |= {"started_at"} if before != RUNNING else set()
    if before == RUNNING and unit.actor.token_uuid == record["auth_uuid"]:
        return (allowed | {"finished_at"}) - {"log", "priority"}
    if not unit.actor.is_admin:
        raise denied()
    if record["locked_by_uuid"] and record["locked_by_uuid"] != unit.actor.token_uuid:
        allowed -= set(_PROGRESS)
    return allowed


def _check_lock(unit: Writer, record: Record, problems: Problems) -> None:
    needed = None
    if record["state"] in (LOCKED, RUNNING):
        needed = record.before("locked_by_uuid") or unit.actor.token_uuid
    if record.changed("locked_by_uuid") and record["locked_by_uuid"] != needed:
        problems.add("locked_by_uuid", f"can only change to {needed}")
    else:
        record["locked_by_uuid"] = needed


async def _check_output(unit: Writer, record: Record, problems: Problems) -> None:
    found = await unit.where("collection", "portable_data_hash = $1", record["output"])
    for collection in found:
        if await unit.readable("collection", collection.uuid, include_trash=True):
            return
    problems.add("output", "collection must exist and be readable by current user.")


async def lock(unit: Writer, container: Record) -> Record:
    """POST .../lock by a dispatcher."""
    await _permit_dispatch(unit)
    if container["state"] != QUEUED:
        text = f"cannot lock when {container['state']}"
        raise raised("ArvadosModel::LockFailedError", text)
    return await unit.update(container, state=LOCKED)


async def unlock(unit: Writer, container: Record) -> Record:
    """POST .../unlock by the dispatcher that holds it."""
    await _permit_dispatch(unit)
    if container["state"] != LOCKED:
        text = f"cannot unlock when {container['state']}"
        raise raised("ArvadosModel::InvalidStateTransitionError", text)
    return await unit.update(container, state=QUEUED)


async def _permit_dispatch(unit: Writer) -> None:
    if not unit.actor.is_admin:
        raise denied()


async def update_priority(unit: Writer, container: Record) -> Record:
    """POST .../update_priority: compute it anew, without a row."""
    await _permit_dispatch(unit)
    await container_priority.update(unit.connection, container.uuid)
    again = await unit.find(container.uuid)
    return again or container
