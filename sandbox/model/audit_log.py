# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Writes rows of table `logs` as an Arvados API server does, with NOTIFY in the same transaction.

A row holds the whole object before and after, without its secrets; `owner_uuid` is who acted
(docs/facts/arvados.md 3). The NOTIFY is not a trigger: rows that others insert are never told.
"""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any

from sandbox.model import records
from sandbox.model.actors import Actor
from sandbox.model.config import ClusterConfig
from sandbox.model.database import Connection
from sandbox.model.records import Record, Row

CHANNEL = "logs"
_INSERT = f"""
WITH written AS (
  INSERT INTO logs (uuid, owner_uuid, modified_by_user_uuid, object_uuid, event_at, event_type,
    summary, properties, created_at, updated_at, modified_at, object_owner_uuid)
  VALUES ($1, $2, $11, $3, $4, $5, $6, $7, $8, $9, $9, $10) RETURNING id)
SELECT pg_notify('{CHANNEL}', id::text) FROM written
"""


async def write(
    connection: Connection,
    config: ClusterConfig,
    actor: Actor,
    event_type: str,
    record: Record,
    owner_uuid: str | None,
    *,
    signed: bool = True,
) -> None:
    """Log one create, update or delete; `owner_uuid` is the object's owner as logged.

    `signed=False` leaves the row's own modified_by_user_uuid empty.
    """
    if not config.audit_logs:
        return
    created = records.now()
    await connection.execute(
        _INSERT,
        config.uuid("57u5n", records.random_name()),
        actor.uuid,
        record.uuid,
        _event_at(event_type, record),
        event_type,
        f"{event_type} of {record.uuid}",
        records.dump(_properties(event_type, record)),
        created,
        records.now(),
        owner_uuid,
        actor.uuid if signed else None,
    )


async def notify(connection: Connection, id: int) -> None:
    """Tell the channel of this row when the transaction commits."""
    await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, str(id))


def _event_at(event_type: str, record: Record) -> datetime:
    column = {"create": "created_at", "update": "modified_at"}.get(event_type, "")
    at: datetime | None = record.row.get(column)
    return at or records.now()


def _properties(event_type: str, record: Record) -> Row:
    old = record.was if event_type != "create" else None
    new = record.row if event_type != "delete" else None
    shown: Row = {
        "old_etag": records.etag(old) if old else None,
        "old_attributes": records.logged(old) if old else None,
        "new_etag": records.etag(new) if new else None,
        "new_attributes": records.logged(new) if new else None,
    }
    if event_type == "create":
        _add_nanoseconds(shown["new_attributes"], record)
    return shown


def _add_nanoseconds(attributes: dict[str, Any], record: Record) -> None:
    """A new object's created_at still has what PostgreSQL will cut off."""
    created = record.row.get("created_at")
    if created is not None and record.kind.name != "credential":
        attributes["created_at"] = records.stamp(created, secrets.randbelow(1000))
