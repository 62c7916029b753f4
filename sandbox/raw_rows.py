# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Rows of the logs table written by SQL alone: in bulk, out of order, or by somebody hostile.

The pretend cluster writes rows as Arvados does; this writes whatever a test or benchmark wants to
see survive. Each call is one transaction unless the connection is in one already.
"""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sandbox.model.database import Connection

CLUSTER = "zzzzz"
SYSTEM_USER = f"{CLUSTER}-tpzed-000000000000000"

_ALPHABET = string.ascii_lowercase + string.digits
_INSERT = """
    WITH new AS (
        INSERT INTO logs (id, uuid, owner_uuid, object_uuid, event_at, event_type, properties,
                          created_at, updated_at, modified_at, object_owner_uuid)
        SELECT coalesce(given.id, nextval('logs_id_seq')), given.uuid, given.owner_uuid,
               given.object_uuid, given.event_at, given.event_type, given.properties,
               given.created_at, given.created_at, given.created_at, given.object_owner_uuid
        FROM unnest($1::bigint[], $2::varchar[], $3::varchar[], $4::varchar[], $5::timestamp[],
                    $6::varchar[], $7::text[], $8::timestamp[], $9::varchar[])
             WITH ORDINALITY
             AS given(id, uuid, owner_uuid, object_uuid, event_at, event_type, properties,
                      created_at, object_owner_uuid, place)
        ORDER BY given.place
        RETURNING id
    )
    SELECT id, CASE WHEN $10 THEN pg_notify('logs', id::text) END FROM new
"""


def new_uuid(infix: str) -> str:
    """A new uuid of the kind, such as `zzzzz-4zz18-…`."""
    return f"{CLUSTER}-{infix}-" + "".join(secrets.choice(_ALPHABET) for _ in range(15))


def utc_now() -> datetime:
    """As the columns hold it: UTC without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row; `properties` is the text of the column."""

    uuid: str | None
    object_uuid: str | None = None
    event_type: str | None = "update"
    properties: str | None = None
    object_owner_uuid: str | None = SYSTEM_USER
    id: int | None = None
    created_at: datetime | None = None


def row(object_uuid: str | None = None, **fields: Any) -> RawRow:
    """A row about an object, with a uuid of its own."""
    return RawRow(uuid=new_uuid("57u5n"), object_uuid=object_uuid, **fields)


def change(old: dict[str, Any] | None, new: dict[str, Any] | None) -> str:
    """The properties that Arvados writes for a change from `old` to `new`."""
    return json.dumps(
        {
            "old_etag": "old" if old else None,
            "old_attributes": old,
            "new_etag": "new" if new else None,
            "new_attributes": new,
        }
    )


async def insert(
    connection: Connection, rows: Sequence[RawRow], *, notify: bool = True
) -> list[int]:
    """Insert rows, and NOTIFY their ids as Arvados does when the transaction commits; their ids."""
    now = utc_now()
    times = [one.created_at or now + timedelta(microseconds=i) for i, one in enumerate(rows)]
    inserted = await connection.fetch(
        _INSERT,
        [one.id for one in rows],
        [one.uuid for one in rows],
        [SYSTEM_USER for _ in rows],
        [one.object_uuid for one in rows],
        times,
        [one.event_type for one in rows],
        [one.properties for one in rows],
        times,
        [one.object_owner_uuid for one in rows],
        notify,
    )
    return [record[0] for record in inserted]
