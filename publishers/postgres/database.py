# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Arvados' database, read only: the one place that knows asyncpg and its exceptions.

A `Database` is a small pool for reading. A `Session` is one connection that stays: it hears NOTIFY
and holds an advisory lock, and whoever relies on either works inside `Session.guard`, which ends
when the connection does. Everything here works or raises Unavailable (try again), BadInput (this
statement will never work) or ConfigError.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg

from arvados_nats.errors import Unavailable
from arvados_nats.postgres import primary as postgres_primary
from arvados_nats.postgres.errors import DOWN, MISSING, translate
from arvados_nats.postgres.primary import STATEMENT_TIMEOUT, Hosts
from publishers.postgres import codecs as postgres_codecs
from publishers.postgres.columns import Columns

logger = logging.getLogger(__name__)

_HEARTBEAT = 4.0
"""Seconds between two questions to a session, and for each answer."""
_IDLE = 10.0
"""A connection of the pool that was not used for so long is closed, so that none is found dead."""
_RELEASE = 3.0
_CLOCK = "SELECT clock_timestamp() AT TIME ZONE 'UTC'"

Row = asyncpg.Record


class Session:
    """One connection that stays; get it from `Database.session`."""

    def __init__(
        self, connection: asyncpg.Connection, on_silent: Callable[[], None] = lambda: None
    ) -> None:
        self._connection = connection
        self._on_lost: Callable[[str], None] | None = None
        self._on_silent = on_silent
        self._turn = asyncio.Lock()
        connection.add_termination_listener(lambda _: self.end())

    @property
    def backend_pid(self) -> int:
        """Process id of the server process, as pg_stat_activity shows it."""
        pid: int = self._connection.get_server_pid()
        return pid

    async def listen(self, channel: str, heard: Callable[[str], None]) -> None:
        """Call `heard(payload)` for each NOTIFY on the channel, from now on."""
        with translate():
            async with self._turn:
                await self._connection.add_listener(channel, lambda _c, _p, _n, text: heard(text))

    async def clock(self) -> datetime:
        """PostgreSQL's clock (UTC, no zone). Whatever was committed before has been heard by now:
        the server sends what it has to notify before it answers."""
        moment: datetime = await self.ask(_CLOCK)
        return moment

    async def try_lock(self, key: int) -> bool:
        """Take the advisory lock, if nobody has it, for as long as the connection stands."""
        return bool(await self.ask("SELECT pg_try_advisory_lock($1::bigint)", key))

    async def ask(self, sql: str, *arguments: Any) -> Any:
        """One value; whoever says nothing in time is taken for gone."""
        with translate():
            async with self._turn:
                try:
                    return await self._connection.fetchval(sql, *arguments, timeout=_HEARTBEAT)
                except TimeoutError:
                    self._on_silent()
                    self._connection.terminate()
                    raise

    @asynccontextmanager
    async def guard(self) -> AsyncIterator[None]:
        """Do the body while the connection stands: when it dies, the body is cancelled and
        Unavailable raised."""
        lost = ""
        try:
            async with asyncio.timeout(None) as scope:

                def cancel_body(why: str) -> None:
                    nonlocal lost
                    lost = lost or why
                    scope.reschedule(0)  # a deadline long past: the body is cancelled at once

                self._on_lost = cancel_body
                if self._connection.is_closed():
                    self.end()
                heartbeat = asyncio.create_task(self._heartbeat())
                try:
                    yield
                finally:
                    heartbeat.cancel()
        except TimeoutError as error:
            if not lost:
                raise
            raise Unavailable(lost) from error
        finally:
            self._on_lost = None

    def end(self, why: str = "PostgreSQL: the session was lost") -> None:
        """Cancel what is done under the guard."""
        if self._on_lost:
            self._on_lost(why)

    async def _heartbeat(self) -> None:
        """Notice a connection that is dead without having been closed."""
        while True:
            await asyncio.sleep(_HEARTBEAT)
            try:
                await self.ask("SELECT 1")
            except Unavailable:
                self._connection.terminate()
                self.end()
                return


class Snapshot:
    """Statements that all see one state of the database; get it from `Database.snapshot`."""

    def __init__(self, connection: asyncpg.pool.PoolConnectionProxy[Row]) -> None:
        self._connection = connection

    async def fetch(self, sql: str, *arguments: Any) -> Sequence[Row]:
        """Rows of one statement."""
        with translate():
            rows: Sequence[Row] = await self._connection.fetch(sql, *arguments)
            return rows


class Database:
    """A pool of connections; get it from `connect`."""

    def __init__(self, pool: asyncpg.Pool, hosts: Hosts, made: set[asyncpg.Connection]) -> None:
        self._pool = pool
        self._hosts = hosts
        self._made = made
        self.columns = Columns(self._look)

    async def fetch(
        self, sql: str, *arguments: Any, timeout: float = STATEMENT_TIMEOUT
    ) -> Sequence[Row]:
        """Rows of one statement."""
        async with self._named(), self._taken() as connection:
            rows: Sequence[Row] = await connection.fetch(sql, *arguments, timeout=timeout)
            return rows

    async def fetch_value(
        self, sql: str, *arguments: Any, timeout: float = STATEMENT_TIMEOUT
    ) -> Any:
        """First column of the first row, or None."""
        async with self._named(), self._taken() as connection:
            return await connection.fetchval(sql, *arguments, timeout=timeout)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        """Several statements on one state of the database, for as long as the body runs."""
        async with (
            self._named(),
            self._taken() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield Snapshot(connection)

    @asynccontextmanager
    async def _taken(self) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy[Row]]:
        """A connection of the pool, which is given up if a statement on it is cut short.

        asyncpg would first wait for the server to agree, and a silent one never does.
        """
        with translate():
            connection = await self._pool.acquire(timeout=STATEMENT_TIMEOUT)
            try:
                yield connection
            except (asyncio.CancelledError, TimeoutError):
                connection.terminate()
                raise
            finally:
                await self._pool.release(connection, timeout=_RELEASE)

    @asynccontextmanager
    async def _named(self) -> AsyncIterator[None]:
        """A statement that fails for want of a column, a table or a right names it, and what mends
        it."""
        try:
            yield
        except Unavailable as error:
            if not isinstance(error.__cause__, MISSING):
                raise
            raise Unavailable(await self.columns.lacking() or str(error)) from error

    async def _look(self, sql: str, *arguments: Any) -> Sequence[Row]:
        async with self._taken() as connection:
            rows: Sequence[Row] = await connection.fetch(sql, *arguments)
            return rows

    def _give_up_all(self) -> None:
        """The way to PostgreSQL is silent: end what waits for an answer, and begin anew."""
        for connection in tuple(self._made):
            connection.terminate()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A connection of its own, straight to the primary; ConfigError if it is neither."""
        with translate():
            connection = await self._hosts.connect(stays=True)
        try:
            with translate():
                await postgres_primary.require(connection, self._hosts)
            yield Session(connection, self._give_up_all)
        finally:
            await postgres_primary.close(connection)


@asynccontextmanager
async def connect(dsn: str | Callable[[], str], *, size: int = 4) -> AsyncIterator[Database]:
    """A pool of at most `size` connections, made when they are needed: PostgreSQL may be down now.

    `dsn` is a URL or a libpq connection string, or gives one for each connection; ConfigError if
    it is neither.
    """
    hosts, made = Hosts(dsn), set[asyncpg.Connection]()

    async def make(*_: Any, **options: Any) -> asyncpg.Connection:
        connection = await hosts.connect(**options)
        made.add(connection)
        connection.add_termination_listener(made.discard)
        return connection

    with translate():
        pool = await asyncpg.create_pool(
            min_size=0,
            max_size=size,
            max_inactive_connection_lifetime=_IDLE,
            connect=make,
            init=postgres_codecs.install,
            reset=_leave_as_it_is,
        )
    try:
        yield Database(pool, hosts, made)
    finally:
        try:
            async with asyncio.timeout(2):
                await pool.close()
        except DOWN:
            pool.terminate()


async def _leave_as_it_is(_: asyncpg.Connection) -> None:
    """These connections only read: asyncpg's round trip after each use has nothing to undo."""
