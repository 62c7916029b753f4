# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""From a log row to an event: what the database says about the object, not what the row claims.

Any user can post log rows (docs/facts/arvados.md 0.3). A row gets its audience and facts from the
object's own record; only for an object that is gone does the row's object_owner_uuid count, and
then the facts are the owner's: arvados-ws shows a `delete` to those who may read the owner
(services/ws/permission.go). Whether the row is Arvados' own word says the `verifier`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from arvados_nats.contract.events import Event
from arvados_nats.contract.serialized import timestamp
from arvados_nats.contract.subjects import KIND_OF_NAME, is_uuid
from publishers.events import former
from publishers.events.former import Former, Gone, SeenBy
from publishers.events.looks import Looks
from publishers.events.rows import LogRow
from publishers.events.verifier import Verified, Verifier
from publishers.postgres import object_tables, places, present_facts
from publishers.postgres.database import Database
from publishers.postgres.object_tables import Record

_DELETE = "delete"
_NOTHING: Gone = {}

Records = dict[str, Record]


class Term:
    """What one term of leading knows of rows that it has published."""

    def __init__(self, database: Database) -> None:
        looks = Looks(database)
        self.verifier = Verifier(looks)
        self.former = Former(database, looks, self.verifier)


async def events_of(database: Database, rows: Sequence[LogRow], term: Term) -> list[Event]:
    """Events in the order of the rows."""
    named = {row.object_uuid for row in rows if row.object_uuid}
    records = await object_tables.read(database, named)
    related = set(_related(rows, records))
    if more := related - set(records):
        records |= await object_tables.read(database, more)
    verified = await term.verifier.verify(rows, records)
    gone = await term.former.gone(rows, verified, related - set(records))
    records |= _with_former_requests(rows, records, verified)
    events = [_event(row, records, verified.get(row.uuid), gone) for row in rows]
    seen_by = await term.former.seen_by(rows)
    events = [_seen(event, *seen_by) for event in events]
    return await _placed(database, events, gone)


async def _placed(database: Database, events: list[Event], gone: Gone) -> list[Event]:
    """The same with where each object is, or was."""
    wanted = [{*_owners(event)} for event in events]
    tops = (last.owner for last in gone.values())
    found = {**await places.read(database, set().union(tops, *wanted))}
    found |= {uuid: former.place(uuid, gone, found) for uuid in gone if uuid in found}
    return [
        msgspec.structs.replace(
            event,
            facts=event.facts
            | {"places": [found[uuid] for uuid in sorted(owners) if uuid in found]}
            | await _hidden(database, event),
        )
        for event, owners in zip(events, wanted, strict=True)
    ]


async def _hidden(database: Database, event: Event) -> dict[str, Any]:
    """Of a project that was put into the trash: what was shared of it by itself."""
    if not event.verified or event.facts.get("kind") != "group":
        return {}
    was, now = (event.properties.get(f"{age}_attributes") or {} for age in ("old", "new"))
    if was.get("is_trashed") is not False or now.get("is_trashed") is not True:
        return {}
    return {"hides": await places.hidden(database, event.object_uuid or "")}


def _owners(event: Event) -> Iterator[str]:
    yield from (owner for owner, _ in event.audience)
    for name in ("owner_uuid", "head_owner_uuid", "collection_owner_uuid"):
        yield event.facts.get(name) or ""
    old = event.properties.get("old_attributes")
    if isinstance(old, dict) and isinstance(left := old.get("owner_uuid"), str) and is_uuid(left):
        yield left  # those who could see it there may be told that it is gone


def _seen(event: Event, now: SeenBy, before: SeenBy) -> Event:
    """A user's event with from where they are seen; of one who is hidden also from where they were,
    which opens nothing any more."""
    facts, uuid = event.facts, event.object_uuid or ""
    if facts.get("kind") != "user" or facts.get("uuid") != uuid:
        return event
    hidden = facts.get("is_merged") or not facts.get("is_active")
    tails = {*now.get(uuid, ()), *(before.get(uuid, ()) if hidden else ())}
    return msgspec.structs.replace(event, facts=facts | {"seen_by": sorted(tails)})


def _with_former_requests(
    rows: Iterable[LogRow], records: Records, verified: Mapping[str, Verified]
) -> Records:
    """Containers as they were shown until a request took another one, in rows read together.

    The row that tells of the cancellation of an attempt is written in the transaction that begins
    the next; whoever sees the request should see how its attempt ended.
    """
    found: Records = {}
    for row in rows:
        request = records.get(row.object_uuid or "")
        verdict, said = verified.get(row.uuid, (None, {}))
        if request is None or row.kind != "container_request" or not verdict:
            continue
        former = str((said.get("old_attributes") or {}).get("container_uuid") or "")
        container = records.get(former)
        if container is None or former == request["container_uuid"]:
            continue
        before = found.get(former, container)["requests"]
        shown = [*before, [request["uuid"], request["owner_uuid"]]]
        found[former] = {**container, "requests": shown}
    return found


def _related(rows: Iterable[LogRow], records: Records) -> Iterable[str]:
    """Objects that say who may see others: heads of permission links, owners of deleted ones."""
    yield from present_facts.heads_of(records.values())
    for row in rows:
        if _is_gone(row, records) and row.object_owner_uuid:
            yield row.object_owner_uuid
        if head := _former_head(row, records):
            yield head


def _former_head(row: LogRow, records: Records) -> str | None:
    """What a link that is gone led to: whoever manages it could read the link."""
    if row.kind != "link" or not _is_gone(row, records):
        return None
    old = (row.properties or {}).get("old_attributes")
    head = old.get("head_uuid") if isinstance(old, dict) else None
    return head if isinstance(head, str) and is_uuid(head) else None


def _is_gone(row: LogRow, records: Records) -> bool:
    return row.event_type == _DELETE and row.object_uuid not in records


def _event(
    row: LogRow, records: Records, verified: Verified | None = None, gone: Gone = _NOTHING
) -> Event:
    record = records.get(row.object_uuid or "")
    subject_uuid = row.object_owner_uuid if _is_gone(row, records) else row.object_uuid
    facts = _facts(records.get(subject_uuid or ""), records)
    former_head = _former_head(row, records) or ""
    if (head := records.get(former_head)) is not None:
        facts["head_owner_uuid"] = head["owner_uuid"]
    elif (last := gone.get(former_head)) is not None:
        facts["head_owner_uuid"] = last.owner
    kind = KIND_OF_NAME.get(row.kind)
    verdict, properties = verified or (None, row.properties or {})
    return Event(
        id=row.id,
        uuid=row.uuid,
        event_type=row.event_type,
        event_at=timestamp(row.event_at) if row.event_at else None,
        created_at=timestamp(row.created_at),
        object_uuid=row.object_uuid,
        object_kind=kind.arvados if kind else "",
        object_owner_uuid=row.object_owner_uuid,
        verified=verdict,
        audience=_audience(row, record),
        properties=properties,
        facts=facts,
    )


def _audience(row: LogRow, record: Record | None) -> list[tuple[str, str]]:
    """(owner, object) of what a reader must be able to see."""
    if record is None:
        gone = row.event_type == _DELETE and object_tables.can_read(row.kind)
        owner = row.object_owner_uuid
        if gone and row.object_uuid and owner and is_uuid(owner):
            return [(owner, row.object_uuid)]
        return []
    if row.kind == "container":
        return [(owner, uuid) for uuid, owner in record["requests"]]
    if record.get("collection_uuid"):
        owner = record["collection_owner_uuid"]
        return [(owner, record["collection_uuid"])] if owner else []
    return [(record["owner_uuid"], record["uuid"])] if record["owner_uuid"] else []


def _facts(record: Record | None, records: Records) -> dict[str, Any]:
    """`ObjectFacts` of a record, without what is not known."""
    facts = None if record is None else present_facts.of_record(record, records)
    built: dict[str, Any] = msgspec.to_builtins(facts) if facts else {}
    built.pop("places", None)
    return {name: value for name, value in built.items() if value is not None}
