# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One site for all tests of v0, and users of its own for each test."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandbox import sandbox as sandboxes
from sandbox.model.actors import Actor
from sandbox.servers import nats_server as nats_sandbox
from sandbox.servers import postgres as postgres_sandbox
from tests.support.clients.v0 import Api, api, settled
from tests.support.worlds import site as sites
from tests.support.worlds.newcomers import Newcomers
from tests.support.worlds.site import Site

THEIRS = os.environ.get("V0_SERVER") == "arvados-ws"


def pytest_configure(config: pytest.Config) -> None:
    """Say what `ours` means."""
    config.addinivalue_line("markers", "ours(why): not run with V0_SERVER=arvados-ws")


@pytest.fixture(scope="package")
async def site(
    postgres_server: postgres_sandbox.PostgresServer,
    keys_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Site]:
    """A site for the tests of this folder; its server is what `V0_SERVER` names."""
    folder = tmp_path_factory.mktemp("v0")
    async with (
        nats_sandbox.run(keys_folder) as nats,
        sandboxes.on(postgres_server, nats, keys_folder, folder / "tls") as sandbox,
        sites.with_arvados_ws(sandbox, folder) if THEIRS else sites.beside(sandbox) as opened,
    ):
        yield opened


@pytest.fixture(autouse=True)
def only_what_is_common(request: pytest.FixtureRequest) -> None:
    """With `V0_SERVER=arvados-ws`, tests of what it lacks or does otherwise are left out."""
    reason = request.node.get_closest_marker("ours")
    if THEIRS and reason:
        pytest.skip(reason.args[0])


@pytest.fixture(scope="package")
def newcomers(site: Site) -> Newcomers:
    """Who makes the users of all tests."""
    return Newcomers(site.cluster)


@pytest.fixture
async def active(newcomers: Newcomers) -> Actor:
    """An active user whom no other test knows."""
    return await newcomers.one()


@pytest.fixture
async def spectator(newcomers: Newcomers) -> Actor:
    """Another active user."""
    return await newcomers.one()


@pytest.fixture
async def admin(site: Site) -> Actor:
    """An admin, all events about whom are out already."""
    made = await site.cluster.user("admin", admin=True)
    return await settled(site.websocket_url, site.api.url, made)


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
