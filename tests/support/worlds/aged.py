# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Everything together beside an Arvados of some release, over servers that run already."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sandbox import sandbox as sandboxes
from sandbox import stack as services
from sandbox.model.config import ClusterConfig
from sandbox.sandbox import Sandbox
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import PostgresServer
from sandbox.stack import Stack


@asynccontextmanager
async def beside(
    release: str, postgres: PostgresServer, nats: NatsServer, like: Sandbox
) -> AsyncIterator[Stack]:
    """The services beside a pretend Arvados of this release; keys and certificates as `like` has
    them."""
    config = ClusterConfig(release=release)
    tls = like.certificates.authority.parent
    async with (
        sandboxes.on(postgres, nats, like.keys_folder, tls, config=config) as sandbox,
        services.beside(sandbox) as stack,
    ):
        yield stack
        services.require(stack)
