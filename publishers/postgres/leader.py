# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One active publisher: whoever holds an advisory lock of Arvados' PostgreSQL.

The lock belongs to a session, so PostgreSQL gives it up when the process or its connection dies,
or falls silent (`postgres_primary`). That can be before the process knows; the stream refuses what
it still sends (`stream_writer`). The key of the lock names the store of NATS that is led, so that
two installations beside one database do not wait for each other.

Whoever leads says so over NATS, and gives the lock up when NATS does not answer it or is another
one: its store was lost, and all that is made at the beginning has to be made anew. Whoever stands
by is well only while it hears that somebody leads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from arvados_nats.contract import streams, subjects
from arvados_nats.errors import ArvadosNatsError, Unavailable
from arvados_nats.nats.client import Message, Nats
from arvados_nats.nats.lives import Life
from arvados_nats.postgres.arvados_tables import CLUSTER_ID
from publishers.postgres.database import Database, Session
from publishers.retry import Attempts

logger = logging.getLogger(__name__)

_ROOM = 0x41724E6100000000  # "ArNa", so that pg_locks shows whose they are
_POLL_SECONDS = 0.5
_TELL_SECONDS = 1.0
_MISSED = 3
"""Looks in turn without the stream: it was lost before the first, or could not be made."""
_HEARD_SECONDS = 5.0
"""A leader of whom nothing was heard for so long does not lead."""
_UNANSWERED_SECONDS = 10.0
"""A leader whom NATS does not answer for so long makes way: it may answer another replica."""


@dataclass(frozen=True, slots=True)
class Lock:
    """A named advisory lock."""

    name: str

    def key(self, installation: str) -> int:
        """The number that PostgreSQL knows it by."""
        return _ROOM | zlib.crc32(f"{installation} {self.name}".encode())

    @property
    def subject(self) -> str:
        """Where its holder says that it leads."""
        return f"{subjects.LEADING}.{self.name.replace('.', '_')}"


async def claim(nats: Nats, cluster: str | None, replicas: int) -> str:
    """The store of NATS as it is called nowhere else: when its stream of cursors was made.

    Disagreement if it is another cluster's.
    """
    await nats.until_connected()
    await streams.ensure(nats, streams.cursor_stream(replicas, cluster))
    return await streams.created(nats, streams.CURSORS) or ""


async def claimed(nats: Nats, database: Database, attempts: Attempts, replicas: int) -> None:
    """Return when the account of NATS is that of the database's cluster, which nothing is asked
    nor told before."""

    async def attempt() -> None:
        await claim(nats, await database.fetch_value(CLUSTER_ID), replicas)

    await attempts.until_done(attempt)


@dataclass(frozen=True, slots=True)
class Leadership:
    """One part's way to be the only one; `replicas`: of the stream that names the installation.

    `stream`: one that the part makes and that nobody else would miss if it were lost.
    """

    nats: Nats
    lock: Lock
    attempts: Attempts
    replicas: int = 1
    stream: str | None = None

    @asynccontextmanager
    async def held(self, session: Session) -> AsyncIterator[None]:
        """Wait for the lock, then do the body while this session has it.

        Unavailable ends the body when the lock may be another's, or NATS is not what it was.
        """
        async with session.guard():
            cluster = await session.ask(CLUSTER_ID)
            installation = await claim(self.nats, cluster, self.replicas)
            async with self._hearing() as heard:
                await self._acquire(session, installation, heard)
            telling = asyncio.create_task(self._tell(session, installation))
            try:
                yield
            finally:
                telling.cancel()

    async def _made(self) -> str | None:
        return await streams.created(self.nats, streams.CURSORS)

    @asynccontextmanager
    async def _hearing(self) -> AsyncIterator[_Heard]:
        heard = _Heard()
        subscription = await self.nats.subscribe(self.lock.subject, heard.leads)
        try:
            yield heard
        finally:
            await subscription.unsubscribe()

    async def _acquire(self, session: Session, installation: str, heard: _Heard) -> None:
        """Return when this session holds the lock.

        Asks again and again instead of waiting in PostgreSQL: a statement that waits for hours
        keeps vacuum from removing dead rows.
        """
        waiting = False
        while not await session.try_lock(self.lock.key(installation)):
            if not waiting:
                waiting = True
                logger.info("standing by", extra=self._facts("leader.standby"))
            if heard.ago() < _HEARD_SECONDS:
                self.attempts.succeeded()
            elif heard.waited() > _HEARD_SECONDS:
                self.attempts.fault(
                    "nobody leads: another session of PostgreSQL has the advisory lock"
                    f" {self.lock.key(installation)} (pg_locks), and its process is not heard"
                )
                if await self._made() != installation:
                    raise Unavailable("NATS has another store than before")
            await asyncio.sleep(random.uniform(0.5, 1) * _POLL_SECONDS)
        logger.info("leading", extra=self._facts("leader.acquired"))

    def _facts(self, action: str) -> dict[str, str]:
        return {"action": action, "lock": self.lock.name}

    async def _tell(self, session: Session, installation: str) -> None:
        """Say that this process leads, for as long as NATS is the one that it leads."""
        loop = asyncio.get_running_loop()
        answered = loop.time()
        led = Life(self.nats, self.stream or streams.CURSORS)
        missed = 0
        while True:
            with contextlib.suppress(ArvadosNatsError):
                if await self._made() != installation:
                    session.end("NATS has another store than before: beginning anew")
                if self.stream:
                    same = await led.look()
                    missed = missed + 1 if same is None else 0
                    if same is False or missed >= _MISSED:
                        session.end(f"the stream {self.stream} was lost: beginning anew")
                answered = loop.time()
                await self.nats.publish(self.lock.subject)
            if loop.time() - answered > _UNANSWERED_SECONDS:
                session.end("NATS does not answer: making way for another replica")
            await asyncio.sleep(_TELL_SECONDS)


class _Heard:
    """When somebody was last heard to lead."""

    def __init__(self) -> None:
        self._now = asyncio.get_running_loop().time
        self._began = self._now()
        self._last = float("-inf")

    async def leads(self, _: Message) -> None:
        self._last = self._now()

    def ago(self) -> float:
        return self._now() - self._last

    def waited(self) -> float:
        """Seconds since somebody was heard, or since listening began."""
        return self._now() - max(self._began, self._last)
