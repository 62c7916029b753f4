# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What is done to every connection now and then, without stopping the process for all at once.

A look at one connection takes microseconds, and at ten thousand of them 30 ms, during which no
event moves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

STEP_SECONDS = 0.02

T = TypeVar("T")


async def spread(items: Sequence[T], seconds: float) -> AsyncIterator[Sequence[T]]:
    """Every item once, in portions spread evenly over `seconds`, which it takes in any case."""
    count = len(items)
    steps = max(1, min(count, round(seconds / STEP_SECONDS)))
    for step in range(steps):
        await asyncio.sleep(seconds / steps)
        yield items[count * step // steps : count * (step + 1) // steps]
