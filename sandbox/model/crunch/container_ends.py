# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the end of a container does: retries, Final requests, cancelled children.

app/models/container.rb, handle_completed; acts as the system user.
"""

from __future__ import annotations

from sandbox.model.crunch import outputs
from sandbox.model.crunch.container_states import CANCELLED, LOCKED, QUEUED
from sandbox.model.records import Record
from sandbox.model.writer import Writer

_RETRYABLE = """
container_uuid = $1 AND priority > 0 AND state = 'Committed'
AND container_count < container_count_max
AND owner_uuid NOT IN (SELECT group_uuid FROM trashed_groups)
AND (requesting_container_uuid IS NULL OR requesting_container_uuid IN
    (SELECT uuid FROM containers WHERE state = 'Running' AND priority > 0))
ORDER BY uuid
"""
_COPIED = (
    "command", "cwd", "environment", "output_path", "output_glob", "container_image", "mounts",
    "runtime_constraints", "runtime_user_uuid", "runtime_auth_scopes", "scheduling_parameters",
)  # fmt: skip


async def end(unit: Writer, container: Record) -> None:
    """After the last row of a container was written and logged."""
    if container["state"] == CANCELLED:
        await _retry(unit, container)
    committed = "container_uuid = $1 AND state = 'Committed' ORDER BY id"
    for request in await unit.where("container_request", committed, container.uuid):
        with unit.leaving_modified_by():
            await outputs.finalize(unit, request, counted=True)
    await _end_children(unit, container.uuid)


async def _retry(unit: Writer, container: Record) -> None:
    requests = await unit.where("container_request", _RETRYABLE, container.uuid)
    if not requests:
        return
    copied = (column for column in _COPIED if column in container.table.columns)
    given = {column: container[column] for column in copied}
    given["secret_mounts"] = container.before("secret_mounts")
    given["runtime_token"] = container.before("runtime_token")
    again = await unit.create("container", given)
    for request in requests:
        with unit.leaving_modified_by():
            request["cumulative_cost"] += container["cost"] + container["subrequests_cost"]
            request["container_uuid"] = again.uuid
            await unit.save(request)


async def _end_children(unit: Writer, uuid: str) -> None:
    waiting = "requesting_container_uuid = $1 AND state = 'Committed' ORDER BY id"
    for child in await unit.where("container_request", waiting, uuid):
        with unit.leaving_modified_by():
            if child["priority"] > 0:
                await unit.update(child, priority=0)
            state = await unit.connection.fetchval(
                "SELECT state FROM containers WHERE uuid = $1", child["container_uuid"]
            )
            if state in (QUEUED, LOCKED):
                await unit.update(child, state="Final")
