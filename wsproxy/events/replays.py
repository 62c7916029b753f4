# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which part of the past is read next: the oldest that is wanted, with few exceptions.

Who is furthest behind comes by where others wait, and goes on with them: so the past is read once
for all, and many who are far behind come to its end while it grows. In the order in which they came
each would read it alone. That nobody waits for ever, each fourth turn is of who waits for longest.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from operator import itemgetter

AT_ONCE = 4
"""Parts that are read at once. More would have less in common."""
_OF_THE_LONGEST = 4


class Replays:
    """So many turns at once; parts are numbered from the oldest on."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._free = at_once
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._given = 0

    @property
    def ahead(self) -> int | None:
        """How many turns are waited for; None while nobody has to."""
        return None if self._free else len(self._waiting)

    @contextlib.asynccontextmanager
    async def turn(self, part: int) -> AsyncIterator[None]:
        """While it is the turn of a part."""
        if self._free:
            self._free -= 1
        else:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((part, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():  # it was given meanwhile
                    self._next()
                raise
        try:
            yield
        finally:
            self._next()

    def _next(self) -> None:
        while self._waiting:
            self._given += 1
            longest = self._given % _OF_THE_LONGEST == 0
            chosen = self._waiting[0] if longest else min(self._waiting, key=itemgetter(0))
            self._waiting.remove(chosen)
            if not chosen[1].done():
                chosen[1].set_result(None)
                return
        self._free += 1
