# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Tell which tokens are gone: logout and expiry leave no log row (docs/facts/arvados.md 1,
Revocations).

Every replica looks every few seconds, at the moment when the next token ends, and when an event of
a token comes; the one that leads tells. Whoever takes over tells once more what it saw end just
before, since the one that led may not have. A token that has another user or other scopes than
before is told gone as well: its holder comes back and is asked about anew. One that became `stale`
(`token_query`) is told as such: whoever serves its holder asks Arvados once.

A token may be made and logged out of between two looks. So every replica also hears which tokens
are asked about (`token_follow` asks about each that comes into use), and the next look finds them
alive, and so remembers them, or tells that they are gone.
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
from publishers.permissions.token_query import LiveToken, TokenQuery
from publishers.retry import Attempts

logger = logging.getLogger(__name__)

SWEEP = 3.0
"""Seconds between two looks."""
_AT_LEAST = 0.1
_REMEMBERED = 30.0
"""Seconds for which a replica that does not lead remembers what it saw end."""
_TOKEN_EVENTS = f"{subjects.STORED_EVENTS}.api_client_authorization.>"


class TokenSweep:
    """Remembers the live tokens between two looks."""

    def __init__(self, nats: Nats, query: TokenQuery, *, every: float = SWEEP) -> None:
        self._nats = nats
        self._query = query
        self._every = every
        self._wake = asyncio.Event()
        self._live: dict[str, LiveToken] | None = None
        self._digest = ""
        self._asked: set[str] = set()
        self._leading = False
        self._untold: list[tuple[float, TokenGone]] = []

    async def run(self, attempts: Attempts) -> NoReturn:
        """Look until cancelled; while the database is away, try again."""
        await self._nats.subscribe(_TOKEN_EVENTS, self._token_event)
        await self._nats.subscribe(subjects.TOKENS_GET, self._question)
        while True:
            pause = 0.0
            try:
                pause = await self._look()
                attempts.succeeded()
            except ArvadosNatsError as error:
                await attempts.failed(error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(pause, _AT_LEAST)):
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

    async def _token_event(self, _: Message) -> None:
        self._wake.set()

    async def _question(self, message: Message) -> None:
        try:
            self._asked.update(msgspec.json.decode(message.data, type=list[str]))
        except MALFORMED as error:
            raise BadInput(f"not a list of tokens: {error}") from error

    async def _look(self) -> float:
        """Note what is gone; the seconds until the next look."""
        asked = frozenset(self._asked)  # what is asked from now on may be younger than the answer
        seen = await self._query.digest()
        metrics.SWEEPS.inc()
        before = self._live
        if before is None or seen.digest != self._digest:
            live, digest = await self._query.all_live()
        else:
            live, digest = before, self._digest
        now = asyncio.get_running_loop().time()
        # A first look has nothing to compare with; readers ask about their tokens themselves.
        gone = await self._difference(before or {}, live, asked)
        self._untold += [(now, told) for told in gone]
        self._live, self._digest = live, digest
        self._asked -= asked
        if self._leading:
            await self._tell_untold()
        if seen.next_end is None:
            return self._every
        return min(max(seen.next_end - seen.now, 0), self._every)

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
