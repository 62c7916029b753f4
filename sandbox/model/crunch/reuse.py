# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Finds a container that does the same work already, or makes one (Container.resolve)."""

from __future__ import annotations

from typing import Any

from sandbox.model import records
from sandbox.model.crunch import outputs
from sandbox.model.records import Record
from sandbox.model.refusal import raised
from sandbox.model.writer import Writer

_SMALLEST_CACHE = 2 << 30
_LARGEST_CACHE = 32 << 30
_SAME = (
    "md5(command) = md5($1) AND cwd = $2 AND output_path = $3 AND container_image = $4"
    " AND state <> 'Cancelled' ORDER BY id"
)
_CACHES = ("keep_cache_disk", "keep_cache_ram", "gpu")


async def resolve(unit: Writer, request: Record) -> Record:
    """The container of a request that is being committed."""
    given = {
        column: request[column]
        for column in (
            "command", "cwd", "environment", "output_path", "output_glob", "mounts",
            "scheduling_parameters", "secret_mounts", "runtime_token", "output_storage_classes",
            "service", "published_ports",
        )
        if column in unit.tables["container"].columns
    }  # fmt: skip
    given["container_image"] = await _image(unit, request["container_image"])
    given["mounts"] = await _mounts(unit, request["mounts"])
    given["runtime_constraints"] = constraints(request["runtime_constraints"])
    given["runtime_user_uuid"] = request["modified_by_user_uuid"] or unit.actor.uuid
    given["runtime_auth_scopes"] = ["all"]
    reused = await _reusable(unit, given) if request["use_existing"] else None
    if reused is not None:
        return reused
    with unit.acting_as(unit.system):
        return await unit.create("container", given)


async def _image(unit: Writer, image: str) -> str:
    image_hash = image.partition("@")[0]
    for found in await unit.where("collection", "portable_data_hash = $1", image_hash):
        if await unit.readable("collection", found.uuid):
            return image_hash
    text = f'docker image "{image}" not found'
    raise raised("ArvadosModel::UnresolvableContainerError", text)


async def _mounts(unit: Writer, mounts: dict[str, Any]) -> dict[str, Any]:
    resolved = {}
    for path, mount in mounts.items():
        resolved[path] = dict(mount)
        uuid = resolved[path].pop("uuid", None) if mount.get("kind") == "collection" else None
        if uuid and not mount.get("portable_data_hash"):
            found = await unit.find(uuid)
            if found is None or not await unit.readable("collection", uuid):
                text = f'cannot mount collection "{uuid}": not found'
                raise raised("ArvadosModel::UnresolvableContainerError", text)
            resolved[path]["portable_data_hash"] = found["portable_data_hash"]
    return resolved


def constraints(wanted: dict[str, Any]) -> dict[str, Any]:
    """A container's constraints from its request's: the caches get their sizes."""
    found = {key: value[0] if isinstance(value, list) else value for key, value in wanted.items()}
    if found.get("keep_cache_disk") == 0 and found.get("keep_cache_ram") == 0:
        found["keep_cache_disk"] = min(max(found["ram"], _SMALLEST_CACHE), _LARGEST_CACHE)
    sorted_constraints: dict[str, Any] = outputs.deep_sorted(found)
    return sorted_constraints


async def _reusable(unit: Writer, given: dict[str, Any]) -> Record | None:
    candidates = await unit.where(
        "container",
        _SAME,
        records.dump(given["command"]),
        given["cwd"],
        given["output_path"],
        given["container_image"],
    )
    same = [c for c in candidates if _alike(c, given)]
    for container in same:
        if await _complete_and_readable(unit, container):
            return container
    running = [c for c in same if c["state"] == "Running" and c["priority"] > 0]
    running = [c for c in running if "error" not in (c["runtime_status"] or {})]
    if running:
        return max(running, key=lambda c: c["progress"] or 0.0)
    waiting = [c for c in same if c["state"] in ("Locked", "Queued")]
    return min(waiting, key=lambda c: (c["state"], -c["priority"], c["id"]), default=None)


def _alike(container: Record, given: dict[str, Any]) -> bool:
    mine, wanted = container["runtime_constraints"], given["runtime_constraints"]
    return (
        container["environment"] == given["environment"]
        and container["mounts"] == given["mounts"]
        and container["output_glob"] == given.get("output_glob")
        and (container["secret_mounts"] or {}) == (given["secret_mounts"] or {})
        and {k: v for k, v in mine.items() if k not in _CACHES}
        == {k: v for k, v in wanted.items() if k not in _CACHES}
    )


async def _complete_and_readable(unit: Writer, container: Record) -> bool:
    if container["state"] != "Complete" or container["exit_code"] != 0:
        return False
    for column in ("log", "output"):
        condition = "portable_data_hash = $1"
        found = await unit.where("collection", condition, container[column])
        if not [c for c in found if await unit.readable("collection", c.uuid)]:
            return False
    return True
