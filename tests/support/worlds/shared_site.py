# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Fixtures for tests that share one site: it, with a publisher of container logs, and users."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from arvados_nats.service.ops import Health
from sandbox.cluster import Cluster
from sandbox.model.actors import Actor
from sandbox.servers import nats_server as nats_sandbox
from sandbox.servers import postgres as postgres_sandbox
from tests.support import log_replica
from tests.support.background import background
from tests.support.worlds import site as sites
from tests.support.worlds.newcomers import Newcomers
from tests.support.worlds.site import Site


@pytest.fixture(scope="package")
async def site(
    postgres_server: postgres_sandbox.PostgresServer, keys_folder: Path
) -> AsyncIterator[Site]:
    """A site that lives as long as the tests of the folder that imports it."""
    database = await postgres_server.clone()
    async with (
        nats_sandbox.run(keys_folder) as server,
        sites.open_site(server, keys_folder, database) as opened,
        publisher(opened),
    ):
        yield opened


@pytest.fixture(autouse=True)
async def left_running(site: Site) -> AsyncIterator[None]:
    """What a test leaves running is followed no longer than it runs."""
    yield
    await forget_running(site.cluster)


async def forget_running(cluster: Cluster) -> None:
    """No container is alive: each would be looked at again and again until the end of the run."""
    await cluster.pool.execute(
        "DELETE FROM containers WHERE state IN ('Queued', 'Locked', 'Running')"
    )


def publisher(site: Site) -> AbstractAsyncContextManager[object]:
    """One replica of the container log publisher."""
    place = log_replica.Place(
        nats_url=site.server.url,
        seed=(site.keys_folder / "publisher.nk").read_text().strip(),
        api_url=site.api.url,
        token=site.cluster.config.system_root_token,
        dsn=site.database.reader_dsn,
        fast=0.1,
        slow=0.5,
        confirm=2.5,
        give_up=4.0,
        push=1.0,
        scan=0.3,
    )
    return background(log_replica.publish(place, Health()))


@pytest.fixture
def cluster(site: Site) -> Cluster:
    """The pretend cluster."""
    return site.cluster


@pytest.fixture(scope="package")
def newcomers(site: Site) -> Newcomers:
    """Who makes the users of all tests."""
    return Newcomers(site.cluster)


@pytest.fixture
async def alice(newcomers: Newcomers) -> Actor:
    """An active user whom no other test knows."""
    return await newcomers.one()


@pytest.fixture
async def bob(newcomers: Newcomers) -> Actor:
    """Another active user."""
    return await newcomers.one()
