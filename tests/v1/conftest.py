# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One site for all tests of v1, and users for each."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from sandbox.model.actors import Actor
from tests.support.clients import v1 as clients
from tests.support.clients.v1 import Client
from tests.support.worlds.shared_site import alice, bob, cluster, left_running, newcomers, site
from tests.support.worlds.site import Site

__all__ = ["alice", "bob", "cluster", "left_running", "newcomers", "site"]

Connect = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture
def connect(site: Site) -> Connect:
    """Open a v1 connection: `async with connect(alice) as client`."""
    base = site.websocket_url.removesuffix("/websocket")

    def opened(who: Actor | str | None = None) -> AbstractAsyncContextManager[Client]:
        return clients.connected(base, who)

    return opened
