# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The sole writer of a stream: each message once, in order, or not at all.

Each message carries its id, `Nats-Expected-Last-Sequence`, counted up over messages that are still
on their way, and the id of the one sent before it as `Nats-Expected-Last-Msg-Id`. So the server
takes it behind that very message or refuses it: a lost message makes it refuse all that follow,
and so does a second writer. (The sequence alone is not enough: another writer's message takes the
place of a refused one, and the next in the pipeline would fit.) After any failure the writer reads
from the stream itself what was stored, and sends the rest again.

Seen on nats-server 2.15.1: a wrong last sequence is refused first (10071), then a duplicate is
acknowledged with the sequence of its first copy, then a wrong last id is refused (10070); all hold
after kill -9.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from arvados_nats.errors import ArvadosNatsError, BadInput, Unavailable
from arvados_nats.nats.acks import Ack
from arvados_nats.nats.client import Nats
from arvados_nats.service.ops import Health
from publishers import metrics

logger = logging.getLogger(__name__)

MSG_ID = "Nats-Msg-Id"

_ACK_TIMEOUT = 3.0
_LONGEST_PAUSE = 5.0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message to be stored; `id` is unique in the stream. `headers` go beside those of here."""

    subject: str
    id: str
    payload: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Overtaken(Unavailable):
    """Somebody else has written to the stream: read it again before going on."""


class StreamWriter:
    """Writes behind `last_sequence`, the end of the stream as the caller read it."""

    def __init__(
        self,
        nats: Nats,
        stream: str,
        last_sequence: int,
        *,
        health: Health,
        window: int = 1000,
        on_dropped: Callable[[Outgoing], None] = lambda _: None,
    ) -> None:
        self._nats = nats
        self._stream = stream
        self._last = last_sequence
        self._health = health
        self._window = window
        self._on_dropped = on_dropped
        self._unsent: deque[Outgoing] = deque()
        self._sent: deque[tuple[Outgoing, asyncio.Future[Ack]]] = deque()

    @property
    def last_sequence(self) -> int:
        """The end of the stream, as far as this writer knows."""
        return self._last

    async def write(self, messages: Sequence[Outgoing]) -> None:
        """Store all messages; returns when the stream has them.

        Waits for NATS as long as it takes. Raises Overtaken when the stream holds what this
        writer did not write.
        """
        self._unsent.extend(messages)
        failures = 0
        try:
            while self._unsent or self._sent:
                try:
                    await self._advance()
                except ArvadosNatsError as error:
                    self._take_back()
                    await self._after_failure(error, failures)
                    failures += 1
        finally:
            self._take_back()
            self._health.well(self._stream)  # who gives up says so as a part of its own

    async def _advance(self) -> None:
        """Send as many as the window takes, then wait for the oldest acknowledgement."""
        while self._unsent and len(self._sent) < self._window:
            await self._send(self._unsent[0])
        if self._sent:
            message, future = self._sent[0]
            if not future.done():
                await self._wait(future)
            try:
                ack = future.result()
            except BadInput:
                self._sent.popleft()
                self._take_back()  # all that follow expect one sequence too many
                self._on_dropped(message)
            else:
                self._acknowledged(message, ack)

    async def _send(self, message: Outgoing) -> None:
        headers = {
            **message.headers,
            MSG_ID: message.id,
            "Nats-Expected-Stream": self._stream,
            "Nats-Expected-Last-Sequence": str(self._last + len(self._sent)),
        }
        if self._sent:
            headers["Nats-Expected-Last-Msg-Id"] = self._sent[-1][0].id
        try:
            future = await self._nats.publish_stored(message.subject, message.payload, headers)
        except BadInput:
            self._unsent.popleft()
            self._on_dropped(message)
            return
        self._sent.append((self._unsent.popleft(), future))

    async def _wait(self, future: asyncio.Future[Ack]) -> None:
        done, _ = await asyncio.wait((future,), timeout=_ACK_TIMEOUT)
        if not done:
            raise Unavailable("NATS does not acknowledge what was published")

    def _acknowledged(self, message: Outgoing, ack: Ack) -> None:
        self._sent.popleft()
        if ack["seq"] == self._last + 1:
            self._last += 1
        else:
            logger.info(
                "message was in the stream before",
                extra={"action": "stream_writer.duplicate", "id": message.id},
            )
            self._take_back()  # all that follow expect one sequence too many and are refused

    def _take_back(self) -> None:
        """Count everything that is not acknowledged as not sent."""
        if self._sent:
            metrics.EVENT_RESENDS.inc()
        for _, future in self._sent:
            if not future.cancel():
                future.exception()  # seen: asyncio need not complain that nobody looked
        self._unsent.extendleft(message for message, _ in reversed(self._sent))
        self._sent.clear()

    async def _after_failure(self, error: ArvadosNatsError, failures: int) -> None:
        """Wait until the stream can be read, and leave out what it has stored."""
        while True:
            if failures or not self._nats.connected:
                self._health.fault(self._stream, error)
                await asyncio.sleep(random.uniform(0, min(0.05 * 2**failures, _LONGEST_PAUSE)))
            await self._nats.until_connected()
            try:
                await self._skip_stored()
                return
            except Overtaken:
                raise
            except ArvadosNatsError as again:
                error = again
                failures += 1

    async def _skip_stored(self) -> None:
        info = await self._nats.stream_info(self._stream)
        if info is None:
            raise Overtaken(f"the stream {self._stream} is gone")
        end: int = info["state"]["last_seq"]
        if end < self._last:
            raise Overtaken(f"the stream {self._stream} has lost what was stored")
        subject = info["config"]["subjects"][0]
        begin = self._last + 1
        async for stored in self._nats.history(self._stream, subject, first=begin, until=end):
            if not self._unsent or stored.headers.get(MSG_ID) != self._unsent[0].id:
                raise Overtaken(f"another publisher writes to the stream {self._stream}")
            self._unsent.popleft()
            self._last = stored.sequence
        self._last = max(self._last, end)
