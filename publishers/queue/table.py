# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Containers that wait or run, as Arvados' database has them now: the SQL of the queue publisher.

All of them are looked at by digests, which cost the database alone; the rows themselves are read
for those that differ. A digest covers every column that is published, so it finds what changes
without a log row or a new `modified_at`, such as a priority (docs/facts/arvados.md 0.1).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from arvados_nats.contract import queue_entries, serialized
from arvados_nats.contract.queue_entries import STATES, QueueEntry
from arvados_nats.contract.serialized import MAX_YAML_BYTES, timestamp
from arvados_nats.errors import BadInput
from publishers.postgres.database import Database, Row
from publishers.queue import metrics

logger = logging.getLogger(__name__)

_COLUMNS = (
    "uuid state priority locked_by_uuid lock_count auth_uuid scheduling_parameters"
    " runtime_constraints created_at started_at modified_at"
).split()
_LISTED = ", ".join(_COLUMNS)
_SERIALIZED = ("scheduling_parameters", "runtime_constraints")
_BOUNDED = ", ".join(
    f"left({name}, {MAX_YAML_BYTES + 1}) AS {name}" if name in _SERIALIZED else name
    for name in _COLUMNS
)
_STATES = ", ".join(f"'{state}'" for state in STATES)
_DIGEST = f"hashtextextended(ROW({_LISTED})::text, 0)"
_ALL = f"SELECT uuid, {_DIGEST} AS digest FROM containers WHERE state IN ({_STATES})"
_SOME = f"""
SELECT {_BOUNDED}, {_DIGEST} AS digest FROM containers
WHERE uuid = ANY($1::varchar[]) AND state IN ({_STATES})
ORDER BY modified_at, uuid
"""
_AT_ONCE = 2000


async def digests(database: Database) -> dict[str, int]:
    """All containers in the queue, each with what stands for its content."""
    return {row[0]: row[1] for row in await database.fetch(_ALL)}


async def read(database: Database, uuids: Iterable[str]) -> dict[str, tuple[int, bytes]]:
    """Digest and value of those that are in the queue, in the order of their last changes."""
    wanted = sorted(set(uuids))
    rows: list[Row] = []
    for at in range(0, len(wanted), _AT_ONCE):
        rows += await database.fetch(_SOME, wanted[at : at + _AT_ONCE])
    rows.sort(key=lambda row: (row["modified_at"], row["uuid"]))
    return {row["uuid"]: (row["digest"], queue_entries.encode(entry(dict(row)))) for row in rows}


def entry(row: Mapping[str, Any]) -> QueueEntry:
    """What a dispatcher sees of a row."""
    return QueueEntry(
        uuid=row["uuid"],
        state=row["state"],
        priority=str(row["priority"] or 0),
        locked_by_uuid=row["locked_by_uuid"],
        lock_count=row["lock_count"] or 0,
        auth_uuid=row["auth_uuid"],
        scheduling_parameters=_decoded(row["uuid"], row["scheduling_parameters"]),
        runtime_constraints=_decoded(row["uuid"], row["runtime_constraints"]),
        created_at=_time(row["created_at"]),
        started_at=_time(row["started_at"]),
        modified_at=_time(row["modified_at"]),
    )


def _time(moment: datetime | None) -> str | None:
    return timestamp(moment) if moment else None


def _decoded(uuid: str, text: str | None) -> Any:
    """A serialized column. What cannot be read is shown as it is, and as null what is too large: a
    user chooses it."""
    try:
        return serialized.mapping(text or "")
    except BadInput:
        metrics.UNREADABLE.inc()
        logger.warning(
            "column of a container cannot be read",
            extra={"action": "queue.unreadable", "container_uuid": uuid},
        )
        return text if text and len(text) <= MAX_YAML_BYTES else None
