# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One site for all tests of v0, and users of its own for each test."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandbox import nats_server as nats_sandbox
from sandbox import postgres as postgres_sandbox
from sandbox.model.actors import Actor
from tests.v0 import site as sites
from tests.v0.client import Api, api, settled
from tests.v0.site import Site

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


async def _user(site: Site, name: str, *, admin: bool = False) -> Actor:
    """A new user, all events about whom are out already."""
    made = await site.cluster.user(f"{name}{next(_numbers)}", admin=admin)
    return await settled(site.websocket_url, site.api.url, made)


@pytest.fixture
async def active(site: Site) -> Actor:
    """An active user whom no other test knows."""
    return await settled(
        site.websocket_url, site.api.url, await site.cluster.user(f"active{next(_numbers)}")
    )


@pytest.fixture
async def spectator(site: Site) -> Actor:
    """Another active user."""
    return await settled(
        site.websocket_url, site.api.url, await site.cluster.user(f"spectator{next(_numbers)}")
    )


@pytest.fixture
async def admin(site: Site) -> Actor:
    """An admin."""
    return await settled(
        site.websocket_url,
        site.api.url,
        await site.cluster.user(f"admin{next(_numbers)}", admin=True),
    )


@pytest.fixture
async def active_api(site: Site, active: Actor) -> AsyncIterator[Api]:
    """The API with the active user's token."""
    async with api(site.api.url, active.token) as opened:
        yield opened


@pytest.fixture
async def admin_api(site: Site, admin: Actor) -> AsyncIterator[Api]:
    """The API with the admin's token."""
    async with api(site.api.url, admin.token) as opened:
        yield opened
