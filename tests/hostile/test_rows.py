# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Rows that a publisher cannot carry, whoever chose what is in them: the others are carried on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from arvados_nats.contract import streams, subjects
from arvados_nats.errors import Unavailable
from arvados_nats.permission_client import object_messages
from publishers.container_logs.copy import LogCopy
from publishers.events import enrich
from publishers.queue import table
from sandbox import raw_rows
from sandbox.raw_rows import new_uuid
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import Database
from tests.support.worlds import events as event_worlds
from tests.support.worlds import logs as log_worlds
from tests.support.worlds import permissions as permission_worlds
from tests.support.worlds import queue as queue_worlds
from tests.support.worlds.events import EventWorld
from tests.support.worlds.queue import eventually

LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
"""YAML of 500 characters that is 9 ** 11 lists."""


@pytest.fixture
async def scene(
    database: Database, fresh_nats: NatsServer, keys_folder: Path
) -> AsyncIterator[EventWorld]:
    """A database and a NATS server."""
    async with event_worlds.world(database, fresh_nats, keys_folder) as made:
        yield made


async def test_a_row_that_we_stumble_on_is_passed_over(
    scene: EventWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those that are read together with it each one is published."""
    genuine, rows = enrich._event, [raw_rows.row(new_uuid("4zz18")) for _ in range(5)]

    def stumble(row: Any, *more: Any) -> Any:
        if row.uuid == rows[2].uuid:
            raise ZeroDivisionError
        return genuine(row, *more)

    monkeypatch.setattr(enrich, "_event", stumble)
    async with scene.publishing():
        await scene.insert(*rows)
        await scene.until_stored([*rows[:2], *rows[3:]])
        assert f"{rows[2].uuid} (failed)" in scene.health.notes["events"]


@pytest.mark.parametrize("column", table._SERIALIZED)
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[" * 60_000, "[" * 60_000),
        ('{"a":' * 10_000 + "1" + "}" * 10_000, None),
        (json.dumps({"a": "x" * 20_000_000}), None),
        ("a: &a [*a]", "a: &a [*a]"),
        (LAUGHS, LAUGHS),
        ("!!python/object:os.system x", "!!python/object:os.system x"),
    ],
    ids=["brackets", "nested", "20 MB", "itself", "laughs", "code"],
)
async def test_the_queue_goes_on_whatever_a_container_wants(
    database: Database,
    fresh_nats: NatsServer,
    keys_folder: Path,
    column: str,
    text: str,
    shown: str | None,
) -> None:
    """It is shown as it is, or as null, and the next container is in the bucket as well."""
    async with queue_worlds.world(database, fresh_nats, keys_folder) as here, here.publishing():
        await eventually(here.equal, "the empty queue is there")
        _, odd = await here.request()
        async with here.cluster.pool.acquire() as connection:
            statement = f"UPDATE containers SET {column} = $2 WHERE uuid = $1"
            await connection.execute(statement, odd, text)
        _, honest = await here.request(name="another")

        async def both() -> bool:
            entry = await here.entry(odd)
            there = await here.entry(honest) is not None and await here.equal()
            return there and entry is not None and getattr(entry, column) in (shown, text, None)

        await eventually(both, "both are in the bucket")
        assert here.health.error is None


async def test_a_container_that_we_stumble_on_costs_no_other_its_log(
    database: Database,
    fresh_nats: NatsServer,
    keys_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever is raised for the log of one, those of others are carried and ended."""
    async with log_worlds.open_world(fresh_nats, keys_folder, database) as world:
        odd, honest = await world.job(), await world.job()
        genuine = LogCopy.file

        async def stumble(self: LogCopy, name: str) -> Any:
            if self._writer.container_uuid == odd.uuid:
                raise ZeroDivisionError
            return await genuine(self, name)

        monkeypatch.setattr(LogCopy, "file", stumble)
        for job in (odd, honest):
            job.write("stdout.txt", b"line\n")
        async with world.replica():
            await world.until_stored(honest, "stdout.txt")
            await honest.finish()
            await world.until_end(honest.uuid)
            assert await world.messages(odd.uuid) == []


async def test_an_object_that_no_message_holds_is_not_told_and_others_are(
    database: Database, fresh_nats: NatsServer, keys_folder: Path
) -> None:
    """A container says itself how it is, in as many bytes as Arvados takes: who asked for it ended
    the permission publisher, as often as they asked."""
    async with permission_worlds.world(database, fresh_nats, keys_folder) as here:
        request = await here.cluster.container_request("talks", owner=here.canary)
        container = str(request["container_uuid"])
        await here.cluster.pool.execute(
            "UPDATE containers SET runtime_status = jsonb_build_object('x', repeat('x', 9000000))"
            " WHERE uuid = $1",
            container,
        )
        async with here.publishing():
            for _ in range(2):
                told = await here.reader.request(subjects.OBJECTS_GET, container.encode())
                with pytest.raises(Unavailable, match="bytes"):
                    object_messages.decode(told.headers, told.data)
            told = await here.reader.request(subjects.OBJECTS_GET, here.canary.uuid.encode())
            assert object_messages.decode(told.headers, told.data).record


async def test_streams_that_are_there_get_their_bounds(
    database: Database, fresh_nats: NatsServer, keys_folder: Path
) -> None:
    """What they hold stays, and can be read; what is too large or not meant is refused from now."""
    async with event_worlds.world(database, fresh_nats, keys_folder) as scene:
        made = {
            subjects.EVENTS: streams.event_stream(),
            subjects.LOGS: streams.log_stream(),
            subjects.SYSTEM_LOGS: streams.system_log_stream(),
        }
        for subject, config in made.items():
            old = {**config, "subjects": [f"{subject}.>"], "max_msg_size": -1}
            await streams.ensure(scene.nats, old)
            for tail in ("a.b", "a.b.c", "a.b.c.d.e"):
                await (await scene.nats.publish_stored(f"{subject}.{tail}", b"x" * 3_000_000))
            await streams.ensure(scene.nats, config)
            found = await scene.nats.stream_config(config["name"])
            assert found is not None and found["max_msg_size"] == config["max_msg_size"]
            assert found["subjects"] == config["subjects"]
            history = scene.nats.history(config["name"], f"{subject}.>")
            assert [one.sequence async for one in history] == [1, 2, 3]
            with pytest.raises(Exception, match=r"exceeds maximum|no stream"):
                await (await scene.nats.publish_stored(f"{subject}.a.b.c", b"x" * 3_000_000))
