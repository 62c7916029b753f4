# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the permission rule must know about objects as they are in the database now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from arvados_nats.errors import BadInput
from arvados_nats.permissions import object_facts
from arvados_nats.permissions.object_facts import PERMISSION, ObjectFacts
from publishers.postgres import object_tables, places
from publishers.postgres.database import Database
from publishers.postgres.object_tables import Record


async def read(database: Database, uuids: Iterable[str]) -> list[ObjectFacts]:
    """Facts of the objects that exist, in no order: one query for each kind."""
    records = await object_tables.read(database, uuids)
    heads = await object_tables.read(database, set(heads_of(records.values())) - records.keys())
    known = {**records, **heads}
    found = [facts for record in records.values() if (facts := of_record(record, known))]
    return await places.placed(database, found)


def heads_of(records: Iterable[Record]) -> Iterable[str]:
    """Objects whose owner decides, too: heads of permission links."""
    for record in records:
        if record.get("link_class") == PERMISSION and record["head_uuid"]:
            yield record["head_uuid"]


def of_record(record: Record, records: Mapping[str, Record]) -> ObjectFacts | None:
    """Facts of a record; the head of a permission link is among `records`, or is gone."""
    requests = record.get("requests")
    head = record.get("head_uuid")
    head_owner = None
    if record.get("link_class") == PERMISSION and head:
        head_owner = (records[head]["owner_uuid"] or "") if head in records else ""
    try:
        return object_facts.facts_of(
            record,
            requests=None if requests is None else tuple((uuid, owner) for uuid, owner in requests),
            head_owner_uuid=head_owner,
        )
    except BadInput:
        return None
