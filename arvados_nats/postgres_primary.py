# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A connection straight to the PostgreSQL that Arvados writes to, or the reason why it is none.

LISTEN and advisory locks need one. The publishers rely on it, and `arvados-nats check connections`
looks for the same faults by the same means. Callers translate what asyncpg raises
(`postgres_errors.translate`).
"""

from __future__ import annotations

import contextlib

import asyncpg

from arvados_nats.errors import ConfigError
from arvados_nats.postgres_errors import DOWN, NO_POOLER

CONNECT_TIMEOUT = 10.0
STATEMENT_TIMEOUT = 60.0
_SAME_BACKEND_TRIES = 5

_NO_STANDBY = "postgres_dsn: the server is a hot standby, where nobody can LISTEN; give the primary"


async def connect(url: str) -> asyncpg.Connection:
    """One connection, to whatever is at the address."""
    connection: asyncpg.Connection = await asyncpg.connect(
        url,
        timeout=CONNECT_TIMEOUT,
        command_timeout=STATEMENT_TIMEOUT,
        server_settings={"application_name": "arvados-nats"},
    )
    return connection


async def close(connection: asyncpg.Connection) -> None:
    """Within a second, whatever the other side does."""
    with contextlib.suppress(*DOWN):
        await connection.close(timeout=1)


async def require(connection: asyncpg.Connection, url: str) -> None:
    """ConfigError unless the connection leads to the primary, and past any pooler by transaction.

    A pooler answers with a process id of its own; one that pools by transaction serves two of its
    clients, each with an open connection, from one process of PostgreSQL.
    """
    if await connection.fetchval("SELECT pg_is_in_recovery()"):
        raise ConfigError(_NO_STANDBY)
    ask = "SELECT pg_backend_pid()"
    if await connection.fetchval(ask) == connection.get_server_pid():
        return
    other = await connect(url)
    try:
        for _ in range(_SAME_BACKEND_TRIES):
            if await connection.fetchval(ask) == await other.fetchval(ask):
                raise ConfigError(NO_POOLER)
    finally:
        await close(other)
