# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The queue publisher: the bucket ARVADOS_QUEUE holds each container that waits or runs.

The database is the truth. Events name containers to look at once, and whatever they claim, the row
is read; a look at all of them finds what left no event. A new leader holds the whole bucket against
the database before anything else. One process writes, by a lock; the stream refuses what another
one still sends (`stream_writer`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import uuid as uuids
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from arvados_nats.contract import queue_entries, streams, subjects
from arvados_nats.errors import ArvadosNatsError
from arvados_nats.nats.client import Message, Nats
from arvados_nats.service.ops import Health
from publishers.jetstream.writer import Outgoing, Overtaken, StreamWriter
from publishers.postgres.database import Database, Session
from publishers.postgres.leader import Leadership, Lock
from publishers.queue import metrics
from publishers.queue import table as queue_table
from publishers.retry import Attempts

logger = logging.getLogger(__name__)

LOCK = Lock(streams.QUEUE)
_GATHER = 0.005
_REST = 2.0
"""Rest after a look, as a multiple of the time it took: a flood of events costs a bounded part of
the database's time."""
_LONGEST_REST = 1.0
_CHECK_SECONDS = 5.0
"""Between two looks whether anybody else has written to the bucket, or it is another one."""
_IDLE_SCANS = 5
"""With nothing waiting, one look at all containers in so many is made."""


@dataclass(frozen=True, slots=True)
class Options:
    """`scan`: seconds between two looks at all containers while some wait."""

    scan: float = 1.0
    replicas: int = 1


@dataclass(slots=True)
class Wake:
    """What events gave reason to look at."""

    containers: set[str] = field(default_factory=set)
    everything: bool = False
    now: asyncio.Event = field(default_factory=asyncio.Event)

    async def container(self, message: Message) -> None:
        """An event of a container, whoever posted it."""
        self.containers.add(message.subject.split(".")[4])
        self.now.set()

    async def request(self, _: Message) -> None:
        """A change of a request can move priorities, of which no event tells."""
        self.everything = True
        self.now.set()

    def connection_changed(self, connected: bool) -> None:
        if connected:
            self.everything = True
            self.now.set()

    def take(self) -> tuple[set[str], bool]:
        """The containers, and whether to look at all; nothing is left."""
        taken = self.containers, self.everything
        self.containers, self.everything = set(), False
        self.now.clear()
        return taken


async def run(nats: Nats, database: Database, health: Health, options: Options) -> None:
    """Publish while this process has the lock, stand by while another has it; until cancelled."""
    attempts = Attempts(health, "queue")
    while True:
        try:
            async with database.session() as session:
                await _lead(nats, database, session, health, options, attempts)
        except ArvadosNatsError as error:
            await attempts.failed(error)


async def _lead(
    nats: Nats,
    database: Database,
    session: Session,
    health: Health,
    options: Options,
    attempts: Attempts,
) -> None:
    async with Leadership(nats, LOCK, attempts, options.replicas).held(session):
        async with _listening(nats) as wake:
            with metrics.LEADING.track_inprogress():
                while True:
                    try:
                        queue = Queue(nats, database, health)
                        await streams.ensure(nats, streams.queue_stream(options.replicas))
                        await queue.begin()
                        attempts.succeeded()
                        await _follow(queue, wake, options.scan)
                    except Overtaken as error:
                        logger.warning(
                            "the bucket has changed, reading it again",
                            extra={"action": "queue.overtaken", "error": str(error)},
                        )


@asynccontextmanager
async def _listening(nats: Nats) -> AsyncIterator[Wake]:
    """Events as a reason to look; what they say is not believed (docs/facts/arvados.md 0.3)."""
    wake = Wake()
    stored = subjects.STORED_EVENTS
    forget = nats.on_change(wake.connection_changed)
    heard = [
        await nats.subscribe(f"{stored}.container.>", wake.container),
        await nats.subscribe(f"{stored}.container_request.>", wake.request),
    ]
    try:
        await nats.flush()
        yield wake
    finally:
        forget()
        for subscription in heard:
            await subscription.unsubscribe()


async def _follow(queue: Queue, wake: Wake, scan: float) -> None:
    loop = asyncio.get_running_loop()
    next_scan = loop.time()
    next_check = next_scan + _CHECK_SECONDS
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(next_scan - loop.time(), 0)):
                await wake.now.wait()
            await asyncio.sleep(_GATHER)
        containers, everything = wake.take()
        started = loop.time()
        if containers:
            await queue.look_at(containers)
        if everything or loop.time() >= next_scan:
            await queue.look_at_all()
            next_scan = loop.time() + scan * (1 if queue.waiting else _IDLE_SCANS)
        if loop.time() >= next_check:
            await queue.require_own()
            next_check = loop.time() + _CHECK_SECONDS
        await asyncio.sleep(min((loop.time() - started) * _REST, _LONGEST_REST))


class Queue:
    """The bucket as this process has written or read it, beside the database."""

    def __init__(self, nats: Nats, database: Database, health: Health) -> None:
        self._nats = nats
        self._database = database
        self._health = health
        self._digests: dict[str, int] = {}
        self._waiting: set[str] = set()
        self._writer: StreamWriter
        self._term = uuids.uuid4().hex
        self._numbers = itertools.count(1)

    @property
    def waiting(self) -> bool:
        """Whether a container is there that is not running yet."""
        return bool(self._waiting)

    async def begin(self) -> None:
        """Make the bucket equal the database, whatever it holds."""
        info = await self._nats.stream_info(streams.QUEUE)
        last: int = info["state"]["last_seq"] if info else 0
        self._writer = StreamWriter(self._nats, streams.QUEUE, last, health=self._health)
        held: dict[str, bytes] = {}
        pattern = f"{subjects.QUEUE}.>"
        async for message in self._nats.history(streams.QUEUE, pattern, until=last):
            if "KV-Operation" not in message.headers:
                held[queue_entries.key(message.subject)] = message.data
        found = await queue_table.read(self._database, await queue_table.digests(self._database))
        changed = {uuid: row for uuid, row in found.items() if held.get(uuid) != row[1]}
        await self._write(changed, held.keys() - found.keys())
        self._digests = {uuid: digest for uuid, (digest, _) in found.items()}
        self._note(found)
        logger.info(
            "queue compared",
            extra={
                "action": "queue.begun",
                "containers": len(found),
                "different": len(changed),
                "gone": len(held.keys() - found.keys()),
            },
        )

    async def require_own(self) -> None:
        """Overtaken if the bucket does not end with what was written here, or has lost keys."""
        info = await self._nats.stream_info(streams.QUEUE)
        state = info["state"] if info else {"last_seq": 0, "messages": 0}
        own = state["last_seq"] == self._writer.last_sequence
        if not own or state["messages"] < len(self._digests):
            raise Overtaken("the bucket does not hold what this process has written")

    async def look_at(self, containers: set[str]) -> None:
        """Bring these up to date, if they are containers in the queue, or were."""
        with metrics.LOOK_SECONDS.labels("named").time():
            found = await queue_table.read(self._database, filter(subjects.is_uuid, containers))
        gone = (containers & self._digests.keys()) - found.keys()
        await self._take(found, gone)

    async def look_at_all(self) -> None:
        """Bring every container up to date."""
        with metrics.LOOK_SECONDS.labels("all").time():
            now = await queue_table.digests(self._database)
            moved = [uuid for uuid, digest in now.items() if self._digests.get(uuid) != digest]
            found = await queue_table.read(self._database, moved) if moved else {}
        # What has ended between the two reads is gone as well.
        gone = (self._digests.keys() - now.keys()) | (set(moved) - found.keys())
        await self._take(found, gone & self._digests.keys())

    async def _take(self, found: dict[str, tuple[int, bytes]], gone: Iterable[str]) -> None:
        gone = set(gone)
        changed = {uuid: row for uuid, row in found.items() if self._digests.get(uuid) != row[0]}
        await self._write(changed, gone)
        for uuid in gone:
            del self._digests[uuid]
        self._digests |= {uuid: digest for uuid, (digest, _) in changed.items()}
        self._waiting -= gone
        self._note(changed)

    def _note(self, rows: dict[str, tuple[int, bytes]]) -> None:
        for uuid, (_, value) in rows.items():
            entry = queue_entries.decode({}, value)
            if entry is not None and entry.state in queue_entries.WAITING:
                self._waiting.add(uuid)
            else:
                self._waiting.discard(uuid)
        metrics.CONTAINERS.set(len(self._digests))

    async def _write(self, changed: dict[str, tuple[int, bytes]], gone: Iterable[str]) -> None:
        """Deletions first: who counts what is in use must not see more than there is."""
        deletions = [self._outgoing(uuid, None) for uuid in sorted(gone)]
        puts = [self._outgoing(uuid, value) for uuid, (_, value) in changed.items()]
        if deletions or puts:
            await self._writer.write([*deletions, *puts])
        metrics.CHANGES.labels("deleted").inc(len(deletions))
        metrics.CHANGES.labels("put").inc(len(puts))

    def _outgoing(self, uuid: str, value: bytes | None) -> Outgoing:
        number = f"{self._term}/{next(self._numbers)}"
        headers = queue_entries.DELETED if value is None else {}
        return Outgoing(queue_entries.subject(uuid), number, value or b"", headers)
