# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A whole site on this machine: cluster, API, NATS, both publishers and a wsproxy.

Tests of tests/v0 use of it only the cluster, the API and the address of the WebSocket server, so
that they can run against arvados-ws on the same cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from arvados_nats.contract import streams
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Nats
from arvados_nats.service import http_server, keys
from arvados_nats.service.ops import Health
from bench.peers import arvados_ws
from publishers.events import publisher as event_publisher
from publishers.events.event_source import Scans
from publishers.permissions import publisher as permission_publisher
from publishers.postgres import database as postgres
from sandbox.api import calls
from sandbox.api.app import ApiApp
from sandbox.api.calls import Backend
from sandbox.cluster import Cluster, open_cluster
from sandbox.sandbox import MANAGEMENT_TOKEN, Sandbox
from sandbox.servers import api_server
from sandbox.servers.api_server import ApiServer
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import Database
from tests.support.background import background
from wsproxy import main as wsproxy
from wsproxy.settings import Settings

SCANS = Scans(near_every=0.5, middle_every=1.0, wide_every=5.0, wide=timedelta(hours=2))


@dataclass(slots=True)
class Site:
    """What runs. `websocket_url` has no query string yet: `ws://host:port/websocket`."""

    cluster: Cluster
    api: ApiServer
    backend: Backend
    websocket_url: str
    nats: Nats
    server: NatsServer
    database: Database
    keys_folder: Path
    health: Health = field(default_factory=Health)

    @property
    def http_url(self) -> str:
        """Where the same server answers plain HTTP."""
        return self.websocket_url.replace("ws", "http", 1).removesuffix("/websocket")


@contextlib.asynccontextmanager
async def publishing(
    nats: Nats, database: Database, health: Health, *, permissions: bool = True
) -> AsyncIterator[None]:
    """The event publisher, and the permission publisher unless it is to be missing."""
    grants_lead = asyncio.Event()
    options = event_publisher.Options(scans=SCANS, fresh_start=timedelta(hours=1))
    async with contextlib.AsyncExitStack() as stack:
        reader = await stack.enter_async_context(postgres.connect(database.reader_dsn))
        await streams.ensure(nats, streams.event_stream(options.limits))
        await stack.enter_async_context(
            background(event_publisher.run(nats, reader, health, options))
        )
        if permissions:
            await stack.enter_async_context(
                background(
                    permission_publisher.run(
                        nats,
                        reader,
                        health,
                        permission_publisher.Options(
                            role_groups_visible=True, sweep=0.3, round=2.0
                        ),
                        ready=grants_lead.set,
                    )
                )
            )
            await asyncio.wait_for(grants_lead.wait(), 60)
        yield


def settings(place: Site | Sandbox, **changes: Any) -> Settings:
    """Settings of a wsproxy there."""
    server = place.nats if isinstance(place, Sandbox) else place.server
    given: dict[str, Any] = {
        "nats_url": server.url,
        "keys_dir": place.keys_folder,
        "arvados_api_host": place.api.url,
        "management_token": MANAGEMENT_TOKEN,
        "listen": "127.0.0.1:0",
        "drain_seconds": 0.1,
    }
    return Settings(**{**given, **changes})


@contextlib.asynccontextmanager
async def serving(
    chosen: Settings, seen: Callable[[Any], None] = lambda _: None
) -> AsyncIterator[str]:
    """A wsproxy in this process; the base of its WebSocket URLs. `seen` gets its services."""
    sock = http_server.listen(chosen.listen)
    host, port = sock.getsockname()[:2]
    ready = asyncio.Event()

    def started(shared: Any) -> None:
        seen(shared)
        ready.set()

    async with background(wsproxy.serve(chosen, sock, started)):
        await asyncio.wait_for(ready.wait(), 60)
        yield f"ws://{host}:{port}"


@contextlib.asynccontextmanager
async def beside(
    sandbox: Sandbox, *, permissions: bool = True, **changes: Any
) -> AsyncIterator[Site]:
    """Both publishers and a wsproxy with these settings, beside a sandbox."""
    async with contextlib.AsyncExitStack() as stack:
        site = await stack.enter_async_context(_site(sandbox))
        await stack.enter_async_context(
            publishing(site.nats, sandbox.database, site.health, permissions=permissions)
        )
        base = await stack.enter_async_context(serving(settings(sandbox, **changes)))
        site.websocket_url = sandbox.backend.websocket_url = f"{base}/websocket"
        yield site


@contextlib.asynccontextmanager
async def with_arvados_ws(sandbox: Sandbox, folder: Path) -> AsyncIterator[Site]:
    """The real arvados-ws in the place of our services."""
    async with _site(sandbox) as site, arvados_ws.run(sandbox, folder) as server:
        host, port = server.address
        site.websocket_url = f"ws://{host}:{port}/websocket"
        yield site


@contextlib.asynccontextmanager
async def _site(sandbox: Sandbox) -> AsyncIterator[Site]:
    seed = sandbox.seed("publisher")
    async with nats_client.connect([sandbox.nats.url], name="site", seed=seed) as nats:
        yield Site(
            sandbox.cluster,
            sandbox.api,
            sandbox.backend,
            "",
            nats,
            sandbox.nats,
            sandbox.database,
            sandbox.keys_folder,
        )


@contextlib.asynccontextmanager
async def open_site(
    server: NatsServer, keys_folder: Path, database: Database, **changes: Any
) -> AsyncIterator[Site]:
    """A site on a database and a NATS server that run already; its API is over HTTP alone."""
    async with contextlib.AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(open_cluster(database.dsn))
        backend = await calls.backend(cluster)
        api = await stack.enter_async_context(api_server.run(ApiApp(backend)))
        seed = keys.load(keys_folder, "publisher").text
        nats = await stack.enter_async_context(
            nats_client.connect([server.url], name="site", seed=seed)
        )
        site = Site(cluster, api, backend, "", nats, server, database, keys_folder)
        await stack.enter_async_context(publishing(nats, database, site.health))
        base = await stack.enter_async_context(serving(settings(site, **changes)))
        site.websocket_url = f"{base}/websocket"
        yield site
