# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Tell which tokens are gone: logout and expiry leave no log row (docs/facts/arvados.md 1,
Revocations).

Every replica hears which tokens are asked about: whoever lets a token in asks soon afterwards, and
again at intervals (`tokens_watch`). Those are the ones in use, and no others are looked at. Every
replica looks every few seconds, at the moment when the next of them ends, and when an event of one
comes; the one that leads tells. Whoever takes over tells once more what it saw end just
before, since the one that led may not have. A token that has another user or other scopes than
before is told gone as well: its holder comes back and is asked about anew. One that became `stale`
(`token_query`) is told as such: whoever serves its holder asks Arvados once.

A token may be made and logged out of between two looks: the look after the question finds it alive,
and so remembers it, or tells that it is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn

import msgspec

from arvados_nats.contract import subjects
from arvados_nats.errors import MALFORMED, ArvadosNatsError, BadInput
from arvados_nats.nats.client import Message, Nats
from arvados_nats.permission_client import grants_messages
from arvados_nats.permission_client.grants_messages import TOKEN_STALE, TokenGone
from publishers.permissions import metrics
from publishers.permissions.answers import MAX_ASKED
from publishers.permissions.token_query import LiveToken, TokenQuery
from publishers.retry import Attempts

logger = logging.getLogger(__name__)

SWEEP = 3.0
"""Seconds between two looks."""
UNASKED = 300.0
"""Seconds after which a token that nobody asks about is not in use any more: a few rounds of those
who ask, and as long as `identities.Lifetimes.stale`."""
_REST = 2.0
"""Rest after a look, as a multiple of the time it took: a flood of events costs a bounded part of
the database's time."""
_LONGEST_REST = 2.0
_REMEMBERED = 30.0
"""Seconds for which a replica that does not lead remembers what it saw end."""
_TOKEN_EVENTS = f"{subjects.STORED_EVENTS}.api_client_authorization.>"


class TokenSweep:
    """Remembers the live tokens in use between two looks."""

    def __init__(self, nats: Nats, query: TokenQuery, *, every: float = SWEEP) -> None:
        self._nats = nats
        self._query = query
        self._every = every
        self._wake = asyncio.Event()
        self._live: dict[str, LiveToken] | None = None
        self._digest = ""
        self._asked: set[str] = set()
        """Since the last look."""
        self._asked_at: dict[str, float] = {}
        self._leading = False
        self._untold: list[tuple[float, TokenGone]] = []

    @property
    def leads(self) -> bool:
        """Whether this replica tells."""
        return self._leading

    @property
    def watched(self) -> frozenset[str]:
        """The tokens that lived and were in use at the last look."""
        return frozenset(self._live or ())

    async def run(self, attempts: Attempts) -> NoReturn:
        """Look until cancelled; while the database is away, try again."""
        await self._nats.subscribe(_TOKEN_EVENTS, self._token_event)
        await self._nats.subscribe(subjects.TOKENS_GET, self._question)
        loop = asyncio.get_running_loop()
        while True:
            pause, started = 0.0, loop.time()
            try:
                pause = await self._look()
                attempts.succeeded()
            except ArvadosNatsError as error:
                await attempts.failed(error)
            await asyncio.sleep(min((loop.time() - started) * _REST, _LONGEST_REST))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            self._wake.clear()

    @asynccontextmanager
    async def leading(self) -> AsyncIterator[None]:
        """Tell, as long as the body runs."""
        if self._live is None:
            await self._look()
        self._leading = True
        try:
            await self._tell_untold()
            yield
        finally:
            self._leading = False

    async def _token_event(self, message: Message) -> None:
        if message.subject.split(".")[4] in self._asked_at:
            self._wake.set()

    async def _question(self, message: Message) -> None:
        try:
            asked = msgspec.json.decode(message.data, type=list[str])
        except MALFORMED as error:
            raise BadInput(f"not a list of tokens: {error}") from error
        if len(asked) > MAX_ASKED:
            raise BadInput(f"more than {MAX_ASKED} tokens in one question")
        self._asked.update(asked)
        if not self._asked_at.keys() >= set(asked):
            self._wake.set()
        self._asked_at |= dict.fromkeys(asked, asyncio.get_running_loop().time())

    async def _look(self) -> float:
        """Note what is gone; the seconds until the next look."""
        now = asyncio.get_running_loop().time()
        asked = frozenset(self._asked)  # what is asked from now on may be younger than the answer
        before = self._in_use(now - UNASKED)
        watched = before.keys() | asked
        seen = await self._query.digest(watched)
        metrics.SWEEPS.inc()
        if seen.digest != self._digest or asked - before.keys():
            live, digest = await self._query.alive(watched)
        else:
            live, digest = before, self._digest
        gone = await self._difference(before, live, asked)
        self._untold += [(now, told) for told in gone]
        self._live, self._digest = live, digest
        self._asked -= asked
        if self._leading:
            await self._tell_untold()
        if seen.next_end is None:
            return self._every
        return min(max(seen.next_end - seen.now, 0), self._every)

    def _in_use(self, since: float) -> dict[str, LiveToken]:
        """Those that somebody has asked about since then; the others are forgotten."""
        self._asked_at = {uuid: at for uuid, at in self._asked_at.items() if at >= since}
        live = self._live or {}
        return {uuid: token for uuid, token in live.items() if uuid in self._asked_at}

    async def _difference(
        self,
        before: dict[str, LiveToken],
        now: dict[str, LiveToken],
        asked: frozenset[str],
    ) -> list[TokenGone]:
        gone = (before.keys() | asked) - now.keys()
        left = await self._query.left(gone) if gone else set()
        ended = [TokenGone(uuid, "expired" if uuid in left else "deleted") for uuid in gone]
        if before is now:
            return ended
        both = before.keys() & now.keys()
        ended += [TokenGone(u, "changed") for u in both if before[u][:2] != now[u][:2]]
        # Who asked may have been answered before it became stale.
        told = {u: before[u].stale_since for u in both} | dict.fromkeys(asked - before.keys())
        return ended + [
            TokenGone(u, TOKEN_STALE)
            for u in told.keys() & now.keys()
            if now[u].stale_since not in (None, told[u])
        ]

    async def _tell_untold(self) -> None:
        recent = asyncio.get_running_loop().time() - _REMEMBERED
        untold, self._untold = self._untold, []
        for seen_at, told in untold:
            if seen_at < recent:
                continue
            metrics.TOKENS_GONE.labels(told.reason).inc()
            logger.info(
                "token gone",
                extra={
                    "action": "tokens.gone",
                    "token_uuid": told.token_uuid,
                    "reason": told.reason,
                },
            )
            subject = subjects.token_gone(told.token_uuid)
            await self._nats.publish(subject, grants_messages.encode(told))
