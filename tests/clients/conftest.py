# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One sandbox with our services for the programs of all languages."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sandbox import stack as services
from sandbox.sandbox import Sandbox
from sandbox.stack import Stack


@pytest.fixture(scope="module")
async def stack(sandbox: Sandbox) -> AsyncIterator[Stack]:
    """Publishers, callout service and proxy."""
    async with services.beside(sandbox) as running:
        yield running
        services.require(running)
