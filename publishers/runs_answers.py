# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Answer what a container or container request is now: who sees it, and how far it has run.

Every replica, in one queue group. Read from the database for each question: an answer decides who
reads a log, and an event tells late, or not at all, that a request was moved.
"""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

from arvados_nats import runs_wire, subjects
from arvados_nats.errors import ArvadosNatsError
from arvados_nats.events import timestamp
from arvados_nats.grants_wire import FAILED
from arvados_nats.nats_client import Message, Nats
from arvados_nats.object_facts import facts_of
from arvados_nats.runs_wire import Run
from publishers import object_tables
from publishers.object_tables import Record
from publishers.postgres import Database

QUEUE = "permissions"
_AT_ONCE = 2
_KINDS = ("container", "container_request")


async def answer(nats: Nats, database: Database) -> NoReturn:
    """Answer until cancelled."""
    turn = asyncio.Semaphore(_AT_ONCE)
    async with asyncio.TaskGroup() as questions:

        async def take(message: Message) -> None:
            questions.create_task(_in_turn(nats, database, turn, message))

        heard = await nats.subscribe(subjects.RUNS_GET, take, queue=QUEUE)
        try:
            await nats.until_closed()
        finally:
            await heard.unsubscribe()
    raise AssertionError("the connection does not end without an error")


async def _in_turn(nats: Nats, database: Database, turn: asyncio.Semaphore, asked: Message) -> None:
    headers: dict[str, str] = {}
    payload = b""
    async with turn:
        try:
            payload = runs_wire.encode(await read(database, asked.data.decode(errors="replace")))
        except ArvadosNatsError as error:
            headers = {FAILED: str(error)}
    if asked.reply:
        await nats.publish(asked.reply, payload, headers=headers)


async def read(database: Database, uuid: str) -> Run:
    """The run that a uuid names, as it is now."""
    kind = subjects.kind_of(uuid)
    if kind is None or kind.name not in _KINDS:
        return Run()
    record = (await object_tables.read(database, [uuid])).get(uuid)
    if record is None:
        return Run()
    facts = facts_of(record, requests=_requests(record))
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
