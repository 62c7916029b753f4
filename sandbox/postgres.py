# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""An embedded PostgreSQL with the tables of Arvados in a template database.

Each test or sandbox works on a clone of the template, which takes a fraction of the time of making
the tables anew. `postgres_binaries` says which PostgreSQL is run, and as whom.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from arvados_nats.errors import ConfigError, Unavailable
from sandbox import child, schema
from sandbox import postgres_binaries as binaries

TEMPLATE = "arvados_template"
OWNER = "arvados"
"""The role that owns the tables: what the API server logs in as."""

_START_SECONDS = 30.0
_PORTS = range(20_000, 32_000)
"""Below the range that Linux takes outgoing ports from, so that a restart finds its port free."""
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
_SETTINGS = (
    "listen_addresses=127.0.0.1",
    "timezone=UTC",
    "log_timezone=UTC",
    "max_connections=200",
    "shared_buffers=64MB",
    "max_wal_size=256MB",
    "logging_collector=off",
    "lc_messages=C",
)


@dataclass(frozen=True, slots=True)
class Database:
    """One clone of the template."""

    name: str
    dsn: str
    """As the owner of the tables, who may do everything in it."""
    reader_dsn: str
    """As the read-only role that the publishers are given."""


class PostgresServer:
    """One server that can be stopped and started again in place."""

    def __init__(self, folder: Path, *, durable: bool, password: str) -> None:
        self.folder = folder
        self.port = 0
        self._durable = durable
        self._password = password
        self._child: child.Child | None = None

    @property
    def pid(self) -> int:
        """The process id of the postmaster; `ConfigError` while it does not run."""
        if self._child is None or not self._child.running:
            raise ConfigError("PostgreSQL does not run")
        return self._child.pid

    def dsn(self, database: str = "postgres", role: str = OWNER) -> str:
        """Where to connect to a database, as this role."""
        return f"postgresql://{role}:{self._password}@127.0.0.1:{self.port}/{database}"

    async def start(self) -> None:
        """Start on a free port, or on the former one after `stop`; wait until it answers."""
        if not (self.folder / "PG_VERSION").exists():
            await asyncio.to_thread(binaries.initdb, self.folder, OWNER, self._password)
        candidates = [self.port] if self.port else random.sample(_PORTS, 20)
        for port in candidates:
            if _is_free(port) and await self._start_on(port):
                return
        raise Unavailable(f"PostgreSQL found no free port, or not {self.port} again")

    async def _start_on(self, port: int) -> bool:
        self.port = port
        options = [*_SETTINGS, f"port={port}", "unix_socket_directories="]
        options += () if self._durable else _FAST
        arguments = [part for option in options for part in ("-c", option)]
        command: list[str | Path] = [binaries.find() / "postgres", "-D", self.folder, *arguments]
        user = binaries.unprivileged_user()
        self._child = started = child.start(
            command,
            log=self.folder.parent / "postgres.log",
            user=(user.uid, user.gid) if user else None,
            environment={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
        )
        try:
            await child.ready(started, self._answers, _START_SECONDS)
        except Unavailable:
            if "could not bind" not in started.tail() and "in use" not in started.tail():
                raise
            return False
        return True

    async def stop(self) -> None:
        """Stop it in order; open connections are closed."""
        if self._child is not None:
            await self._child.stop(signal.SIGINT)

    async def kill(self) -> None:
        """End it at once with SIGKILL."""
        if self._child is not None:
            await self._child.kill()

    async def restart(self) -> None:
        """Stop it if it runs, and start it with the same port and data."""
        await self.stop()
        await self.start()

    async def clone(self, name: str | None = None) -> Database:
        """A new database with the tables of Arvados, empty."""
        name = name or f"arvados_{secrets.token_hex(6)}"
        await self._execute("postgres", f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        return self.database(name)

    def database(self, name: str) -> Database:
        """Where a clone made earlier is found."""
        return Database(name, self.dsn(name), self.dsn(name, schema.READER))

    async def drop(self, database: Database) -> None:
        """Remove a clone, and whoever is still connected to it."""
        await self._execute("postgres", f"DROP DATABASE IF EXISTS {database.name} WITH (FORCE)")

    async def ensure_template(self) -> None:
        """Make the template database and the reader's role, once for a data folder."""
        if await self._has_template():
            return
        password = self._password
        await self._execute("postgres", f"CREATE ROLE {schema.READER} LOGIN PASSWORD '{password}'")
        await self._execute("postgres", f"CREATE DATABASE {TEMPLATE}")
        await self._execute(TEMPLATE, *schema.statements(), *schema.grants())

    async def _has_template(self) -> bool:
        connection = await asyncpg.connect(self.dsn())
        try:
            found = await connection.fetchval(
                "SELECT 1 FROM pg_database WHERE datname = $1", TEMPLATE
            )
        finally:
            await connection.close()
        return bool(found)

    async def _execute(self, database: str, *statements: str) -> None:
        connection = await asyncpg.connect(self.dsn(database))
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def _answers(self) -> bool:
        try:
            connection = await asyncpg.connect(self.dsn(), timeout=5)
        except (OSError, asyncpg.CannotConnectNowError, TimeoutError):
            return False
        await connection.close()
        return True


@asynccontextmanager
async def run(
    *, folder: Path | None = None, durable: bool = False
) -> AsyncIterator[PostgresServer]:
    """A running server with the template made; without a `folder` its data goes when it stops.

    Without `durable` nothing waits for the disk: fast, and lost in a power cut.
    """
    place = folder or Path(tempfile.mkdtemp(prefix="arvados-nats-"))
    _hand_over(place)
    server = PostgresServer(place / "postgres", durable=durable, password=_password(place))
    try:
        await server.start()
        await server.ensure_template()
        yield server
    finally:
        await server.stop()
        if folder is None:
            await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)


def _hand_over(place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    user = binaries.unprivileged_user()
    if user is not None:
        place.chmod(place.stat().st_mode | 0o711)
        binaries.check_reachable(place)
        data = place / "postgres"
        data.mkdir(mode=0o700, exist_ok=True)
        os.chown(data, user.uid, user.gid)


def _password(place: Path) -> str:
    path = place / "postgres.password"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(16))
    return path.read_text()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
