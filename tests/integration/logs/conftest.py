# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A sandbox cluster whose containers are run by hand, and the log hubs of one wsproxy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from arvados_nats.arvados.tokens import Token
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Nats
from arvados_nats.service import keys
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import Database
from tests.support import log_readers
from tests.support.worlds import logs as log_world
from wsproxy.logs.hubs import LogHubs
from wsproxy.logs.saved import Access


@pytest.fixture
async def world(
    nats_server: NatsServer, keys_folder: Path, database: Database
) -> AsyncIterator[log_world.World]:
    """A sandbox cluster with its API server."""
    async with log_world.open_world(nats_server, keys_folder, database) as world:
        yield world


@pytest.fixture
async def nats(nats_server: NatsServer, keys_folder: Path) -> AsyncIterator[Nats]:
    """wsproxy's own connection."""
    seed = keys.load(keys_folder, "wsproxy").text
    async with nats_client.connect([nats_server.url], name="wsproxy", seed=seed) as nats:
        yield nats


@pytest.fixture
async def hubs(nats: Nats, world: log_world.World) -> AsyncIterator[LogHubs]:
    """The hubs of one wsproxy."""
    async with log_world.proxy(nats, world) as hubs:
        yield hubs
        await log_readers.all_stopped()


@pytest.fixture
def access(world: log_world.World) -> Access:
    """The administrator's."""
    return Access(Token(world.cluster.config.system_root_token))
