# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A proxy of one test alone, and waiting for what is to become of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from tests.support.worlds import site as sites
from tests.support.worlds.site import Site
from wsproxy.services import Services

WITHIN = 60.0


@contextlib.asynccontextmanager
async def own(site: Site, **changes: object) -> AsyncIterator[tuple[str, Services]]:
    """A proxy of this test alone: its base URL, and what its connections share."""
    seen: list[Services] = []
    async with sites.serving(sites.settings(site, **changes), seen.append) as base:
        yield base, seen[0]


async def until_equal(what: Callable[[], object], wanted: object) -> None:
    """Wait for `what()` to be `wanted`."""
    found = what()
    try:
        async with asyncio.timeout(WITHIN):
            while found != wanted:
                await asyncio.sleep(0.01)
                found = what()
    except TimeoutError:
        assert found == wanted
