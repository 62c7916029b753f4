# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What costs much is done for a few at once, and for one user never for all of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from weakref import WeakValueDictionary


class Fair:
    """So many turns at once, of one user so many; the others wait in order."""

    def __init__(self, most: int, of_user: int) -> None:
        self._all = asyncio.Semaphore(most)
        self._of_user = of_user
        self._users: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def full(self, user: str) -> bool:
        """Whether one more of this user would have to wait."""
        return self._all.locked() or self._own(user).locked()

    @contextlib.asynccontextmanager
    async def turn(self, user: str) -> AsyncIterator[None]:
        """While it is this user's turn."""
        async with self._own(user), self._all:
            yield

    def _own(self, user: str) -> asyncio.Semaphore:
        own = self._users.get(user)
        if own is None:
            own = self._users[user] = asyncio.Semaphore(self._of_user)
        return own
