# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The embedded PostgreSQL: clones, the reader's rights, several servers, stop and restart."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from arvados_nats.postgres import arvados_tables
from sandbox import schema
from sandbox.servers import postgres, postgres_binaries


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that others may pass: pytest's are closed to whom PostgreSQL runs as under root."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


async def test_a_clone_has_the_tables_and_no_rows(database: postgres.Database) -> None:
    """Every recorded table exists in a fresh clone, and is empty."""
    connection = await asyncpg.connect(database.dsn)
    for table in schema.tables():
        assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0
    await connection.close()


async def test_clones_do_not_see_each_other(postgres_server: postgres.PostgresServer) -> None:
    """What one test writes, another never reads."""
    first, second = await postgres_server.clone(), await postgres_server.clone()
    writer = await asyncpg.connect(first.dsn)
    await writer.execute("INSERT INTO frozen_groups VALUES ('zzzzz-j7d0g-aaaaaaaaaaaaaaa')")
    reader = await asyncpg.connect(second.dsn)
    assert await reader.fetchval("SELECT count(*) FROM frozen_groups") == 0
    await writer.close()
    await reader.close()
    await postgres_server.drop(first)
    await postgres_server.drop(second)


async def test_the_reader_sees_no_token_secret_and_writes_nothing(
    database: postgres.Database,
) -> None:
    """The publishers' role reads what they need; secrets and writing are refused."""
    connection = await asyncpg.connect(database.reader_dsn)
    for table in arvados_tables.TABLES.values():
        columns = ", ".join((*table.columns, *(column.name for column in table.newer)))
        await connection.fetch(f"SELECT {columns} FROM {table.name}")
    for refused in (
        "SELECT api_token FROM api_client_authorizations",
        "SELECT runtime_token FROM container_requests",
        "SELECT secret_mounts FROM containers",
        "SELECT * FROM api_client_authorizations",
        "SELECT secret FROM credentials",
        "INSERT INTO frozen_groups VALUES ('x')",
        "DELETE FROM logs",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(refused)
    await connection.execute("LISTEN logs")
    await connection.close()


async def test_two_servers_run_side_by_side_and_keep_their_data(open_folder: Path) -> None:
    """A data folder outlives its server; a second server beside it is another world."""
    async with postgres.run(folder=open_folder / "one") as one:
        database = await one.clone("kept")
        async with postgres.run(folder=open_folder / "two") as two:
            assert one.port != two.port
        connection = await asyncpg.connect(database.dsn)
        await connection.execute("INSERT INTO frozen_groups VALUES ('kept')")
        await connection.close()
    async with postgres.run(folder=open_folder / "one") as again:
        connection = await asyncpg.connect(again.database("kept").dsn)
        assert await connection.fetchval("SELECT uuid FROM frozen_groups") == "kept"
        await connection.close()


async def test_a_killed_server_comes_back_on_its_port(open_folder: Path) -> None:
    """Committed rows survive SIGKILL, and clients find the server where it was."""
    async with postgres.run(folder=open_folder / "one", durable=True) as server:
        database, port, pid = await server.clone("kept"), server.port, server.pid
        connection = await asyncpg.connect(database.dsn)
        await connection.execute("INSERT INTO frozen_groups VALUES ('kept')")
        cut = asyncio.Event()
        connection.add_termination_listener(lambda _: cut.set())
        await server.kill()
        async with asyncio.timeout(60):
            await cut.wait()
        await server.start()
        assert (server.port, server.pid) != (port, pid)
        assert server.port == port
        connection = await asyncpg.connect(database.dsn)
        assert await connection.fetchval("SELECT uuid FROM frozen_groups") == "kept"
        await connection.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_the_servers_of_the_wheel_do_as_well_as_debians(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where Debian's PostgreSQL is not installed the wheel's runs, template and all."""
    monkeypatch.setattr(postgres_binaries, "find", postgres_binaries.find_in_wheel)
    async with postgres.run() as server:
        connection = await asyncpg.connect((await server.clone()).reader_dsn)
        assert await connection.fetchval("SELECT count(*) FROM logs") == 0
        await connection.close()
