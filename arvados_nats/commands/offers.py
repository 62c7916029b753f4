# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a shell's completion offers: asked of Arvados, in the time that a person waits for a key."""

from __future__ import annotations

import asyncio

from arvados_nats.commands import arvados_settings
from arvados_nats.commands import processes as found
from arvados_nats.commands.processes import Process

_SECONDS = 2.0


def processes(limit: int) -> list[Process]:
    """One's newest processes."""
    settings = arvados_settings.read()

    async def ask() -> list[Process]:
        async with (
            asyncio.timeout(_SECONDS),
            settings.connect() as arvados,
        ):
            return await found.mine(arvados, settings.token, limit)

    return asyncio.run(ask())
