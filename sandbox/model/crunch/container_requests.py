# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Container requests: checked, committed to a container, cancelled, deleted.

app/models/container_request.rb. Cancelling is priority 0; the container's own priority follows
without a row (docs/facts/arvados.md 5).
"""

from __future__ import annotations

from typing import Any

from sandbox.model import records
from sandbox.model.crunch import outputs, reuse, transitions
from sandbox.model.crunch.container_states import FINAL as CONTAINER_FINAL
from sandbox.model.crunch.container_states import NO_GPU, SCHEDULING
from sandbox.model.derived import container_priority
from sandbox.model.kinds import collections
from sandbox.model.records import Record
from sandbox.model.rules import Problems, Rules
from sandbox.model.writer import Writer

UNCOMMITTED, COMMITTED, FINAL = "Uncommitted", "Committed", "Final"
_FOLLOWS: dict[str | None, tuple[str, ...]] = {
    None: (UNCOMMITTED, COMMITTED),
    UNCOMMITTED: (COMMITTED,),
    COMMITTED: (FINAL,),
}
_ALWAYS = ("owner_uuid", "state", "name", "description", "properties")
_BEFORE_COMMIT = (
    "command", "container_count_max", "container_image", "cwd", "environment", "filters",
    "mounts", "output_path", "output_glob", "priority", "runtime_token", "runtime_constraints",
    "container_uuid", "use_existing", "scheduling_parameters", "secret_mounts", "output_name",
    "output_ttl", "output_storage_classes", "output_properties", "service", "published_ports",
)  # fmt: skip
_IN_STATE = {
    COMMITTED: (
        "priority", "container_count_max", "container_uuid", "cumulative_cost", "container_count",
    ),
    FINAL: ("priority", "cumulative_cost"),
}  # fmt: skip
_BY_ADMIN = {COMMITTED: ("log_uuid",), FINAL: ("output_uuid", "log_uuid")}
_CONSTRAINTS = {
    "API": False, "gpu": {}, "keep_cache_disk": 0, "keep_cache_ram": 0, "ram": 0, "vcpus": 0,
}  # fmt: skip


class ContainerRequestRules(Rules):
    """app/models/container_request.rb."""

    async def prepare(self, unit: Writer, record: Record) -> None:
        """Defaults, and every key of the constraints."""
        if record.is_new:
            _fill(unit, record)
        if isinstance(record["runtime_constraints"], dict):
            constraints = {**_CONSTRAINTS, **record["runtime_constraints"]}
            if isinstance(constraints["gpu"], dict):
                constraints["gpu"] = {**NO_GPU, **constraints["gpu"]}
            record["runtime_constraints"] = constraints
        record["scheduling_parameters"] = {**SCHEDULING, **(record["scheduling_parameters"] or {})}

    async def validate(self, unit: Writer, record: Record, problems: Problems) -> None:
        """What is needed, in which state it may change."""
        for column in ("command", "container_image", "output_path", "cwd"):
            if not record[column]:
                problems.add(column, "can't be blank")
        _check_priority(record["priority"], problems)
        if record["state"] == COMMITTED or record.is_new:
            _check_committed(record, problems)
        transitions.check_state(record, _FOLLOWS, problems)
        if not record.is_new:
            transitions.check_permitted(record, _permitted(unit, record), problems)
        if record["service"] and record["use_existing"]:
            problems.add("use_existing", "cannot be true if 'service' is true")
        if record.changed("container_uuid") and record["container_uuid"] is not None:
            if not unit.actor.is_admin:
                problems.add("container_uuid", "can only be updated to nil.")

    async def resolve(self, unit: Writer, record: Record) -> None:
        """Find or make the container when it is committed; keep the log of one that is left."""
        if record["state"] == FINAL:
            record["secret_mounts"], record["runtime_token"] = {}, None
        committed = record["state"] == COMMITTED and record.changed("state")
        if committed and record["container_uuid"] is None:
            if record["command"][0] == "arvados-cwl-runner":
                record["scheduling_parameters"]["supervisor"] = True
            container = await reuse.resolve(unit, record)
            record["container_uuid"] = container.uuid
        if record.changed("container_uuid"):
            record["container_count"] += 1
            await _keep_old_log(unit, record)

    async def before_write(self, unit: Writer, record: Record) -> None:
        """A request made by a running container is its child, with its requests' priority."""
        parent = record["requesting_container_uuid"] or unit.actor.container_uuid
        if record.is_new and parent:
            record["requesting_container_uuid"] = parent
            record["priority"] = await unit.connection.fetchval(
                "SELECT coalesce(max(priority), 0) FROM container_requests"
                " WHERE container_uuid = $1",
                parent,
            )

    async def after_write(self, unit: Writer, record: Record) -> None:
        """Container priorities; and Final at once if the container has already ended."""
        if record.changed("state", "priority", "container_uuid"):
            await _update_priorities(unit, record)
        if record["state"] == COMMITTED:
            await _finalize_if_needed(unit, record)

    async def before_destroy(self, unit: Writer, record: Record) -> None:
        """A live request is cancelled first."""
        if record["priority"] > 0 and record["state"] != FINAL:
            await unit.update(record, priority=0)


def _fill(unit: Writer, record: Record) -> None:
    defaults: dict[str, Any] = {
        "state": UNCOMMITTED, "secret_mounts": {}, "cwd": ".", "output_ttl": 0, "priority": 0,
        "container_count_max": unit.config.max_retry_attempts, "container_count": 0,
        "use_existing": not record["service"], "properties": {}, "output_properties": {},
        "output_storage_classes": ["default"], "published_ports": {}, "service": False,
        "cumulative_cost": 0.0,
    }  # fmt: skip
    for column, value in defaults.items():
        if column in record.table.columns and record[column] is None:
            record[column] = value


def _check_priority(priority: Any, problems: Problems) -> None:
    if priority is None:
        problems.add("priority", "is not a number")
    elif priority < 0:
        problems.add("priority", "must be greater than or equal to 0")
    elif priority > 1000:
        problems.add("priority", "must be less than or equal to 1000")


def _check_committed(record: Record, problems: Problems) -> None:
    if record["output_path"] and record["output_path"] not in record["mounts"]:
        problems.add("output_path", "must be a mount target")
    constraints = record["runtime_constraints"]
    if record["state"] == COMMITTED:
        for key in ("vcpus", "ram"):
            value = constraints[key]
            if not isinstance(value, int) or value <= 0:
                shown = f'"{value}"' if isinstance(value, str) else value
                problems.add("runtime_constraints", f"[{key}]={shown} must be a positive integer")
    extra = [key for key in constraints if key not in (*_CONSTRAINTS, "cuda")]
    if extra:
        problems.add("runtime_constraints", f"contains unexpected keys {extra}".replace("'", '"'))


def _permitted(unit: Writer, record: Record) -> set[str]:
    before, state = record.before("state"), record["state"]
    allowed = set(_ALWAYS)
    if before == UNCOMMITTED:
        allowed |= set(_BEFORE_COMMIT)
    if state == COMMITTED or before == COMMITTED:
        allowed |= set(_IN_STATE.get(state, ()))
        allowed |= set(_BY_ADMIN.get(state, ())) if unit.actor.is_admin else set()
    return allowed


async def _keep_old_log(unit: Writer, record: Record) -> None:
    old = await unit.find(record.before("container_uuid"))
    source = await outputs.by_hash(unit, old["log"]) if old else None
    if old is None or source is None:
        return
    target = await unit.find(record["log_uuid"]) or unit.new(
        "collection",
        {
            "owner_uuid": record["owner_uuid"],
            "name": f"Container log for request {record.uuid}",
            "storage_classes_desired": record["output_storage_classes"],
        },
    )
    text = collections.folder_of(old.uuid, target["manifest_text"] or "", source["manifest_text"])
    target["manifest_text"] = text
    target["portable_data_hash"] = collections.data_hash(text)
    await unit.save(target, unique_name=True)
    record["log_uuid"] = target.uuid


async def _update_priorities(unit: Writer, record: Record) -> None:
    for uuid in dict.fromkeys((record.before("container_uuid"), record["container_uuid"])):
        container = await unit.find(uuid)
        if container is not None and container["state"] not in CONTAINER_FINAL:
            await container_priority.update(unit.connection, container.uuid)


async def _finalize_if_needed(unit: Writer, record: Record) -> None:
    container = await unit.find(record["container_uuid"])
    if container is not None and container["state"] not in CONTAINER_FINAL:
        return
    with unit.acting_as(unit.system), unit.leaving_modified_by():
        counted = record.before("state") == COMMITTED
        record.was = records.copied(record.row)
        await outputs.finalize(unit, record, counted=counted)
