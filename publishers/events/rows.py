# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Rows of Arvados' logs table: how they are listed, counted and read.

The only SQL about that table. Times are passed as values, never from a sub-query, or PostgreSQL
scans the whole table (docs/facts/arvados.md 10). A row's properties are cut to what travels while
it is read: they hold two whole copies of the object, and a manifest can be 50 MB
(docs/facts/arvados.md 0.7). Rows up to 64 KiB are read many at a time, larger ones alone, and what
is over 8 MiB is cut by PostgreSQL itself: that costs it 2.7 s for 100 MB, and us no memory, where
reading the text would take 490 MB.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Container, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import msgspec

from arvados_nats.contract import events
from arvados_nats.contract.subjects import OTHER, kind_of
from arvados_nats.errors import BadInput, Unavailable
from publishers.events.seen_rows import SLICE_SECONDS
from publishers.postgres.database import Database, Row

logger = logging.getLogger(__name__)

T = TypeVar("T")
Version = tuple[str, int]
"""A row as it is written: its uuid, and the transaction that wrote it."""

_INLINE_BYTES = 64 * 1024
_WHOLE_BYTES = 8 * 1024 * 1024
_CUT_BYTES = 256 * 1024 * 1024
_CUT_TIMEOUT = 30.0
_TRUNCATED = {"truncated": True}
_ABOUT_BYTES = 16 * 1024 * 1024
_ABOUT_ROWS = 2000
_ABOUT_TIMEOUT = 3.0
ABOUT_MOST = 1_000_000
"""About so many PostgreSQL looks at until then."""
_TURN = 100
"""Rows or objects that are looked at in one turn of the loop: some milliseconds."""

_COLUMNS = f"""
    id, uuid, event_type, event_at, created_at, object_uuid, object_owner_uuid,
    octet_length(properties) AS size, logs.xmin AS xid,
    CASE WHEN octet_length(properties) <= {_INLINE_BYTES} THEN properties END AS properties
"""
_BY_ID = f"SELECT {_COLUMNS} FROM logs WHERE id = ANY($1::bigint[])"
_BY_UUID = f"SELECT {_COLUMNS} FROM logs WHERE uuid = ANY($1::varchar[])"
_ABOUT = """
    SELECT object_uuid, uuid, xid, created_at, every FROM (
        SELECT object_uuid, uuid, logs.xmin AS xid, created_at, count(*) OVER () AS every,
               sum(octet_length(properties)) OVER (ORDER BY created_at DESC, uuid) AS so_far
        FROM unnest($1::varchar[], $2::timestamp[]) AS wanted(named, since)
        JOIN logs ON logs.object_uuid = wanted.named AND logs.created_at >= wanted.since
    ) AS found
    WHERE coalesce(so_far, 0) <= $3 ORDER BY created_at DESC, uuid LIMIT $4
"""
_LIST = """
    SELECT created_at, uuid FROM logs
    WHERE (created_at, uuid) > ($1::timestamp, $2::varchar) AND created_at < $3::timestamp
      AND uuid IS NOT NULL
    ORDER BY created_at, uuid LIMIT $4
"""
_COUNT = f"""
    SELECT floor(date_part('epoch', created_at) / {SLICE_SECONDS})::bigint AS slice,
           count(uuid) AS rows
    FROM logs WHERE created_at >= $1::timestamp GROUP BY 1
"""
_NOW = "SELECT now() AT TIME ZONE 'UTC'"
_PROPERTIES = "SELECT properties FROM logs WHERE uuid = $1"
_CUT = """
    SELECT json_object_agg(side, kept)::text AS properties, bool_or(side = 'text') AS has_text
    FROM (
        SELECT part.key AS side,
               CASE WHEN part.key <> 'text' AND json_typeof(part.value) = 'object' THEN
                   (SELECT json_object_agg(attribute.key, attribute.value)
                    FROM json_each(part.value) AS attribute WHERE attribute.key = ANY($2))
               END AS kept
        FROM (SELECT properties::json AS whole FROM logs WHERE uuid = $1 OFFSET 0) AS row,
             json_each(row.whole) AS part
        WHERE part.key IN ('old_attributes', 'new_attributes', 'text')
    ) AS sides
"""


class LogRow(msgspec.Struct, frozen=True):
    """One row. `properties` are cut to what travels; None where they cannot be understood."""

    id: int
    uuid: str
    event_type: str | None
    event_at: datetime | None
    created_at: datetime
    object_uuid: str | None
    object_owner_uuid: str | None
    kind: str
    properties: dict[str, Any] | None
    xid: int = 0
    """The transaction that wrote the row."""

    @property
    def version(self) -> Version:
        """The row as it is written."""
        return self.uuid, self.xid


class About(NamedTuple):
    """The rows about some objects: which there are, and those that were read."""

    versions: Mapping[str, Sequence[Version]]
    read: Sequence[LogRow]
    covered: Mapping[str, datetime]
    """Since when all of an object's are there: in general since the moment that was asked for;
    later where they are too many."""
    every: int
    """How many PostgreSQL had to look at."""


async def now(database: Database) -> datetime:
    """PostgreSQL's clock, as created_at is written: UTC without a zone."""
    moment: datetime = await database.fetch_value(_NOW)
    return moment


async def list_rows(
    database: Database, after: tuple[datetime, str], before: datetime, limit: int
) -> list[tuple[datetime, str]]:
    """(created_at, uuid) of rows behind `after`, in that order; read from the index alone."""
    rows = await database.fetch(_LIST, *after, before, limit)
    return [(row[0], row[1]) for row in rows]


async def count_rows(database: Database, since: datetime) -> dict[int, int]:
    """How many rows each slice of time has, from the slice that begins at `since` on."""
    return {row[0]: row[1] for row in await database.fetch(_COUNT, since)}


async def read_by_id(database: Database, ids: Sequence[int]) -> list[LogRow]:
    """Rows in the order of their ids in the list; those that do not exist are left out."""
    found = {row[0]: row for row in await database.fetch(_BY_ID, ids)}
    return await _read(database, (found[i] for i in ids if i in found))


async def read_by_uuid(database: Database, uuids: Sequence[str]) -> list[LogRow]:
    """Rows in the order of the list; those that are gone are left out."""
    found = {row[1]: row for row in await database.fetch(_BY_UUID, uuids)}
    return await _read(database, (found[uuid] for uuid in uuids if uuid in found))


async def about(
    database: Database, since: Mapping[str, datetime], have: Container[Version]
) -> About:
    """Rows about objects; those that the caller has are named and not read."""
    limits = (_ABOUT_BYTES, _ABOUT_ROWS)
    try:
        named = await database.fetch(
            _ABOUT, [*since], [*since.values()], *limits, timeout=_ABOUT_TIMEOUT
        )
        new = [row[1] for row in named if (row[1], row[2]) not in have]
        rows = await database.fetch(_BY_UUID, new, timeout=_ABOUT_TIMEOUT) if new else ()
    except Unavailable as error:
        covered = await now(database)  # PostgreSQL is down: raise; it is there: do without
        logger.warning(
            "rows about some objects cannot be read; what they prove is not known",
            extra={"action": "log_rows.about", "objects": len(since), "error": str(error)},
        )
        return About({}, (), dict.fromkeys(since, covered), ABOUT_MOST)
    versions: defaultdict[str, list[Version]] = defaultdict(list)
    for object_uuid, uuid, xid, _, _ in named:
        versions[object_uuid].append((uuid, xid))
    every: int = named[0][4] if named else 0
    oldest = named[-1][3] if len(named) < every else datetime.min
    begins = {uuid: max(begin, oldest) for uuid, begin in since.items()}
    return About(versions, await _read(database, rows), begins, every)


async def _read(database: Database, rows: Iterable[Row]) -> list[LogRow]:
    return [await _row(database, row) async for row in in_turns(rows)]


async def in_turns(many: Iterable[T]) -> AsyncIterator[T]:
    """What else this process does, such as answers about grants, does not wait for thousands."""
    for number, one in enumerate(many, 1):
        yield one
        if number % _TURN == 0:
            await asyncio.sleep(0)


async def _row(database: Database, row: Row) -> LogRow:
    uuid, object_uuid, size = row[1], row[5], row[7]
    kind = kind_of(object_uuid)
    name = kind.name if kind else OTHER
    properties: dict[str, Any] | None
    try:
        if size is None or size <= _INLINE_BYTES:
            properties = events.kept_properties(row[9], name)
        else:
            properties = await _large(database, uuid, size, name)
    except BadInput as error:
        properties = None
        logger.info(
            "log row cannot be understood",
            extra={"action": "log_rows.undecodable", "uuid": uuid, "error": str(error)},
        )
    return LogRow(
        row[0], uuid, row[2], row[3], row[4], object_uuid, row[6], name, properties, row[8]
    )


async def _large(database: Database, uuid: str, size: int, kind: str) -> dict[str, Any]:
    """The properties of one large row; only a sign that there are any, where they are too large."""
    if size <= _WHOLE_BYTES:
        return events.kept_properties(await database.fetch_value(_PROPERTIES, uuid), kind)
    if size > _CUT_BYTES:
        return _TRUNCATED
    keep = list(events.KEPT_ATTRIBUTES.get(kind, events.COMMON_ATTRIBUTES))
    try:
        (cut,) = await database.fetch(_CUT, uuid, keep, timeout=_CUT_TIMEOUT)
    except Unavailable:
        await now(database)  # PostgreSQL is down: raise; it is there: the row alone is to blame
        logger.warning(
            "log row cannot be cut in time, and must not hold up the others",
            extra={"action": "log_rows.truncated", "uuid": uuid, "bytes": size},
        )
        return _TRUNCATED
    return _TRUNCATED if cut["has_text"] else events.kept_properties(cut["properties"], kind)
