# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One request on its way to its handler, and what handlers work with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from starlette.datastructures import Headers

from sandbox.api.callers import Caller
from sandbox.api.faults import Faults
from sandbox.api.parameters import Parameters
from sandbox.api.queries import tables
from sandbox.api.queries.tables import Table
from sandbox.cluster import Cluster
from sandbox.logs.container_logs import ContainerLogs
from sandbox.model.records import Row
from sandbox.model.refusal import not_logged_in


@dataclass(slots=True)
class Backend:
    """What the API server stands on. `websocket_url` is what the discovery document tells."""

    pool: asyncpg.Pool
    cluster: Cluster
    logs: ContainerLogs
    tables: Mapping[str, Table]
    management_token: str | None = None
    websocket_url: str | None = None
    remote_hosts: dict[str, str] = field(default_factory=dict)
    login_token: str | None = None
    """Whom a login page would find: the token that `/login` leads back with."""
    trusted_clients: set[str] = field(default_factory=set)
    """Origins to which it leads back."""
    faults: Faults = field(default_factory=Faults)

    async def rows(self, query: str, *values: Any) -> list[Row]:
        """All rows that a query answers."""
        return [dict(row) for row in await self.pool.fetch(query, *values)]

    async def row(self, query: str, *values: Any) -> Row | None:
        """The first row that a query answers."""
        row = await self.pool.fetchrow(query, *values)
        return dict(row) if row is not None else None

    async def value(self, query: str, *values: Any) -> Any:
        """The first column of the first row."""
        return await self.pool.fetchval(query, *values)


async def backend(cluster: Cluster, *, management_token: str | None = None) -> Backend:
    """What an API server of this cluster stands on."""
    found = await tables.read(cluster.pool)
    return Backend(cluster.pool, cluster, cluster.logs, found, management_token)


@dataclass(slots=True)
class Call:
    """One request. `resource` is the REST collection, `uuid` what follows it in the path."""

    backend: Backend
    method: str
    path: str
    headers: Headers
    parameters: Parameters
    host: str
    resource: str = ""
    uuid: str = ""
    _caller: Caller | None = None

    @property
    def caller(self) -> Caller:
        """Who asks; `Refusal` 401 when there is no valid token."""
        if self._caller is None:
            raise not_logged_in()
        return self._caller

    @property
    def table(self) -> Table:
        """The table behind the REST collection."""
        return self.backend.tables[self.resource]

    def identify(self, caller: Caller | None) -> None:
        """Remember who asks."""
        self._caller = caller
