# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Event publishers as an operator runs them: killed, doubled, and with PostgreSQL going away."""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path

import asyncpg
import pytest

from sandbox import raw_rows
from sandbox.raw_rows import RawRow, change, new_uuid, row
from sandbox.servers import postgres
from sandbox.servers.nats_server import NatsServer
from tests.support.waiting import until
from tests.support.worlds.events import PROCESS_SECONDS, EventWorld, world


def _rows(count: int) -> list[RawRow]:
    return [row(new_uuid("4zz18"), properties=change(None, {"name": "x"})) for _ in range(count)]


async def _insert_steadily(scene: EventWorld, rows: list[RawRow]) -> None:
    """Traffic in transactions of 20 rows."""
    for start in range(0, len(rows), 20):
        await scene.insert(*rows[start : start + 20])
        await asyncio.sleep(0.002)


async def _until_count(scene: EventWorld, count: int) -> None:
    async def reached() -> bool:
        return await scene.count() >= count

    await until(reached, f"{count} events", PROCESS_SECONDS + 15)


async def test_kill_9_in_the_middle_of_5000_rows(scene: EventWorld, tmp_path: Path) -> None:
    """The publisher is killed twice while rows come; in the end each is there once, in order."""
    rows = _rows(5000)
    publisher = scene.start_process(tmp_path)
    inserting = asyncio.create_task(_insert_steadily(scene, rows))
    for enough in (1000, 2500):
        await _until_count(scene, enough)
        await publisher.kill()
        publisher = scene.start_process(tmp_path)
    await inserting
    await scene.until_stored(rows, within=60)
    await publisher.stop(signal.SIGTERM)
    assert await scene.stored_uuids() == [one.uuid for one in rows]


async def test_the_second_publisher_takes_over(scene: EventWorld, tmp_path: Path) -> None:
    """Two publishers run, the active one is killed: the other goes on, no row lost or doubled."""
    rows = _rows(3000)
    first = scene.start_process(tmp_path, "first")
    await scene.insert(warm := _rows(1)[0])
    await _until_count(scene, 1)
    second = scene.start_process(tmp_path, "second")

    async def stands_by() -> bool:
        return "standing by" in second.tail(50)

    await until(stands_by, "the second publisher stands by", PROCESS_SECONDS)
    inserting = asyncio.create_task(_insert_steadily(scene, rows))
    await _until_count(scene, 500)
    await first.kill()
    await inserting
    await scene.until_stored(rows, within=60)
    assert "leading" in second.tail(50)
    await second.stop(signal.SIGTERM)
    assert await scene.stored_uuids() == [warm.uuid, *(one.uuid for one in rows)]


async def test_all_misfortunes_in_turn(
    scene: EventWorld, fresh_nats: NatsServer, tmp_path: Path
) -> None:
    """Two publishers, three writers, late commits and roll-backs, while publishers, NATS and
    sessions die: each committed row once, and those of one writer in the order of its commits."""
    publishers = [scene.start_process(tmp_path, f"publisher-{number}") for number in range(2)]
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as writers:
        written = [
            writers.create_task(_write_oddly(scene, random.Random(seed), stop)) for seed in range(3)
        ]
        for number in range(2):
            await _until_growing(scene)
            await scene.admin.fetch(_END_LEADERS)
            await _until_growing(scene)
            await fresh_nats.kill()
            await fresh_nats.start()
            await scene.nats.until_connected()
            await _until_growing(scene)
            await publishers[number].kill()
            publishers.append(scene.start_process(tmp_path, f"publisher-{number + 2}"))
            await _until_growing(scene)
            await fresh_nats.restart()
            await scene.nats.until_connected()
            await scene.admin.fetch(_END_ALL)
        stop.set()
    committed = [await task for task in written]
    await scene.until_stored([one for rows in committed for one in rows], within=60)
    stored = await scene.stored_uuids()
    for rows in committed:
        mine = {one.uuid for one in rows}
        assert [uuid for uuid in stored if uuid in mine] == [one.uuid for one in rows]
    assert len(stored) == sum(map(len, committed))


_END_LEADERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
)
_END_ALL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE application_name = 'arvados-nats' AND datname = current_database()"
)


async def _write_oddly(
    scene: EventWorld, chance: random.Random, stop: asyncio.Event
) -> list[RawRow]:
    """Transactions of one connection, some open for a while, some given up; the committed rows."""
    committed: list[RawRow] = []
    connection = await asyncpg.connect(scene.database.dsn)
    while not stop.is_set():
        rows = _rows(chance.choice([1, 1, 2, 20]))
        transaction = connection.transaction()
        await transaction.start()
        await raw_rows.insert(connection, rows)
        if chance.random() < 0.1:
            await asyncio.sleep(chance.random())
        if chance.random() < 0.05:
            await transaction.rollback()
        else:
            await transaction.commit()
            committed += rows
        await asyncio.sleep(chance.random() * 0.02)
    await connection.close()
    return committed


async def _until_growing(scene: EventWorld) -> None:
    """Wait until rows are published again."""
    await _until_count(scene, await scene.count() + 50)


async def test_a_leader_that_lost_its_lock_stops(scene: EventWorld, tmp_path: Path) -> None:
    """The lock's session is ended by PostgreSQL while rows flow; two publishers compete, and the
    stream still has each row once, in order."""
    rows = _rows(2000)
    publishers = [scene.start_process(tmp_path, name) for name in ("first", "second")]
    await scene.insert(warm := _rows(1)[0])
    await _until_count(scene, 1)
    inserting = asyncio.create_task(_insert_steadily(scene, rows))
    for enough in (300, 800, 1300):
        await _until_count(scene, enough)
        await scene.admin.fetch(_END_LEADERS)
    await inserting
    await scene.until_stored(rows, within=60)
    for publisher in publishers:
        await publisher.stop(signal.SIGTERM)
    assert await scene.stored_uuids() == [warm.uuid, *(one.uuid for one in rows)]


@pytest.mark.parametrize("end", ["restart", "kill"])
async def test_a_restart_of_postgresql_loses_no_row(
    fresh_nats: NatsServer, keys_folder: Path, tmp_path: Path, end: str
) -> None:
    """PostgreSQL goes away and comes back: the publisher is still there, and every committed row
    arrives once."""
    async with postgres.run(durable=True) as server:
        database = await server.clone()
        before, after = _rows(50), _rows(50)
        async with world(database, fresh_nats, keys_folder) as scene:
            publisher = scene.start_process(tmp_path)
            await scene.insert(*before)
            await _until_count(scene, 50)
            pid = publisher.pid
            await (server.restart() if end == "restart" else _kill(server))
            writer = await asyncpg.connect(database.dsn)
            await raw_rows.insert(writer, after)
            await scene.until_stored(after, within=60)
            assert (publisher.running, publisher.pid) == (True, pid)
            await publisher.stop(signal.SIGTERM)
            await writer.close()
            assert await scene.stored_uuids() == [one.uuid for one in (*before, *after)]


async def _kill(server: postgres.PostgresServer) -> None:
    await server.kill()
    await server.start()


async def test_it_waits_for_postgresql_to_appear(
    fresh_nats: NatsServer, keys_folder: Path, tmp_path: Path
) -> None:
    """A publisher that is started before PostgreSQL begins when that is there."""
    async with postgres.run(durable=True) as server:
        database = await server.clone()
        async with world(database, fresh_nats, keys_folder) as scene:
            one = _rows(1)[0]
            await scene.insert(one)
            await server.stop()
            publisher = scene.start_process(tmp_path)

            async def degraded() -> bool:
                return "degraded" in publisher.tail(50)

            await until(degraded, "it says that PostgreSQL is away", PROCESS_SECONDS)
            await server.start()
            await scene.until_stored([one], within=60)
            await publisher.stop(signal.SIGTERM)


_ADVISORY_LOCKS = """
SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
WHERE locktype = 'advisory' AND datname = current_database()
"""


async def test_sigterm_ends_it_in_order(scene: EventWorld, tmp_path: Path) -> None:
    """SIGTERM: exit in well under ten seconds, no traceback, the lock free at once."""
    publisher = scene.start_process(tmp_path)
    await scene.insert(_rows(1)[0])
    await _until_count(scene, 1)
    await publisher.stop(signal.SIGTERM, within=60)
    assert "Traceback" not in publisher.log.read_text()
    assert '"stopped"' in publisher.tail(3)
    async with asyncio.timeout(60):
        while await scene.writer.fetchval(_ADVISORY_LOCKS):  # noqa: ASYNC110 (each look is a query)
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("dsn", "says"),
    [
        ("host=x port='", "neither a URL nor a libpq connection string"),
        ("", "set it to where Arvados' PostgreSQL is"),
    ],
)
async def test_a_wrong_setting_ends_it_with_the_name_of_the_setting(
    scene: EventWorld, tmp_path: Path, dsn: str, says: str
) -> None:
    """Exit code 2, and the log names the setting but no password."""
    login, _, _ = scene.database.reader_dsn.removeprefix("postgresql://").partition("/")
    address = scene.database.reader_dsn.rpartition("@")[2]
    publisher = scene.start_process(tmp_path, dsn=dsn.format(login=login, address=address))

    async def ended() -> bool:
        return not publisher.running

    await until(ended, "the publisher ends", PROCESS_SECONDS)
    log = publisher.log.read_text()
    assert "postgres_dsn" in log
    assert says in log
    assert "wrong" not in log
    assert login.partition(":")[2].partition("@")[0] not in log
    assert publisher.exit_code == 2


@pytest.mark.parametrize(
    ("dsn", "says"),
    [
        ("postgresql://nobody:wrong@{address}", "password authentication failed"),
        ("postgresql://{login}/no_such_database", "does not exist"),
    ],
)
async def test_what_postgresql_answers_is_tried_again(
    scene: EventWorld, tmp_path: Path, dsn: str, says: str
) -> None:
    """A password that is wrong for a minute ends nothing: the log says so, and it goes on (O4)."""
    login, _, _ = scene.database.reader_dsn.removeprefix("postgresql://").partition("/")
    address = scene.database.reader_dsn.rpartition("@")[2]
    publisher = scene.start_process(tmp_path, dsn=dsn.format(login=login, address=address))

    async def tells() -> bool:
        log = publisher.log.read_text()
        return says in log and "postgres_dsn" in log

    await until(tells, "the log says what is wrong", PROCESS_SECONDS)
    assert publisher.running
    log = publisher.log.read_text()
    assert "postgres_dsn" in log
    assert login.partition(":")[2].partition("@")[0] not in log
