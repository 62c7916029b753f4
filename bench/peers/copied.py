# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Rows of a table into JetStream, read by COPY, in the fewest lines: the floor of `publish`."""

from __future__ import annotations

import asyncio

import asyncpg
from nats.aio.client import Client

from bench.peers.bare import SUBJECT

_WINDOW = 1000
_ROWS = (
    "SELECT id, uuid, event_type, object_uuid, object_owner_uuid, created_at, properties FROM logs"
)


async def copy(reader: asyncpg.Connection, line: Client) -> int:
    """All rows, with so many on their way at most; how many."""
    sent, rest, window = 0, b"", asyncio.Semaphore(_WINDOW)

    async def stored(_: object) -> None:
        window.release()

    async def some(data: bytes) -> None:
        nonlocal sent, rest
        *rows, rest = (rest + data).split(b"\n")
        for row in rows:
            await window.acquire()
            await line.publish(f"{SUBJECT}.row", row, reply=inbox)
            sent += 1

    inbox = line.new_inbox()
    await line.subscribe(inbox, cb=stored)
    await reader.copy_from_query(_ROWS, output=some)
    for _ in range(_WINDOW):
        await window.acquire()
    return sent
