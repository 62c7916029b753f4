# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`arvados-nats status`: the answer to "is anyone missing events?" in a terminal."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from click.testing import CliRunner, Result

from arvados_nats.admin.status_cli import status
from sandbox.raw_rows import row, utc_now
from tests.support.worlds.events import EventWorld


async def _asked(scene: EventWorld, keys_folder: Path) -> Result:
    environment = {
        "ARVADOS_NATS_NATS_URL": scene.server.url,
        "ARVADOS_NATS_KEYS_DIR": str(keys_folder),
        "ARVADOS_NATS_POSTGRES_DSN": scene.database.reader_dsn,
    }
    return await asyncio.to_thread(CliRunner().invoke, status, env=environment)


async def test_it_says_whether_rows_are_missing(scene: EventWorld, keys_folder: Path) -> None:
    """0 while all rows are stored, 1 and by how much when they are not."""
    async with scene.publishing():
        await scene.insert(one := row(created_at=utc_now() - timedelta(minutes=2)))
        await scene.until_stored([one])
        answer = await _asked(scene, keys_folder)
        assert (answer.exit_code, "behind: 0.0 s" in answer.output) == (0, True), answer.output
    await scene.insert(row())
    answer = await _asked(scene, keys_folder)
    assert answer.exit_code == 1
    assert "rows are missing" in answer.output
