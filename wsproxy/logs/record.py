# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What Arvados tells of one container and its saved log: asked seldom, with the readers' tokens.

What cannot be told now is not known, and never taken for a log without bytes. What Arvados does not
show to one reader it may show to another, so that is the end for this reader alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from arvados_nats.contract.log_chunks import ContainerEnd
from arvados_nats.errors import ArvadosNatsError, Refused
from wsproxy.logs import end as log_end
from wsproxy.logs.frontier import Frontier
from wsproxy.logs.saved import Access, ContainerState, SavedLogs

ASK_SECONDS = 5.0
"""Arvados is asked about a container at most this often."""
_NEVER = float("-inf")
_Reader = tuple[bytes, str | None]


class ContainerRecord:
    """One container's; `known` gives how far the stream has each of its files."""

    def __init__(
        self, container: str, saved: SavedLogs, known: Callable[[], Mapping[str, Frontier]]
    ) -> None:
        self._container = container
        self._saved = saved
        self._known = known
        self._asking = asyncio.Lock()
        self.changed_at = self._asked_at = self._rest_until = _NEVER
        self._end: ContainerEnd | None = None
        self._hidden: dict[_Reader, ContainerEnd] = {}
        self._listing: dict[str, int] | None = None

    def changed(self) -> None:
        """It is over: what was told before does not count any more."""
        self.changed_at = asyncio.get_running_loop().time()
        self._asked_at = _NEVER

    @property
    def was_asked(self) -> bool:
        """Whether Arvados has told of it since it changed last."""
        return self._asked_at > _NEVER

    @property
    def due(self) -> float:
        """Seconds after which Arvados may be asked again."""
        return max(0.0, self._asked_at + ASK_SECONDS - asyncio.get_running_loop().time())

    @property
    def rest(self) -> float:
        """Seconds for which the rest of a log is on its way that was saved a moment ago."""
        return max(0.0, self._rest_until - asyncio.get_running_loop().time())

    def hidden_from(self, access: Access) -> ContainerEnd | None:
        """The end, for a reader to whom Arvados does not show the saved log."""
        return self._hidden.get(_reader(access))

    async def end(self, access: Access) -> ContainerEnd | None:
        """The end, where Arvados' word suffices for it; None also for whom the log is hidden.

        Raises Refused and Unavailable as Arvados does.
        """
        loop = asyncio.get_running_loop()
        async with self._asking:
            if self._end is not None or self._hidden.get(_reader(access)) or self.rest:
                return self._end
            if self.due and not self._hidden:
                return None
            state = await self._saved.state(self._container, access)
            heard = bool(self._known())
            self._rest_until = loop.time() + log_end.rest(state, heard=heard)
            if log_end.certain(state, heard=heard):
                await self._settle(state, access)
            self._asked_at = loop.time()
            return self._end

    async def _settle(self, state: ContainerState, access: Access) -> None:
        sizes: dict[str, int] = {}
        try:
            if state.has_log:
                sizes = await self._saved.sizes(self._container, access)
            gone = state.has_log and not sizes
        except Refused:
            gone = True
        end = log_end.of_saved_log(self._container, state, sizes, self._known())
        if gone:
            self._hidden[_reader(access)] = end
        else:
            self._end = end

    async def listed(self, access: Access) -> Mapping[str, int]:
        """Sizes of the files when they were asked for first, which is once.

        The stream may not have as much yet: then what it brings is not new. Where they cannot be
        told, more lines are sent than were asked for, and none is left out.
        """
        async with self._asking:
            if self._listing is None and self._end is None:
                try:
                    self._listing = await self._saved.sizes(self._container, access)
                except ArvadosNatsError:
                    return {}
        return self._listing or {}


def _reader(access: Access) -> _Reader:
    return access.token.digest, access.request
