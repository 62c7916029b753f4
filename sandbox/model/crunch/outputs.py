# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a container leaves with its requests: log and output collections, and the Final state."""

from __future__ import annotations

from typing import Any

from sandbox.model.kinds import collections
from sandbox.model.records import Record
from sandbox.model.writer import Writer


def deep_sorted(value: Any) -> Any:
    """JSON with the keys of every object in order."""
    if isinstance(value, dict):
        return {key: deep_sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [deep_sorted(item) for item in value]
    return value


async def save_logs(unit: Writer, container: Record) -> None:
    """At a checkpoint: every committed request gets the log as it is so far."""
    committed = "container_uuid = $1 AND state = 'Committed' ORDER BY id"
    for request in await unit.where("container_request", committed, container.uuid):
        with unit.leaving_modified_by():
            await _update_collection(unit, request, container, "log")
            await unit.save(request)


async def finalize(unit: Writer, request: Record, *, counted: bool) -> None:
    """Make a request Final; `counted` adds the container's cost (not for a reused one)."""
    container = await unit.find(request["container_uuid"])
    if container is not None:
        await _add_cost(unit, request, container, counted=counted)
        for what in ("log", "output"):
            await _update_collection(unit, request, container, what)
        if container["state"] == "Complete":
            await _keep_container_log(unit, request, container)
    await unit.update(request, state="Final")


async def _add_cost(unit: Writer, request: Record, container: Record, *, counted: bool) -> None:
    if counted:
        request["cumulative_cost"] += container["cost"] + container["subrequests_cost"]
    parent = await unit.find(request["requesting_container_uuid"])
    if parent is not None and parent["state"] == "Running":
        parent["subrequests_cost"] += request["cumulative_cost"]
        await unit.save(parent)


async def by_hash(unit: Writer, data_hash: str | None) -> Record | None:
    """The first collection with this content."""
    condition = "portable_data_hash = $1 ORDER BY id LIMIT 1"
    found = await unit.where("collection", condition, data_hash) if data_hash else []
    return found[0] if found else None


async def _update_collection(unit: Writer, request: Record, container: Record, what: str) -> None:
    source = await by_hash(unit, container[what])
    if source is None or await _owner_is_shut(unit, request["owner_uuid"]):
        return
    target = await unit.find(request[f"{what}_uuid"]) or unit.new(
        "collection",
        {
            "owner_uuid": request["owner_uuid"],
            "name": _name(request, what),
            "storage_classes_desired": request["output_storage_classes"],
        },
    )
    text = source["manifest_text"]
    if what == "log":
        text = collections.with_logs_of(container.uuid, target["manifest_text"] or "", text)
    target["manifest_text"] = text
    target["portable_data_hash"] = collections.data_hash(text)
    target["properties"] = _properties(request, container, what)
    await unit.save(target, unique_name=True)
    request[f"{what}_uuid"] = target.uuid


async def _owner_is_shut(unit: Writer, owner: str) -> bool:
    return bool(
        await unit.connection.fetchval(
            "SELECT true FROM frozen_groups WHERE uuid = $1"
            " UNION ALL SELECT true FROM trashed_groups WHERE group_uuid = $1",
            owner,
        )
    )


def _name(request: Record, what: str) -> str:
    if what == "output" and request["output_name"]:
        return str(request["output_name"])
    return f"Container {what} for request {request.uuid}"


def _properties(request: Record, container: Record, what: str) -> dict[str, Any]:
    child = what == "output" and request["requesting_container_uuid"] is not None
    properties = {
        "container_request": request.uuid,
        "type": "intermediate" if child else what,
    }
    if what == "output":
        properties |= container["output_properties"] or {}
        properties |= request["output_properties"] or {}
    return properties


async def _keep_container_log(unit: Writer, request: Record, container: Record) -> None:
    source = await by_hash(unit, container["log"])
    if source is None:
        return
    given = {
        "owner_uuid": request["owner_uuid"],
        "name": f"Container log for container {container.uuid}",
        "properties": {
            "type": "log",
            "container_request": request.uuid,
            "container_uuid": container.uuid,
        },
        "manifest_text": source["manifest_text"],
        "storage_classes_desired": request["output_storage_classes"],
    }
    await unit.create("collection", given, unique_name=True)
