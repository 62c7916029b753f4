# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Answer what an object is now, and how far a container or container request has run.

And where groups are (`places`). Every replica, in one queue group. Read from the database for each
question: an answer decides who reads a log, and an event tells late, or not at all, that a request
was moved.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, NoReturn

import msgspec

from arvados_nats.contract import serialized, subjects
from arvados_nats.contract.serialized import timestamp
from arvados_nats.errors import MALFORMED, ArvadosNatsError, BadInput
from arvados_nats.nats import responder
from arvados_nats.nats.client import Message, Nats
from arvados_nats.permission_client import object_messages, run_messages
from arvados_nats.permission_client.grants_messages import FAILED
from arvados_nats.permission_client.object_messages import Snapshot
from arvados_nats.permission_client.run_messages import Run
from arvados_nats.permissions.object_facts import facts_of
from publishers.postgres import object_tables, places, present_facts
from publishers.postgres.database import Database
from publishers.postgres.object_tables import Record

QUEUE = "permissions"
MAX_ASKED = 1000
"""Uuids in one question."""
_AT_ONCE = 2
_KINDS = ("container", "container_request")


async def answer(
    nats: Nats, database: Database, ready: Callable[[], None] = lambda: None
) -> NoReturn:
    """Answer until cancelled."""

    async def reply(asked: Message) -> None:
        try:
            found = await _ANSWERS[asked.subject](database, asked.data.decode(errors="replace"))
            await nats.publish(asked.reply, found)
        except ArvadosNatsError as error:  # also of an answer that is too long for a message
            await nats.publish(asked.reply, headers={FAILED: str(error)})

    handlers = dict.fromkeys(_ANSWERS, reply)
    await responder.answer(nats, handlers, queue=QUEUE, at_once=_AT_ONCE, ready=ready)


async def read(database: Database, uuid: str) -> Run:
    """The run that a uuid names, as it is now."""
    kind = subjects.kind_of(uuid)
    if kind is None or kind.name not in _KINDS:
        return Run()
    record = (await object_tables.read(database, [uuid])).get(uuid)
    if record is None:
        return Run()
    (facts,) = await places.placed(database, [facts_of(record, requests=_requests(record))])
    if kind.name == "container":
        return Run(facts, uuid, **_progress(record))
    container = record["container_uuid"]
    found = await object_tables.read(database, [container] if container else [])
    attempt = max(record["container_count"] or 1, 1)
    return Run(facts, container, attempt, **_progress(found.get(container, {})))


def _requests(record: Record) -> tuple[tuple[str, str], ...] | None:
    requests = record.get("requests")
    return None if requests is None else tuple((uuid, owner) for uuid, owner in requests)


def _progress(record: Record) -> dict[str, Any]:
    finished = record.get("finished_at")
    return {
        "state": record.get("state"),
        "exit_code": record.get("exit_code"),
        "log": record.get("log"),
        "finished_at": timestamp(finished) if finished else None,
    }


async def read_object(database: Database, uuid: str) -> Snapshot:
    """The object that a uuid names, as it is now."""
    record = (await object_tables.read(database, [uuid])).get(uuid)
    if record is None:
        return Snapshot()
    container = record.get("container_uuid")
    shown = (await object_tables.read(database, [container])).get(container) if container else None
    (facts,) = await places.placed(database, [facts_of(record, requests=_requests(record))])
    return Snapshot(
        facts,
        _as_api(record),
        None if shown is None else _as_api(shown),
    )


def _as_api(record: Record) -> dict[str, Any]:
    """Attributes with values as Arvados' API writes them."""
    return {
        name: _value(name, value)
        for name, value in record.items()
        if name not in ("requests", "xmin")
    }


def _value(name: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return f"{value.isoformat(timespec='microseconds')}000Z"
    if name == "runtime_constraints":
        with contextlib.suppress(BadInput):
            return serialized.mapping(value or "")
        return None
    return value


async def _places(database: Database, asked: str) -> bytes:
    found = await places.read(database, _uuids(asked))
    return msgspec.json.encode([*found.values()])


def _uuids(asked: str) -> list[str]:
    try:
        found = msgspec.json.decode(asked, type=list[str])
    except MALFORMED as error:
        raise BadInput(f"not a list of uuids: {error}") from error
    if len(found) > MAX_ASKED:
        raise BadInput(f"more than {MAX_ASKED} uuids in one question")
    return found


async def _facts(database: Database, asked: str) -> bytes:
    uuids = _uuids(asked)
    groups = await places.read(database, uuids)
    return object_messages.encode_facts(await present_facts.read(database, uuids), groups.values())


async def _run(database: Database, uuid: str) -> bytes:
    return run_messages.encode(await read(database, uuid))


async def _object(database: Database, uuid: str) -> bytes:
    return object_messages.encode(await read_object(database, uuid))


_ANSWERS: Mapping[str, Callable[[Database, str], Awaitable[bytes]]] = {
    subjects.RUNS_GET: _run,
    subjects.OBJECTS_GET: _object,
    subjects.OBJECTS_FACTS: _facts,
    subjects.PLACES_GET: _places,
}
