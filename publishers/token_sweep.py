# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Tell which tokens are gone: logout and expiry leave no log row (facts/arvados.md 1, Revocations).

Run by the replica that leads. It looks every few seconds, at the moment when the next token ends,
and when an event of a token comes. A token that has another user or other scopes than before is
told gone as well: its holder comes back and is asked about anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import NoReturn

from arvados_nats import grants_wire, subjects
from arvados_nats.grants_wire import TokenGone
from arvados_nats.nats_client import Message, Nats
from publishers import grants_metrics as metrics
from publishers.token_query import TokenQuery

logger = logging.getLogger(__name__)

SWEEP = 3.0
"""Seconds between two looks."""
_AT_LEAST = 0.1
_TOKEN_EVENTS = f"{subjects.STORED_EVENTS}.api_client_authorization.>"


class TokenSweep:
    """Remembers the live tokens between two looks."""

    def __init__(self, nats: Nats, query: TokenQuery, *, every: float = SWEEP) -> None:
        self._nats = nats
        self._query = query
        self._every = every
        self._wake = asyncio.Event()
        self._live: dict[str, tuple[int, str]] | None = None
        self._digest = ""

    async def run(self, ready: Callable[[], None] = lambda: None) -> NoReturn:
        """Look and tell until cancelled; Unavailable ends it."""
        subscription = await self._nats.subscribe(_TOKEN_EVENTS, self._token_event)
        try:
            pause = await self._look()
            ready()
            while True:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), pause)
                self._wake.clear()
                pause = await self._look()
                await asyncio.sleep(_AT_LEAST)
        finally:
            await subscription.unsubscribe()

    async def _token_event(self, _: Message) -> None:
        self._wake.set()

    async def _look(self) -> float:
        """Tell what is gone; the seconds until the next look."""
        seen = await self._query.digest()
        metrics.SWEEPS.inc()
        if seen.digest != self._digest:
            live = await self._query.all_live()
            # A first look has nothing to compare with; readers ask about their tokens themselves.
            if self._live is not None:
                await self._tell(self._live, live)
            self._live, self._digest = live, seen.digest
        if seen.next_end is None:
            return self._every
        return min(max(seen.next_end - seen.now, 0), self._every)

    async def _tell(
        self, before: dict[str, tuple[int, str]], now: dict[str, tuple[int, str]]
    ) -> None:
        gone = before.keys() - now.keys()
        expired = await self._query.left(gone) if gone else set()
        reasons = {uuid: "expired" if uuid in expired else "deleted" for uuid in gone}
        reasons |= {
            uuid: "changed" for uuid in before.keys() & now.keys() if before[uuid] != now[uuid]
        }
        for uuid, reason in reasons.items():
            metrics.TOKENS_GONE.labels(reason).inc()
            logger.info(
                "token gone",
                extra={"action": "tokens.gone", "token_uuid": uuid, "reason": reason},
            )
            payload = grants_wire.encode(TokenGone(uuid, reason))
            await self._nats.publish(subjects.token_gone(uuid), payload)
