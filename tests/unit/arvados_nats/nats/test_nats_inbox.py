# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Waiting for what comes to an inbox."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from arvados_nats.nats.inbox import Inbox


def message(data: bytes) -> Msg:
    return Msg(cast(Client, None), subject="x", data=data)


async def test_a_cancellation_that_comes_with_an_answer_is_not_lost() -> None:
    """Nor is the answer."""
    inbox = Inbox("x")
    waiting = asyncio.create_task(inbox.next(10))
    await asyncio.sleep(0)
    inbox.put(message(b"one"))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await inbox.next(10)).data == b"one"


async def test_nothing_in_time() -> None:
    """The library's exceptions are for what the library does."""
    with pytest.raises(TimeoutError):
        await Inbox("x").next(0.01)
