# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The sandbox API's read rule, as SQL on a real database, against recorded answers of Arvados.

Each step of tests/golden/permissions.json is loaded as rows; then every kind of object is asked
for every user, and the answer must be the recorded set, cell by cell.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from arvados_nats.contract import subjects
from sandbox.api.callers import Caller
from sandbox.api.queries import readable
from sandbox.api.queries.arguments import Arguments
from sandbox.api.queries.tables import Table
from sandbox.model.actors import Actor
from sandbox.model.config import ClusterConfig
from sandbox.servers.postgres import Database

TABLES = (
    "groups", "users", "links", "collections", "container_requests", "containers",
    "workflows", "logs", "api_client_authorizations", "credentials",
)  # fmt: skip
CONFIG = ClusterConfig(cluster_id="zgold")
TIMES = ("trash_at", "delete_at", "expires_at", "refreshes_at")


@pytest.fixture(scope="module")
def recorded(golden: Path) -> dict[str, Any]:
    """The recording."""
    loaded: dict[str, Any] = json.loads((golden / "permissions.json").read_text(encoding="utf-8"))
    return loaded


class State:
    """The recorded database after a step."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, Any]] = {}
        self.permissions: dict[tuple[str, str], tuple[int, bool]] = {}

    def advance(self, step: dict[str, Any]) -> None:
        """Go on to the next step."""
        self.records.update(step["records_changed"])
        for uuid in step["records_deleted"]:
            self.records.pop(uuid, None)
        for user, target, level, traverse in step["permissions_set"]:
            self.permissions[user, target] = level, traverse
        for user, target in step["permissions_removed"]:
            self.permissions.pop((user, target), None)


def states(recorded: dict[str, Any]) -> Iterator[tuple[dict[str, Any], State]]:
    """Every step with the state after it."""
    state = State()
    for step in recorded["steps"]:
        state.advance(step)
        yield step, state


class Loader:
    """Puts a recorded state into an empty database, with times moved to now."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self.columns: dict[str, dict[str, str]] = {}

    async def load(self, step: dict[str, Any], state: State) -> None:
        """Replace everything by the state after `step`."""
        shift = datetime.now(UTC) - datetime.fromisoformat(step["time"])
        for table in (*TABLES, "materialized_permissions", "trashed_groups", "frozen_groups"):
            await self.connection.execute(f"DELETE FROM {table}")
        users = [u for u in state.records if "-tpzed-" in u]
        self.ids = {uuid: number for number, uuid in enumerate(users, 1)}
        for uuid, record in state.records.items():
            kind = subjects.kind_of(uuid)
            if kind and kind.path in TABLES:
                await self._insert(kind.path, record, shift)
        await self.connection.executemany(
            "INSERT INTO materialized_permissions VALUES ($1, $2, $3, $4)",
            [(*key, *value) for key, value in state.permissions.items()],
        )
        await self.connection.executemany(
            "INSERT INTO trashed_groups VALUES ($1, $2)",
            [(uuid, _moved(at, shift)) for uuid, at in step["trashed_groups"].items()],
        )
        frozen = [(uuid,) for uuid in step["frozen_groups"]]
        await self.connection.executemany("INSERT INTO frozen_groups VALUES ($1)", frozen)

    async def _insert(self, table: str, record: dict[str, Any], shift: timedelta) -> None:
        columns = await self._columns(table)
        row = {name: value for name, value in record.items() if name in columns}
        for name in TIMES:
            if row.get(name):
                row[name] = _moved(row[name], shift)
        if table == "api_client_authorizations":
            row |= {"user_id": self.ids.get(record["owner_uuid"], 0), "api_token": record["uuid"]}
        if table == "credentials":
            row |= dict.fromkeys(("credential_class", "external_id", "secret"), "made up")
            row["expires_at"] = datetime(2030, 1, 1)
        if table == "users":
            row["id"] = self.ids[record["uuid"]]
        for name, kind in columns.items():
            if name not in row and kind.startswith("timestamp") and name.endswith("ed_at"):
                row[name] = datetime(2026, 1, 1)
        values = [json.dumps(v) if isinstance(v, dict | list) else v for v in row.values()]
        places = ", ".join(f"${n}" for n in range(1, len(values) + 1))
        await self.connection.execute(
            f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", *values
        )

    async def _columns(self, table: str) -> dict[str, str]:
        if table not in self.columns:
            rows = await self.connection.fetch(
                "SELECT column_name, data_type FROM information_schema.columns"
                " WHERE table_name = $1",
                table,
            )
            self.columns[table] = {row[0]: row[1] for row in rows}
        return self.columns[table]


def _moved(text: str, shift: timedelta) -> datetime:
    time = datetime.fromisoformat(text)
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (time + shift).replace(tzinfo=None)


def reader(loader: Loader, state: State, uuid: str, *, root: bool) -> Caller:
    """The user, or the one they were merged into."""
    user = state.records[uuid]
    while user["redirect_to_user_uuid"]:
        user = state.records[user["redirect_to_user_uuid"]]
    actor = Actor(
        user["uuid"],
        loader.ids[user["uuid"]],
        user["is_admin"],
        user["is_active"],
        CONFIG.root_token_uuid if root else "zgold-gj3su-111111111111111",
    )
    return Caller(actor, CONFIG, user, {user["uuid"]: 3})


async def read(
    connection: asyncpg.Connection, who: Caller, table: str, *, trash: bool = False
) -> set[str]:
    """The uuids of a table that the caller may GET."""
    arguments = Arguments()
    named = Table(table, table, None, {})
    may = readable.condition(named, who, arguments, include_trash=trash)
    rows = await connection.fetch(f"SELECT uuid FROM {table} WHERE {may}", *arguments.values)
    return {row[0] for row in rows}


async def test_every_recorded_cell_is_answered_alike(
    database: Database, recorded: dict[str, Any]
) -> None:
    """For each user and object, GET is allowed exactly where the real server allowed it."""
    connection = await asyncpg.connect(database.dsn)
    loader = Loader(connection)
    checked = 0
    for step, state in states(recorded):
        await loader.load(step, state)
        for label, cells in step["readable"].items():
            who = reader(loader, state, recorded["matrix_user_uuid"][label], root=label == "root")
            for question in ("readable", "readable_include_trash"):
                if cells is None or step[question].get(label) is None:
                    continue
                trash = question == "readable_include_trash"
                for table in ("collections", "groups") if trash else TABLES:
                    got = await read(connection, who, table, trash=trash)
                    known = _askable(recorded, state, table)
                    want = _recorded_set(recorded, step, question, label) & known
                    stale = _stale(recorded, step["n"], label, question)
                    differ = ((got & known) ^ want) - stale
                    assert not differ, (step["n"], label, question, table, differ)
                    checked += len(known)
    await connection.close()
    assert checked > 100_000


def _askable(recorded: dict[str, Any], state: State, table: str) -> set[str]:
    """The objects of a table that were asked about: all with a name, of those that exist."""
    return {
        item["uuid"]
        for item in recorded["objects"]
        if item["type"] == table
        and item["uuid"] in state.records
        and not (table == "links" and item["name"] is None)
    }


def _recorded_set(
    recorded: dict[str, Any], step: dict[str, Any], question: str, label: str
) -> set[str]:
    return {recorded["objects"][index]["uuid"] for index in step[question][label]}


def _stale(recorded: dict[str, Any], step: int, label: str, question: str) -> set[str]:
    return {
        recorded["objects"][index]["uuid"]
        for cell in recorded["stale_cells"]
        if (cell["step"], cell["label"], cell["question"]) == (step, label, question)
        for index in cell["objects"]
    }
