# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One site for all hostile tests, and users for each."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandbox import nats_server as nats_sandbox
from sandbox import postgres as postgres_sandbox
from sandbox.cluster import Cluster
from sandbox.model.actors import Actor
from tests.support.worlds import site as sites
from tests.support.worlds.site import Site

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
async def site(
    postgres_server: postgres_sandbox.PostgresServer, keys_folder: Path
) -> AsyncIterator[Site]:
    """A site that lives as long as the test run."""
    database = await postgres_server.clone()
    async with (
        nats_sandbox.run(keys_folder) as server,
        sites.open_site(server, keys_folder, database) as opened,
    ):
        yield opened


@pytest.fixture
def cluster(site: Site) -> Cluster:
    """The pretend cluster."""
    return site.cluster


@pytest.fixture
async def alice(site: Site) -> Actor:
    """An active user whom no other test knows."""
    return await site.cluster.user(f"alice{next(_numbers)}")


@pytest.fixture
async def bob(site: Site) -> Actor:
    """Another active user."""
    return await site.cluster.user(f"bob{next(_numbers)}")
