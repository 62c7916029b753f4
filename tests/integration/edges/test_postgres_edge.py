# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""publishers.postgres: what asyncpg raises becomes ours, sessions end with their connection."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from arvados_nats.admin import check_postgres
from arvados_nats.errors import ArvadosNatsError, BadInput, ConfigError, Unavailable
from arvados_nats.nats import client as nats_client
from arvados_nats.service import keys
from arvados_nats.service.ops import Health
from publishers.postgres import database as postgres
from publishers.postgres import leader
from publishers.retry import Attempts
from sandbox.servers import postgres as sandbox
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import Database
from tests.support.waiting import until

LOCK = leader.Lock("test")


@pytest.fixture
async def edge(database: Database) -> AsyncIterator[postgres.Database]:
    """The edge, as the publishers' own role."""
    async with postgres.connect(database.reader_dsn) as opened:
        yield opened


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT 1 FROM no_such_table", Unavailable),
        ("SELECT api_token FROM api_client_authorizations", Unavailable),
        ("SELECT no_such_column FROM logs", Unavailable),
        ("SELECT 'x'::json", BadInput),
        ("SELECT 1/0", BadInput),
        ("SELECT pg_sleep(5)", Unavailable),
        ("SELECT pg_terminate_backend(pg_backend_pid())", Unavailable),
        ("nonsense", Unavailable),
    ],
)
async def test_each_failure_is_one_of_our_errors(
    edge: postgres.Database, sql: str, kind: type[ArvadosNatsError]
) -> None:
    """Caught by kind, and the pool works afterwards."""
    with pytest.raises(kind):
        await edge.fetch(sql, timeout=0.3)
    with pytest.raises(kind):
        await edge.fetch_value(sql, timeout=0.3)
    assert await edge.fetch_value("SELECT 1") == 1


@pytest.mark.parametrize(
    "dsn", ["postgresql://127.0.0.1:1/x", "postgresql://no-such-host.invalid/x"]
)
async def test_a_server_that_is_not_there_is_unavailable(dsn: str) -> None:
    """For reading and for sessions alike; opening the pool needs no server."""
    async with postgres.connect(dsn) as nowhere:
        with pytest.raises(Unavailable):
            await nowhere.fetch("SELECT 1")
        with pytest.raises(Unavailable):
            async with nowhere.session():
                pass


async def test_an_unknown_option_is_a_wrong_setting(database: Database) -> None:
    """asyncpg hands it to the server, which refuses the session."""
    async with postgres.connect(f"{database.reader_dsn}?no_such_option=1") as edge:
        with pytest.raises(ConfigError, match="no_such_option"):
            await edge.fetch("SELECT 1")


async def test_json_columns_come_decoded(edge: postgres.Database) -> None:
    """jsonb is a Python value, so that it can be compared with a row's."""
    assert await edge.fetch_value("""SELECT '{"a": [1]}'::jsonb""") == {"a": [1]}
    assert await edge.fetch_value("SELECT ('[1' || repeat('0', 5000) || ']')::jsonb") is None
    assert await edge.fetch_value("SELECT (repeat('[', 3000) || repeat(']', 3000))::jsonb") is None


@pytest.mark.parametrize(
    ("moment", "read"),
    [
        ("2026-11-25 12:00:00.123456", datetime(2026, 11, 25, 12, 0, 0, 123456)),
        ("1970-01-01", datetime(1970, 1, 1)),
        ("20000-01-01", datetime.max),
        ("294276-12-31", datetime.max),
        ("infinity", datetime.max),
        ("4713-01-01 BC", datetime.min),
        ("-infinity", datetime.min),
    ],
)
async def test_any_time_that_postgresql_has_can_be_read(
    edge: postgres.Database, moment: str, read: datetime
) -> None:
    """A user may post it; what Python does not have is the nearest that it has."""
    assert await edge.fetch_value(f"SELECT '{moment}'::timestamp") == read


async def test_a_time_comes_back_as_it_went(edge: postgres.Database) -> None:
    """To the microsecond."""
    moment = datetime(2026, 11, 25, 12, 0, 0, 123457)
    assert await edge.fetch_value("SELECT $1::timestamp", moment) == moment
    (row,) = await edge.fetch("SELECT now() AT TIME ZONE 'UTC' AS moment, NULL::timestamp AS no")
    assert abs(row["moment"] - datetime.now(UTC).replace(tzinfo=None)) < timedelta(minutes=1)
    assert row["no"] is None


async def test_a_session_hears_what_is_notified(
    edge: postgres.Database, database: Database
) -> None:
    """In the order of the commits."""
    heard: asyncio.Queue[str] = asyncio.Queue()
    writer = await asyncpg.connect(database.dsn)
    async with edge.session() as session:
        await session.listen("logs", heard.put_nowait)
        for payload in ("1", "2"):
            await writer.execute("SELECT pg_notify('logs', $1)", payload)
        assert [await heard.get(), await heard.get()] == ["1", "2"]
    await writer.close()


async def test_a_guard_ends_its_body_when_the_connection_dies(
    edge: postgres.Database, database: Database
) -> None:
    """The body is cancelled where it waits, and Unavailable says why."""
    writer = await asyncpg.connect(database.dsn)
    cancelled = False
    with pytest.raises(Unavailable, match="lost"):
        async with edge.session() as session, session.guard():
            await writer.execute("SELECT pg_terminate_backend($1)", session.backend_pid)
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled = True
                raise
    assert cancelled
    await writer.close()


async def test_a_guard_over_a_dead_connection_does_nothing(
    edge: postgres.Database, database: Database
) -> None:
    """The first wait in its body is the last."""
    writer = await asyncpg.connect(database.dsn)
    async with edge.session() as session:
        await writer.execute("SELECT pg_terminate_backend($1)", session.backend_pid)
        with pytest.raises(Unavailable):
            await session.try_lock(1)
        with pytest.raises(Unavailable):
            async with session.guard():
                await asyncio.sleep(60)
    await writer.close()


async def test_a_guard_leaves_other_ends_alone(edge: postgres.Database) -> None:
    """Timeouts and errors of the body come out as they are; so does the end of the body."""
    async with edge.session() as session:
        async with session.guard():
            pass
        with pytest.raises(TimeoutError):
            async with session.guard(), asyncio.timeout(0.01):
                await asyncio.sleep(60)
        with pytest.raises(BadInput):
            async with session.guard():
                raise BadInput
        waiting = asyncio.create_task(_wait_in(session))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def _wait_in(session: postgres.Session) -> None:
    async with session.guard():
        await asyncio.sleep(60)


async def test_one_session_has_the_lock_and_the_next_gets_it(
    edge: postgres.Database, fresh_nats: NatsServer, keys_folder: Path
) -> None:
    """The second stands by, which is well while it hears the first, and leads once that is gone."""
    seed = keys.load(keys_folder, "publisher").text
    async with nats_client.connect([fresh_nats.url], name="test", seed=seed) as nats:
        first, second = Health(), Health()
        begun, over = asyncio.Event(), asyncio.Event()

        async def lead(health: Health, until_set: asyncio.Event) -> None:
            attempts = Attempts(health, "part")
            async with edge.session() as session:
                async with leader.Leadership(nats, LOCK, attempts).held(session):
                    attempts.succeeded()
                    begun.set()
                    await until_set.wait()

        leads = asyncio.create_task(lead(first, over))
        await begun.wait()
        begun.clear()
        waits = asyncio.create_task(lead(second, over))

        async def stands_by() -> bool:
            return not second.faults

        await until(stands_by, "the second stands by")
        assert not begun.is_set()
        leads.cancel()
        async with asyncio.timeout(60):
            await begun.wait()
        over.set()
        await waits


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """PostgreSQL may run as another user, who cannot enter the folders of pytest."""
    with tempfile.TemporaryDirectory(prefix="arvados-nats-standby-") as place:
        Path(place).chmod(0o711)
        yield Path(place)


async def test_a_hot_standby_is_refused(open_folder: Path) -> None:
    """LISTEN does not work there: the setting is wrong, and the error says what to give."""
    async with sandbox.run(folder=open_folder / "server") as server:
        database = await server.clone("standby")
        await server.stop()
        (server.folder / "standby.signal").touch()
        await server.start()
        async with postgres.connect(database.reader_dsn) as edge:
            assert await edge.fetch_value("SELECT 1") == 1
            with pytest.raises(ConfigError, match="hot standby"):
                async with edge.session():
                    pass


@pytest.mark.skipif(not shutil.which("pgbouncer"), reason="pgbouncer is not installed")
@pytest.mark.parametrize(("mode", "works"), [("transaction", False), ("session", True)])
async def test_a_transaction_pooler_is_refused(
    postgres_server: sandbox.PostgresServer,
    database: Database,
    open_folder: Path,
    mode: str,
    works: bool,
) -> None:
    """One that pools by session is as good as PostgreSQL itself; the check says the same."""
    with _pgbouncer(postgres_server.port, database, open_folder, mode) as port:
        dsn = database.reader_dsn.replace(f":{postgres_server.port}/", f":{port}/")
        async with postgres.connect(dsn) as edge:

            async def answers() -> bool:
                try:
                    async with edge.session():
                        return True
                except Unavailable:
                    return False

            if works:
                await until(answers, "pgbouncer")
            else:
                with pytest.raises(ConfigError, match="transaction pooler"):
                    await until(answers, "pgbouncer")
        checked = await check_postgres.check(dsn)
        assert (checked["PostgreSQL"] is None) is works


@contextmanager
def _pgbouncer(server_port: int, database: Database, folder: Path, mode: str) -> Iterator[int]:
    login, _, _ = database.reader_dsn.removeprefix("postgresql://").partition("@")
    user, _, password = login.partition(":")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    users, settings = folder / "users", folder / "pgbouncer.ini"
    users.write_text(f'"{user}" "{password}"\n')
    settings.write_text(
        f"[databases]\n* = host=127.0.0.1 port={server_port}\n"
        f"[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port={port}\nunix_socket_dir=\n"
        f"auth_type=scram-sha-256\nauth_file={users}\npool_mode={mode}\n"
        "ignore_startup_parameters=extra_float_digits\n"
    )
    for path in (users, settings):
        path.chmod(0o644)
    command = [shutil.which("pgbouncer") or "", "-q", str(settings)]
    as_user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    process = subprocess.Popen(command, user=as_user.pw_uid if as_user else None)
    try:
        yield port
    finally:
        process.terminate()
        process.wait()
