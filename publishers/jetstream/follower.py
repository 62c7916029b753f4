# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Every message of a stream, in order and without a gap, from a place on: stored ones, then live.

Live messages are what the server republishes after storing (`arvados.stored.…`); they carry their
sequence, so one that is missing is noticed, and read from the stream; so is what did not fit into
memory. No consumer is left on the server (docs/facts/nats.md).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from arvados_nats.contract import subjects
from arvados_nats.errors import ArvadosNatsError
from arvados_nats.nats.client import Message, Nats
from arvados_nats.nats.history import BATCH_BYTES, StoredMessage, parse
from arvados_nats.nats.lives import Life

_KEPT_BYTES = 32 * 1024 * 1024
_PAGE = 500
_LOOK_SECONDS = 5.0


class StreamFollower:
    """Follows one stream; get it from `follow`."""

    def __init__(self, nats: Nats, stream: str, pattern: str) -> None:
        self._nats = nats
        self._stream = stream
        self._pattern = pattern
        self._heard: list[StoredMessage] = []
        self._heard_bytes = 0
        self._reread = True
        self._interrupted = False
        self._news = asyncio.Event()

    async def hear(self, message: Message) -> None:
        """Take a republished message."""
        stored = parse(message.headers, message.data)
        if stored is None:
            return
        self._heard.append(stored)
        self._heard_bytes += stored.size
        if self._heard_bytes > _KEPT_BYTES:
            self._heard, self._heard_bytes, self._reread = [], 0, True
        self._news.set()

    def connection_changed(self, connected: bool) -> None:
        """What was sent and heard around a lost connection is uncertain: `batches` ends."""
        if connected:
            self._interrupted = True
            self._news.set()

    async def batches(self, last: int) -> AsyncIterator[list[StoredMessage]]:
        """Messages behind sequence `last`, until the connection was lost and is back, or the
        stream is another one.

        Each batch is not empty. Call again to go on, from where the caller knows to have come.
        Raises Unavailable when the stream cannot be read.
        """
        self._reread, self._interrupted = True, False
        life = Life(self._nats, self._stream)
        while not self._interrupted:
            heard, self._heard, self._heard_bytes = self._heard, [], 0
            self._news.clear()
            if self._reread or not _continues(heard, last):
                self._reread = False
                if await life.look() is False or life.last < last:
                    return
                async for page in self._read(last, life.last):
                    yield page
                    last = page[-1].sequence
            if fresh := [message for message in heard if message.sequence > last]:
                yield fresh
                last = fresh[-1].sequence
            if not self._heard:
                await self._until_news(last, life)

    async def _until_news(self, last: int, life: Life) -> None:
        """A lost last message shows no hole: now and then the end of the stream is looked at."""
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                await self._news.wait()
        except TimeoutError:
            with contextlib.suppress(ArvadosNatsError):  # it is looked at again
                self._reread = not await life.look() or life.last != last

    async def _read(self, last: int, end: int) -> AsyncIterator[list[StoredMessage]]:
        limits = {"next_by_subj": self._pattern, "batch": _PAGE, "max_bytes": BATCH_BYTES}
        while last < end:
            question = limits | {"seq": last + 1}
            page, left = await self._nats.whole_page(self._stream, question, end)
            if page:
                yield page
            last = page[-1].sequence if page and left else end


def _continues(heard: list[StoredMessage], last: int) -> bool:
    """Whether these are the very next messages, in order."""
    return all(message.sequence == last + n for n, message in enumerate(heard, start=1))


@asynccontextmanager
async def follow(nats: Nats, stream: str, subject: str) -> AsyncIterator[StreamFollower]:
    """Follow a stream whose messages are stored under `<subject>.>`."""
    follower = StreamFollower(nats, stream, f"{subject}.>")
    subscription = await nats.subscribe(subjects.stored(f"{subject}.>"), follower.hear)
    forget = nats.on_change(follower.connection_changed)
    try:
        await nats.flush()
        yield follower
    finally:
        forget()
        await subscription.unsubscribe()
