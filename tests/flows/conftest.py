# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Everything together: the pretend cluster and our services as processes beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sandbox import stack as services
from sandbox.sandbox import Sandbox
from sandbox.stack import Stack


@pytest.fixture(scope="module")
async def stack(sandbox: Sandbox) -> AsyncIterator[Stack]:
    """Publishers, callout service and proxy of this module alone."""
    # Makes the docker image that everybody can read, which later would widen every login.
    await sandbox.cluster.container_request("first", owner=await sandbox.cluster.user("somebody"))
    async with services.beside(sandbox) as running:
        yield running
        services.require(running)
