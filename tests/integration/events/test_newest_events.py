# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Is anyone missing events? The newest row beside the newest event in the stream (I3)."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

from arvados_nats.service.ops import Health
from publishers.events import newest
from publishers.postgres import database as postgres
from sandbox.raw_rows import row, utc_now
from tests.support.waiting import until
from tests.support.worlds.events import EventWorld


async def test_rows_that_nobody_publishes_are_told(scene: EventWorld) -> None:
    """While a publisher leads all is well; health says when rows are not in the stream."""
    health = Health()
    async with postgres.connect(scene.database.reader_dsn) as database:
        following = asyncio.create_task(newest.follow(scene.nats, database, health, every=0.1))

        async def well() -> bool:
            return newest.PART not in health.faults

        async def ill() -> bool:
            return "not in the stream" in health.faults.get(newest.PART, "")

        async with scene.publishing():
            one = row(created_at=utc_now() - timedelta(seconds=50))
            await scene.insert(one)
            await scene.until_stored([one])
            await until(well, "all rows are there")
        await scene.insert(row(created_at=utc_now() - timedelta(seconds=6)))
        await until(ill, "it says that rows are missing", 20)
        async with scene.publishing():
            await until(well, "the rows have come", 20)
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
