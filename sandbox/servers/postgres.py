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
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from arvados_nats.errors import ConfigError, Unavailable
from sandbox import ages, schema
from sandbox.servers import child, ports
from sandbox.servers import postgres_binaries as binaries

TEMPLATE = "arvados_template"
OWNER = "arvados"
"""The role that owns the tables: what the API server logs in as."""

_START_SECONDS = 60.0
_IN_THE_WAY = ("could not bind", "is still in use")
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
_SETTINGS = (
    "timezone=UTC",
    "log_timezone=UTC",
    "max_connections=200",
    "shared_buffers=64MB",
    "max_wal_size=256MB",
    "logging_collector=off",
    "lc_messages=C",
    "jit=off",  # tables without statistics look large, and queries of a few rows were compiled
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
        self._process: child.Process | None = None

    @property
    def pid(self) -> int:
        """The process id of the postmaster; `ConfigError` while it does not run."""
        if self._process is None or not self._process.running:
            raise ConfigError("PostgreSQL does not run")
        return self._process.pid

    def dsn(self, database: str = "postgres", role: str = OWNER) -> str:
        """Where to connect to a database, as this role."""
        return f"postgresql://{role}:{self._password}@127.0.0.1:{self.port}/{database}"

    async def start(self) -> None:
        """Start on a free port, or on the former one after `stop`; wait until it answers."""
        if not (self.folder / "PG_VERSION").exists():
            await asyncio.to_thread(binaries.initdb, self.folder, OWNER, self._password)
        if self.port:
            await self._start_again()
            return
        for port in ports.candidates():
            if await self._start_on(port):
                return
        raise Unavailable("PostgreSQL found no free port")

    async def _start_again(self) -> None:
        """Start on the former port, once what is left of a killed server has let go of it."""
        deadline = time.monotonic() + _START_SECONDS
        while not await self._start_on(self.port):
            if time.monotonic() > deadline:
                raise Unavailable(f"PostgreSQL cannot have port {self.port} again")

    async def _start_on(self, port: int) -> bool:
        self.port = port
        address = (f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=")
        arguments = arguments_of(*address, durable=self._durable)
        command: list[str | Path] = [binaries.find() / "postgres", "-D", self.folder, *arguments]
        user = binaries.unprivileged_user()
        self._process = started = child.start(
            command,
            log=self.folder.parent / "postgres.log",
            user=(user.uid, user.gid) if user else None,
            environment={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
        )
        try:
            await child.ready(started, self._answers, _START_SECONDS)
        except Unavailable:
            if any(said in started.tail() for said in _IN_THE_WAY):
                return False
            raise
        return True

    async def stop(self) -> None:
        """Stop it in order; open connections are closed."""
        if self._process is not None:
            await self._process.stop(signal.SIGINT)

    async def kill(self) -> None:
        """End it at once with SIGKILL."""
        if self._process is not None:
            await self._process.kill()

    async def restart(self) -> None:
        """Stop it if it runs, and start it with the same port and data."""
        await self.stop()
        await self.start()

    async def clone(self, name: str | None = None, *, age: str = ages.NEWEST) -> Database:
        """A new database with the tables of a release of Arvados, empty."""
        name = name or f"arvados_{secrets.token_hex(6)}"
        await self._execute("postgres", f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        await self._execute(name, *ages.to_older(age))
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
        except (OSError, TimeoutError, asyncpg.CannotConnectNowError):
            return False
        except asyncpg.InvalidPasswordError:  # somebody else's server took the port
            return False
        await connection.close()
        return True


def arguments_of(*options: str, durable: bool) -> list[str]:
    """The command line of `postgres` for these options and the ones that every server gets."""
    every = (*options, *_SETTINGS, *(() if durable else _FAST))
    return [part for option in every for part in ("-c", option)]


@asynccontextmanager
async def run(
    *, folder: Path | None = None, durable: bool = False
) -> AsyncIterator[PostgresServer]:
    """A running server with the template made; without a `folder` its data goes when it stops.

    Without `durable` nothing waits for the disk: fast, and lost in a power cut.
    """
    place = folder or Path(tempfile.mkdtemp(prefix="arvados-nats-"))
    _hand_over(place)
    server = PostgresServer(place / "postgres", durable=durable, password=password_of(place))
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


def password_of(place: Path) -> str:
    """The password of all roles, kept in a file of this folder."""
    path = place / "postgres.password"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(16))
    return path.read_text()
