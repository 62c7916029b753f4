# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A cancellation that a library swallowed ends the task all the same."""

from __future__ import annotations

import asyncio

import pytest

from publishers.cancelled import raise_if_cancelled


async def test_swallowed_cancellation_is_noticed() -> None:
    """In the next round of a loop."""
    rounds = 0

    async def loop() -> None:
        nonlocal rounds
        while True:
            raise_if_cancelled()
            rounds += 1
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue  # as asyncio.wait_for of Python 3.11 may do

    task = asyncio.create_task(loop())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert rounds == 1


async def test_deadline_is_no_cancellation() -> None:
    """`asyncio.timeout` cancels, and takes it back."""
    try:
        async with asyncio.timeout(0):
            await asyncio.sleep(1)
    except TimeoutError:
        pass
    raise_if_cancelled()
