# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whether a stream is the one that it was: sequences of two lives of it mean nothing to each other.

A stream that is made anew has another date. But servers that have lost the messages of a stream
alone make it anew with its old one, and a store that is rolled back keeps it; so the newest message
of the last look is looked at again, too.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from arvados_nats.nats.history import StoredMessage

_AGAIN = (0.2, 0.4)
"""A server that stood still takes itself for a stream's leader for a moment when it goes on, and
lacks what came meanwhile: it is asked again after so many seconds."""


class Looks(Protocol):
    """What a look needs of a NATS connection."""

    async def stream_info(self, name: str) -> dict[str, Any] | None: ...

    async def at(self, stream: str, sequence: int) -> StoredMessage | None: ...


class Life:
    """One life of a stream: the one of the first look, or of a message that was seen before."""

    def __init__(
        self, nats: Looks, stream: str, created: str = "", last: int = 0, last_at: str = ""
    ) -> None:
        """`created`: when the stream was made; `last_at`: when message `last` was stored."""
        self.created = created
        self.first = 0
        self.last = last
        """The newest message at the last look."""
        self.last_at = last_at
        """When it was stored; empty where nobody knows."""
        self.looked_at = ""
        """By the server's clock, as `created` and `last_at`."""
        self._nats = nats
        self._stream = stream
        self._over = False

    async def look(self) -> bool | None:
        """Whether the stream is still the same; once it is not, this life is over. None while
        there is no stream.

        Raises Unavailable when NATS does not tell.
        """
        for pause in (*_AGAIN, None):
            seen, seen_at = self.last, self.last_at
            info = await self._nats.stream_info(self._stream)
            if info is None or self._over:
                break
            if await self._has(seen, seen_at, info):
                self._note(info)
                return True
            if pause is None or self.created not in ("", info["created"]):
                self._over = True
                break
            await asyncio.sleep(pause)
        return None if info is None else False

    async def _has(self, seen: int, seen_at: str, info: dict[str, Any]) -> bool:
        """Whether the stream has the message that was seen, or may have had it."""
        last, last_at = int(info["state"]["last_seq"]), _time(info["state"].get("last_ts", ""))
        if self.created not in ("", info["created"]) or last < seen:
            return False
        if seen < last and seen_at:
            found = await self._nats.at(self._stream, seen)
            last_at = found.time if found else ""
        return "" in (seen_at, last_at) or seen_at == last_at

    def _note(self, info: dict[str, Any]) -> None:
        state = info["state"]
        self.created, self.first = info["created"], int(state["first_seq"])
        self.looked_at = info.get("ts", "")
        if int(state["last_seq"]) > self.last:  # else somebody else has looked meanwhile
            self.last, self.last_at = int(state["last_seq"]), _time(state["last_ts"])


def _time(text: str) -> str:
    """When a message was stored; of none servers say the year 1."""
    return "" if text.startswith("0001-") else text
