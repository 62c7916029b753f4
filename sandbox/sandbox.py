# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A whole pretend cluster: PostgreSQL, NATS, the writes of Arvados, its API over HTTP and TLS.

What the demo, the flow tests and the benchmarks stand on. The product's own services are not
started here: `Sandbox.environment` is what they need to be told.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from arvados_nats.service import keys
from sandbox import ages
from sandbox.api import calls
from sandbox.api.app import ApiApp
from sandbox.cluster import Cluster, open_cluster
from sandbox.model.config import ClusterConfig
from sandbox.servers import api_server, backends, tls
from sandbox.servers.api_server import ApiServer
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import Database, PostgresServer
from sandbox.servers.tls import Certificates

MANAGEMENT_TOKEN = "sandboxmanagementtokensandboxmanagementtoken"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What runs, and where it is found."""

    postgres: PostgresServer
    database: Database
    nats: NatsServer
    keys_folder: Path
    cluster: Cluster
    backend: calls.Backend
    """The API's inside: counters and faults (`backend.faults`), `backend.websocket_url`."""
    api: ApiServer
    """Over HTTP."""
    api_tls: ApiServer
    """Over TLS: what ARVADOS_API_HOST names."""
    certificates: Certificates

    def seed(self, name: str) -> str:
        """The nkey seed of one of our identities, e.g. `publisher`."""
        return str(keys.load(self.keys_folder, name).text)

    def advertise(self, websocket_url: str) -> None:
        """Let the discovery document send clients to this websocket server."""
        self.backend.websocket_url = websocket_url

    @property
    def environment(self) -> dict[str, str]:
        """What the product's services read from their environment."""
        return {
            "ARVADOS_API_HOST": self.api_tls.host,
            "ARVADOS_NATS_ARVADOS_CA_FILE": str(self.certificates.authority),
            "ARVADOS_NATS_KEYS_DIR": str(self.keys_folder),
            "ARVADOS_NATS_MANAGEMENT_TOKEN": MANAGEMENT_TOKEN,
            "ARVADOS_NATS_NATS_URL": self.nats.url,
            "ARVADOS_NATS_POSTGRES_DSN": self.database.reader_dsn,
        }

    def client_environment(self, token: str) -> dict[str, str]:
        """What Arvados' own clients read from theirs, to work with this token."""
        return {
            "ARVADOS_API_HOST": self.api_tls.host,
            "ARVADOS_API_TOKEN": token,
            "SSL_CERT_FILE": str(self.certificates.authority),
        }


@asynccontextmanager
async def run(
    *, backend: backends.Backend = backends.Backend.AUTO, config: ClusterConfig | None = None
) -> AsyncIterator[Sandbox]:
    """Start everything, in a temporary folder that goes with it."""
    chosen = backends.choose(
        backend, programs=backends.programs_are_there, engine=backends.engine_answers
    )
    with tempfile.TemporaryDirectory(prefix="arvados-nats-") as place:
        folder = Path(place)
        keys.ensure(folder / "keys")
        async with (
            backends.run_postgres(chosen) as postgres,
            backends.run_nats(chosen, folder / "keys", websocket=True) as nats,
            on(postgres, nats, folder / "keys", folder / "tls", config=config) as sandbox,
        ):
            yield sandbox


@asynccontextmanager
async def on(
    postgres: PostgresServer,
    nats: NatsServer,
    keys_folder: Path,
    tls_folder: Path,
    *,
    config: ClusterConfig | None = None,
) -> AsyncIterator[Sandbox]:
    """A cluster of its own, with its API, on servers that run already."""
    certificates = tls.make(tls_folder)
    database = await postgres.clone(age=config.release if config else ages.NEWEST)
    try:
        async with open_cluster(database.dsn, config) as cluster:
            backend = await calls.backend(cluster, management_token=MANAGEMENT_TOKEN)
            files = (certificates.certificate, certificates.key)
            async with (
                api_server.run(ApiApp(backend)) as api,
                api_server.run(ApiApp(backend), certificate=files) as api_tls,
            ):
                yield Sandbox(
                    postgres=postgres,
                    database=database,
                    nats=nats,
                    keys_folder=keys_folder,
                    cluster=cluster,
                    backend=backend,
                    api=api,
                    api_tls=api_tls,
                    certificates=certificates,
                )
    finally:
        await postgres.drop(database)
