# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Wait for what nobody tells of."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable


async def until(condition: Callable[[], object], what: str = "", within: float = 60) -> float:
    """Wait until the condition holds, or what it awaits does; the seconds it took. Fails with
    `what` when it does not in time."""
    started = time.monotonic()
    while True:
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return time.monotonic() - started
        assert time.monotonic() < started + within, f"not within {within} s: {what or condition}"
        await asyncio.sleep(0.005)
