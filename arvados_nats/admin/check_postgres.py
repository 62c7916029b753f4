# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whether PostgreSQL is one that events can be heard from: a part of `check connections`.

Not a standby, not behind a pooler by transaction, and what one connection notifies another hears;
it has what the publishers read, and they may read it (`arvados_tables`).
"""

from __future__ import annotations

import asyncio
import secrets
import time

import asyncpg

from arvados_nats.admin import clocks
from arvados_nats.admin.check_connections import Findings, Note
from arvados_nats.errors import ArvadosNatsError, ConfigError
from arvados_nats.postgres import arvados_tables
from arvados_nats.postgres import primary as postgres_primary
from arvados_nats.postgres.arvados_tables import Found
from arvados_nats.postgres.errors import NO_POOLER, translate
from arvados_nats.postgres.primary import Hosts

_HEARD_WITHIN_SECONDS = 5.0
_CLOCK, _TABLES = "clock of PostgreSQL", "tables of Arvados"


async def check(dsn: str) -> Findings:
    """`dsn` is a URL or a libpq connection string."""
    found: Findings = {"PostgreSQL": None}
    try:
        with translate():
            found |= await _look(Hosts(dsn))
    except ArvadosNatsError as error:
        found["PostgreSQL"] = str(error).removeprefix("PostgreSQL: ")
    return found


async def _look(hosts: Hosts) -> Findings:
    """What is wrong with tables and clock; ConfigError for what is wrong with the connection."""
    connection = await hosts.connect()
    try:
        await postgres_primary.require(connection, hosts)
        await _require_hearing(connection, hosts)
        asked = time.time()  # noqa: TID251  (clocks are compared)
        theirs = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
        answered = time.time()  # noqa: TID251
        row = await connection.fetchrow(arvados_tables.LOOK, *arvados_tables.LOOK_ARGUMENTS)
        return {
            _TABLES: _of_tables(arvados_tables.found(dict(row or {}))),
            _CLOCK: clocks.wrong(clocks.ahead(asked, theirs, answered)),
        }
    finally:
        await postgres_primary.close(connection)


def _of_tables(found: Found) -> str | None:
    if lacks := arvados_tables.lacks(found):
        return "; ".join(lacks)
    older = arvados_tables.older(found)
    return Note("; ".join(older)) if older else None


async def _require_hearing(connection: asyncpg.Connection, hosts: Hosts) -> None:
    heard = asyncio.Event()
    channel = f"arvados_nats_check_{secrets.token_hex(4)}"
    await connection.add_listener(channel, lambda *_: heard.set())
    other = await hosts.connect()
    try:
        await other.execute(f"NOTIFY {channel}")
        async with asyncio.timeout(_HEARD_WITHIN_SECONDS):
            await heard.wait()
    except TimeoutError as error:
        raise ConfigError(NO_POOLER) from error
    finally:
        await postgres_primary.close(other)
