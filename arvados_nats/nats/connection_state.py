# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whether a connection to NATS stands, and who wants to know when that changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NoReturn

from arvados_nats.errors import Unavailable

logger = logging.getLogger(__name__)


class Standing:
    """The state of one connection, as the client library's callbacks tell it."""

    def __init__(self) -> None:
        self._closed = asyncio.Event()
        self._standing = asyncio.Event()
        self._listeners: list[Callable[[bool], None]] = []
        self._leaving = False

    def on_change(self, listener: Callable[[bool], None]) -> Callable[[], None]:
        """Call `listener(connected)` when the connection is lost and when it is back.

        Gives a function that ends it.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def until_closed(self) -> NoReturn:
        """Wait until the server has shut us out for good, then raise Unavailable."""
        await self._closed.wait()
        raise Unavailable("the NATS server has ended the connection for good")

    async def until_connected(self) -> None:
        """Return when the connection stands; at once if it does."""
        await self._standing.wait()

    def begun(self) -> None:
        """The first connect has succeeded."""
        self._standing.set()

    def leave(self) -> None:
        """We end the connection ourselves, of which nobody is told."""
        self._leaving = True

    async def lost(self) -> None:
        self._standing.clear()
        if not self._leaving:
            self._tell(False)

    async def regained(self) -> None:
        self._standing.set()
        self._tell(True)

    async def ended(self) -> None:
        self._closed.set()

    def _tell(self, connected: bool) -> None:
        logger.warning(
            "NATS connection changed", extra={"action": "nats.connection", "connected": connected}
        )
        for listener in self._listeners:
            listener(connected)
