# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which replica reads the log of which container.

Replicas announce themselves on NATS twice a second. Each container belongs to the live replica with
the highest hash of the two names (rendezvous hashing): all replicas find the same one without
talking about it, and one that comes or goes moves only its own share. Views differ for a moment
when the membership changes; then two replicas may read the same log, and fencing
(`writer`) keeps every byte once. A replica that says nothing for `EXPIRE_SECONDS` is dead, and
what was its is taken over where the stream ends.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Callable, Iterable

from arvados_nats.contract import subjects
from arvados_nats.errors import Unavailable
from arvados_nats.nats.client import Message, Nats
from publishers.container_logs import metrics as log_metrics

logger = logging.getLogger(__name__)

ANNOUNCE_SECONDS = 0.5
EXPIRE_SECONDS = 2.0
_SETTLE_SECONDS = 0.3
_HERE, _LEAVING = b"here", b"leaving"


def owner(container_uuid: str, replicas: Iterable[str]) -> str:
    """The replica that a container belongs to."""
    return max(replicas, key=lambda replica: _weight(container_uuid, replica))


def _weight(container_uuid: str, replica: str) -> tuple[bytes, str]:
    name = f"{container_uuid} {replica}".encode()
    return hashlib.blake2b(name, digest_size=8).digest(), replica


class Replicas:
    """The live replicas, as this one sees them; it always counts itself."""

    def __init__(self, name: str | None = None, *, expire: float = EXPIRE_SECONDS) -> None:
        self.name = name or secrets.token_hex(6)
        self._expire = expire
        self._others: dict[str, float] = {}
        self._changed: Callable[[], None] = lambda: None

    def on_change(self, changed: Callable[[], None]) -> None:
        """Call `changed()` when a replica has come or gone."""
        self._changed = changed

    def is_mine(self, container_uuid: str) -> bool:
        return owner(container_uuid, (self.name, *self._others)) == self.name

    @property
    def others(self) -> frozenset[str]:
        return frozenset(self._others)

    def heard(self, replica: str, *, leaving: bool, now: float) -> bool:
        """Another replica has said something; whether it is news."""
        if replica == self.name:
            return False
        if leaving:
            return self._news(self._others.pop(replica, None) is not None)
        is_new = replica not in self._others
        self._others[replica] = now + self._expire
        return self._news(is_new)

    def spare(self, now: float) -> None:
        """We could hear nobody: give all others time to say something."""
        self._others = dict.fromkeys(self._others, now + self._expire)

    def sweep(self, now: float) -> bool:
        """Take those that have been silent for dead; whether there was one."""
        alive = {name: until for name, until in self._others.items() if until > now}
        lost = len(alive) < len(self._others)
        self._others = alive
        return self._news(lost)

    def _news(self, is_news: bool) -> bool:
        if is_news:
            log_metrics.REPLICAS.set(1 + len(self._others))
            logger.info(
                "replicas changed",
                extra={"action": "logs.replicas", "replicas": sorted((self.name, *self._others))},
            )
            self._changed()
        return is_news


async def take_part(nats: Nats, replicas: Replicas, ready: asyncio.Event) -> None:
    """Announce this replica and listen to the others until cancelled, then say good-bye.

    `ready` is set when those who were there before had time to answer.
    """
    loop = asyncio.get_running_loop()
    subject = f"{subjects.LOG_TAILERS}.{replicas.name}"

    async def heard(message: Message) -> None:
        name = message.subject.rpartition(".")[2]
        leaving = message.data == _LEAVING
        if replicas.heard(name, leaving=leaving, now=loop.time()) and not leaving:
            await nats.publish(subject, _HERE)

    log_metrics.REPLICAS.set(1)
    subscription = await nats.subscribe(f"{subjects.LOG_TAILERS}.*", heard)
    try:
        await nats.publish(subject, _HERE)
        await asyncio.sleep(_SETTLE_SECONDS)
        ready.set()
        while True:
            if nats.connected:
                replicas.sweep(loop.time())
                await _announce(nats, subject)
            else:
                await nats.until_connected()
                replicas.spare(loop.time())
            await asyncio.sleep(ANNOUNCE_SECONDS)
    finally:
        await subscription.unsubscribe()
        await _announce(nats, subject, _LEAVING)


async def _announce(nats: Nats, subject: str, text: bytes = _HERE) -> None:
    try:
        await nats.publish(subject, text)
    except Unavailable as error:
        logger.info("replica not announced", extra={"action": "logs.announce", "error": str(error)})
