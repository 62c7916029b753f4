# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Fixtures: all services as processes beside a pretend cluster, for many files or for one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from arvados_nats.nats.client import Nats
from sandbox import sandbox as whole_sandbox
from sandbox import stack as services
from sandbox.model.records import Record
from sandbox.sandbox import Sandbox
from sandbox.servers import backends
from sandbox.servers.postgres import PostgresServer
from sandbox.stack import Stack
from tests.support.clients.native_answers import trusted
from tests.support.worlds.shared_site import forget_running

HASTY = {
    "ARVADOS_NATS_LOG_POLL_SLOW_SECONDS": "1",
    "ARVADOS_NATS_LOG_SCAN_SECONDS": "0.5",
    "ARVADOS_NATS_LOG_CONFIRM_SECONDS": "3",
}
"""What nobody watches is looked at soon, too: most tests wait for a log."""


@asynccontextmanager
async def beside(sandbox: Sandbox, **environment: str) -> AsyncIterator[Stack]:
    """Publishers, callout service and proxy."""
    # Makes the docker image that everybody can read, which later would widen every login.
    somebody = await sandbox.cluster.user("somebody")
    await sandbox.cluster.container_request("first", owner=somebody, state="Uncommitted")
    async with services.beside(sandbox, **HASTY | environment) as running:
        yield running


@asynccontextmanager
async def on(
    backend: backends.Backend,
    postgres: PostgresServer,
    keys_folder: Path,
    certificates: Path,
    **environment: str,
) -> AsyncIterator[Stack]:
    """They, beside a cluster and a NATS server of their own."""
    async with (
        backends.run_nats(backend, keys_folder, websocket=True) as nats,
        whole_sandbox.on(postgres, nats, keys_folder, certificates) as sandbox,
        beside(sandbox, **environment) as running,
    ):
        yield running


@pytest.fixture(scope="package")
async def shared_stack(
    backend: backends.Backend,
    postgres_server: PostgresServer,
    keys_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Stack]:
    """All services beside a cluster that lives as long as the tests of the folder that imports it:
    what runs beside others for nothing takes their time."""
    certificates = tmp_path_factory.mktemp("tls")
    async with on(backend, postgres_server, keys_folder, certificates) as running:
        yield running


@pytest.fixture(scope="module")
async def stack(shared_stack: Stack) -> AsyncIterator[Stack]:
    """All services, and all of them run. A file that disturbs others has an `own_stack`."""
    for service in shared_stack.services.values():
        if service.process is None or not service.process.running:
            await service.start()
    yield shared_stack
    await forget_running(shared_stack.sandbox.cluster)
    services.require(shared_stack)


@pytest.fixture(scope="module")
async def own_stack(sandbox: Sandbox) -> AsyncIterator[Stack]:
    """All services for this file alone: NATS restarts, the queue is counted, thousands come."""
    async with beside(sandbox) as running:
        yield running
        services.require(running)


@pytest.fixture
async def nats(stack: Stack) -> AsyncIterator[Nats]:
    """A trusted connection, which reads every stream."""
    async with trusted(stack) as connection:
        yield connection


@pytest.fixture
async def container(stack: Stack) -> Record:
    """A container of somebody's that runs."""
    cluster = stack.sandbox.cluster
    request = await cluster.container_request("running", owner=await cluster.user("alice"))
    return await cluster.run(request)
