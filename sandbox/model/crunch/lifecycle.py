# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A dispatcher and crunch-run in a few calls: the writes a container's run makes, in their order.

Commit makes the container (`container_requests`); here it is locked, started, reported on,
checkpointed, completed or cancelled (docs/facts/arvados.md 5, 10).
"""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.model.actors import Actor
from sandbox.model.crunch import containers
from sandbox.model.crunch.container_states import CANCELLED, COMPLETE, QUEUED, RUNNING
from sandbox.model.records import Record
from sandbox.model.refusal import not_found
from sandbox.model.writer import Writer


@dataclass(frozen=True, slots=True)
class End:
    """How a container ended; `output` and `log` are manifests."""

    exit_code: int
    output: str
    log: str
    cost: float


async def existing(unit: Writer, named: Record | Actor | str) -> Record:
    """The object as stored now, locked; 404 if there is none."""
    uuid = named if isinstance(named, str) else named.uuid
    record = await unit.find(uuid, lock=True)
    if record is None:
        raise not_found()
    return record


async def container_of(unit: Writer, named: Record | Actor | str) -> Record:
    """The container itself, or the one a request points to."""
    record = await existing(unit, named)
    if record.kind.name == "container_request":
        return await existing(unit, record["container_uuid"] or "")
    return record


async def start(unit: Writer, named: Record | Actor | str, gateway: str | None) -> Record:
    """Queued, Locked, Running."""
    container = await container_of(unit, named)
    if container["state"] == QUEUED:
        await containers.lock(unit, container)
    return await unit.update(container, state=RUNNING, gateway_address=gateway)


async def report(
    unit: Writer, named: Record | Actor | str, progress: float | None, status: dict[str, str]
) -> Record:
    """Progress and runtime status of a running container."""
    container = await container_of(unit, named)
    merged = {**(container["runtime_status"] or {}), **status}
    progress = container["progress"] if progress is None else progress
    return await unit.update(container, progress=progress, runtime_status=merged)


async def checkpoint(unit: Writer, named: Record | Actor | str, manifest: str) -> Record:
    """A log collection of the system's, named by the container and copied to its requests."""
    container = await container_of(unit, named)
    return await unit.update(container, log=await _saved(unit, "log", container, manifest))


async def complete(unit: Writer, named: Record | Actor | str, end: End) -> Record:
    """The container is Complete, its requests Final with output and log."""
    container = await container_of(unit, named)
    output = await _saved(unit, "output", container, end.output)
    log = await _saved(unit, "log", container, end.log)
    return await unit.update(
        container,
        state=COMPLETE,
        exit_code=end.exit_code,
        output=output,
        log=log,
        cost=end.cost,
    )


async def _saved(unit: Writer, what: str, container: Record, manifest: str) -> str:
    name = f"{what} for {container.uuid}"
    given = {"name": name, "manifest_text": manifest}
    made = await unit.create("collection", given, unique_name=True)
    return str(made["portable_data_hash"])


async def cancel(unit: Writer, named: Record | Actor | str, error: str | None) -> Record:
    """Cancelled by the dispatcher; requests with tries left get a new container."""
    container = await container_of(unit, named)
    status = {"runtime_status": {"error": error}} if error else {}
    return await unit.update(container, state=CANCELLED, **status)
