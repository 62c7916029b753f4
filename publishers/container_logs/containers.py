# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which containers have a log to publish, from Arvados' database.

A container's log is reached through a container request that shows it. After an automatic retry
no request points to the old container any more; then the row that the API server itself logged
when it moved the request says which one it was (docs/facts/arvados.md 5, "retry"). A user can post
log rows, but none that the system user owns.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

FINAL = ("Complete", "Cancelled")

_COLUMNS = """
    c.uuid, c.state, coalesce(c.gateway_address, '') <> '' AS has_gateway,
    c.started_at IS NOT NULL AS started, c.log, c.exit_code,
    CASE WHEN c.state IN ('Complete', 'Cancelled') THEN coalesce(c.finished_at, c.modified_at) END
      AS ended_at,
    (SELECT r.uuid FROM container_requests r WHERE r.container_uuid = c.uuid
      ORDER BY r.state = 'Committed' DESC, r.log_uuid IS NULL, r.created_at, r.uuid LIMIT 1
    ) AS request_uuid,
    CASE WHEN c.state IN ('Complete', 'Cancelled') THEN
      (SELECT max(s.file_size_total) FROM collections s WHERE s.portable_data_hash = c.log)
    END AS saved_bytes
"""

ALIVE = f"SELECT {_COLUMNS} FROM containers c WHERE c.state IN ('Locked', 'Running')"

_LATELY = """
       c.modified_at > (now() AT TIME ZONE 'UTC') - $1::interval
   AND c.state IN ('Complete', 'Cancelled')
   AND coalesce(c.finished_at, c.modified_at) > (now() AT TIME ZONE 'UTC') - $1::interval
"""

ENDED = f"SELECT {_COLUMNS} FROM containers c WHERE {_LATELY}"

BY_UUID = f"SELECT {_COLUMNS} FROM containers c WHERE c.uuid = ANY($1::text[])"

NAMED = f"""
SELECT {_COLUMNS} FROM containers c
 WHERE c.uuid = ANY($2::text[]) AND (c.state IN ('Locked', 'Running') OR {_LATELY})
"""

MOVED = """
SELECT l.object_uuid, l.properties FROM logs l
 WHERE l.created_at BETWEEN $2::timestamp - interval '2 min' AND $2::timestamp + interval '2 min'
   AND l.event_type = 'update'
   AND l.owner_uuid = left($1, 5) || '-tpzed-000000000000000'
   AND l.object_uuid LIKE '_____-xvhdp-_______________'
   AND strpos(l.properties, $1) > 0
 ORDER BY l.created_at
"""


class Database(Protocol):
    """What is needed of a connection to PostgreSQL, or of a pool of them."""

    async def fetch(self, query: str, *args: Any) -> Sequence[Any]: ...


@dataclass(frozen=True, slots=True)
class Container:
    """One container and how to reach its log.

    `log` is the portable data hash of the saved log, `saved_bytes` the size of all its files as far
    as the database knows it, `ended_at` is in UTC without a zone.
    """

    uuid: str
    state: str
    has_gateway: bool = False
    started: bool = True
    log: str | None = None
    exit_code: int | None = None
    ended_at: datetime | None = None
    request_uuid: str | None = None
    saved_bytes: int | None = None

    @property
    def final(self) -> bool:
        return self.state in FINAL

    @property
    def live(self) -> bool:
        """Whether its log is served by its gateway, not from Keep."""
        return self.state in ("Locked", "Running") and self.has_gateway


async def alive(database: Database) -> list[Container]:
    """All containers that are Locked or Running."""
    return [_container(row) for row in await database.fetch(ALIVE)]


async def ended(database: Database, window: timedelta) -> list[Container]:
    """Containers that have ended within `window`."""
    return [_container(row) for row in await database.fetch(ENDED, window)]


async def named(database: Database, uuids: Sequence[str], window: timedelta) -> list[Container]:
    """Those of these that are Locked or Running, or have ended within `window`."""
    return [_container(row) for row in await database.fetch(NAMED, window, list(uuids))]


async def by_uuid(database: Database, uuids: Sequence[str]) -> list[Container]:
    """These containers, in whatever state; those that do not exist are left out."""
    return [_container(row) for row in await database.fetch(BY_UUID, list(uuids))]


async def former_request(database: Database, container: Container) -> str | None:
    """The request that showed an ended container before it was given another one."""
    if container.ended_at is None:
        return None
    for row in await database.fetch(MOVED, container.uuid, container.ended_at):
        if _old_container(row["properties"]) == container.uuid:
            return str(row["object_uuid"])
    return None


def _old_container(properties: str) -> Any:
    try:
        return (json.loads(properties).get("old_attributes") or {}).get("container_uuid")
    except (ValueError, AttributeError):
        return None


def _container(row: Any) -> Container:
    return Container(**dict(row))
