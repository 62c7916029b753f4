# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Everything together, on servers that may be killed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sandbox import stack as services
from sandbox.sandbox import Sandbox
from sandbox.stack import Stack


@pytest.fixture(scope="module")
async def stack(sandbox: Sandbox) -> AsyncIterator[Stack]:
    """Publishers, callout service and proxy of this module alone."""
    await sandbox.cluster.container_request("first", owner=await sandbox.cluster.user("somebody"))
    async with services.beside(sandbox) as running:
        yield running
        services.require(running)
