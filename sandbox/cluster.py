# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The pretend Arvados cluster: its database, the rules of its writes, and who acts.

Used by the HTTP API of the sandbox, by tests, the demo and bench/. Writes go through
`sandbox.model`; every call is one transaction with its log rows and NOTIFYs, unless made on the
handle that `transaction` gives.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg
import msgspec

from sandbox import ages
from sandbox.fixtures import Scenes
from sandbox.logs.container_logs import ContainerLogs
from sandbox.model import actors, records, seeds
from sandbox.model.actors import Actor
from sandbox.model.config import ClusterConfig
from sandbox.model.crunch.container_requests import ContainerRequestRules
from sandbox.model.crunch.containers import ContainerRules
from sandbox.model.database import Connection
from sandbox.model.derived import permission_table
from sandbox.model.kinds import other_kinds, tokens
from sandbox.model.kinds.collections import CollectionRules
from sandbox.model.kinds.groups import GroupRules
from sandbox.model.kinds.links import LinkRules
from sandbox.model.kinds.posted_logs import LogRules
from sandbox.model.kinds.tokens import TokenRules
from sandbox.model.kinds.users import UserRules
from sandbox.model.records import Table
from sandbox.model.refusal import raised
from sandbox.model.rules import Rules
from sandbox.model.unit_of_work import Unit
from sandbox.runs import Runs
from sandbox.writes import Writes

_COLUMNS = """
SELECT table_name, column_name, data_type FROM information_schema.columns
WHERE table_schema = 'public' ORDER BY table_name, ordinal_position
"""


def _rules() -> dict[str, Rules]:
    return {
        "group": GroupRules(),
        "link": LinkRules(),
        "user": UserRules(),
        "collection": CollectionRules(),
        "container_request": ContainerRequestRules(),
        "container": ContainerRules(),
        "api_client_authorization": TokenRules(),
        "log": LogRules(),
        **other_kinds.all_rules(),
    }


class Transaction(Writes, Scenes, Runs):
    """Writes of one open transaction; nothing is seen or told before it is committed."""

    def __init__(self, cluster: Cluster, connection: Connection) -> None:
        self._cluster = cluster
        self.connection = connection
        self.logs = cluster.logs
        self.root = cluster.root

    @asynccontextmanager
    async def unit(self, actor: Actor) -> AsyncIterator[Unit]:
        """A unit in this transaction."""
        yield await self._cluster.unit_on(self.connection, actor)


class Cluster(Writes, Scenes, Runs):
    """One cluster on one database."""

    def __init__(
        self, pool: asyncpg.Pool, config: ClusterConfig, tables: Mapping[str, Table], root: Actor
    ) -> None:
        self.pool = pool
        self.config = config
        self.tables = tables
        self.root = root
        """The system user with SystemRootToken."""
        self.logs = ContainerLogs()
        """The bytes of container logs, which no table holds."""
        self.known_elsewhere: set[str] = set()
        """Uuids of tokens of other clusters, as long as those know them."""
        self._rules = _rules()

    async def migrate(self, release: str) -> None:
        """Become a newer release of Arvados, while others read and write."""
        async with self.pool.acquire() as connection:
            for statement in ages.to_newer(self.config.release, release):
                await connection.execute(statement)
        await self.pool.expire_connections()  # statements that they have prepared
        self.config = replace(self.config, release=release)
        self.tables = records.tables_from(await self.pool.fetch(_COLUMNS))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Several writes in one transaction, held open as long as the block lasts."""
        try:
            async with self.pool.acquire() as connection, connection.transaction():
                yield Transaction(self, connection)
        except asyncpg.UniqueViolationError as error:
            text = f"PG::UniqueViolation: ERROR:  {error.message}\nDETAIL:  {error.detail}\n"
            raise raised("ActiveRecord::RecordNotUnique", text) from error

    @asynccontextmanager
    async def unit(self, actor: Actor) -> AsyncIterator[Unit]:
        """A unit in a transaction of its own."""
        async with self.transaction() as transaction:
            yield await self.unit_on(transaction.connection, actor)

    async def unit_on(self, connection: Connection, actor: Actor) -> Unit:
        """A unit on this connection, with what the actor's user may do now."""
        fresh = await _refreshed(connection, actor) if actor is not self.root else actor
        return Unit(connection, self.tables, self._rules, self.config, fresh, self.root)

    async def authenticate(self, token: str, remote: str | None = None) -> Actor:
        """Who acts with a token; raises Refusal 401."""
        async with self.pool.acquire() as connection:
            return await tokens.authenticate(
                connection, self.config, token, remote, self.known_elsewhere
            )


async def _refreshed(connection: Connection, actor: Actor) -> Actor:
    row = await connection.fetchrow("SELECT is_admin, is_active FROM users WHERE id = $1", actor.id)
    if row is None:
        return actor
    return replace(actor, is_admin=bool(row["is_admin"]), is_active=bool(row["is_active"]))


async def _prepare_connection(connection: Connection) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(
            name, schema="pg_catalog", encoder=records.dump, decoder=msgspec.json.decode
        )


@asynccontextmanager
async def open_cluster(dsn: str, config: ClusterConfig | None = None) -> AsyncIterator[Cluster]:
    """The cluster on a database that has Arvados' tables; what every cluster has is created."""
    settings = config or ClusterConfig()
    async with asyncpg.create_pool(dsn, min_size=1, max_size=8, init=_prepare_connection) as pool:
        await pool.execute(other_kinds.DDL)
        await pool.execute(permission_table.VIEW)
        tables = records.tables_from(await pool.fetch(_COLUMNS))
        cluster = Cluster(pool, settings, tables, actors.system(settings, 0))
        async with cluster.unit(cluster.root) as unit:
            await seeds.sow(unit)
        root_id = await pool.fetchval("SELECT id FROM users WHERE uuid = $1", settings.system_user)
        cluster.root = actors.system(settings, root_id)
        yield cluster
