# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A database by its owner and by the publishers' own role, and worlds that stand on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from publishers.postgres import database as postgres
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import Database
from tests.support.worlds import events, permissions
from tests.support.worlds.events import EventWorld
from tests.support.worlds.permissions import PermissionWorld


@pytest.fixture
async def writer(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """The owner of the tables."""
    connection = await asyncpg.connect(database.dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def reader(database: Database) -> AsyncIterator[postgres.Database]:
    """The edge, as the publishers' own role."""
    async with postgres.connect(database.reader_dsn) as opened:
        yield opened


@pytest.fixture
async def here(
    database: Database, fresh_nats: NatsServer, keys_folder: Path
) -> AsyncIterator[PermissionWorld]:
    """A world of this test alone."""
    async with permissions.world(database, fresh_nats, keys_folder) as made:
        yield made


@pytest.fixture
async def scene(
    database: Database, fresh_nats: NatsServer, keys_folder: Path
) -> AsyncIterator[EventWorld]:
    """A world of this test alone, without a publisher until the test starts one."""
    async with events.world(database, fresh_nats, keys_folder) as made:
        yield made
