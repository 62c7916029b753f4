# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One active publisher: whoever holds an advisory lock of Arvados' PostgreSQL.

The lock belongs to a session, so PostgreSQL gives it up when the process or its connection dies.
That can be before the process knows; the stream refuses what it still sends (`stream_writer`).
"""

from __future__ import annotations

import asyncio
import logging
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from publishers.postgres import Session

logger = logging.getLogger(__name__)

_ROOM = 0x41724E6154730000  # "ArNaTs", so that pg_locks shows whose they are
_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Lock:
    """A named advisory lock."""

    name: str

    @property
    def key(self) -> int:
        return _ROOM | zlib.crc32(self.name.encode()) & 0xFFFF


async def acquire(session: Session, lock: Lock, standing_by: Callable[[], None]) -> None:
    """Return when this session holds the lock; calls `standing_by` when another one has it.

    Asks again and again instead of waiting in PostgreSQL: a statement that waits for hours keeps
    vacuum from removing dead rows.
    """
    waiting = False
    while True:
        if await session.try_lock(lock.key):
            logger.info("leading", extra={"action": "leader.acquired", "lock": lock.name})
            return
        if not waiting:
            waiting = True
            standing_by()
            logger.info("standing by", extra={"action": "leader.standby", "lock": lock.name})
        await asyncio.sleep(random.uniform(0.5, 1) * _POLL_SECONDS)
