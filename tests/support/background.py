# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What never ends by itself, beside a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def background(*work: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
    """Runs for as long as the body, and must not end before it."""
    tasks = [asyncio.create_task(part) for part in work]
    try:
        yield
        for task in tasks:
            assert not task.done(), f"ended by itself: {task}"
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            try:
                await task
            except asyncio.CancelledError:
                if not task.cancelled():
                    raise
