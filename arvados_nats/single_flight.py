# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One question at a time for each key, whose answer all get who ask meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Iterator
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")


class SingleFlight(Generic[Key, Answer]):
    """The questions under way; `name` is that of their tasks."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._flights: dict[Key, asyncio.Task[Answer]] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._flights

    def __len__(self) -> int:
        return len(self._flights)

    def __iter__(self) -> Iterator[asyncio.Task[Answer]]:
        return iter(tuple(self._flights.values()))

    async def ask(self, key: Key, work: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        """The answer, or the error, of the question under way; `work` begins one if there is none.

        Who gives up takes the answer from nobody else.
        """
        return await asyncio.shield(self._flights.get(key) or self.begin(key, work()))

    def begin(self, key: Key, work: Coroutine[Any, Any, Answer]) -> asyncio.Task[Answer]:
        """A question anew: who asks from now on does not get an older answer."""
        task = self._flights[key] = asyncio.create_task(work, name=self._name)
        task.add_done_callback(lambda done: self._landed(key, done))
        return task

    def forget(self, wanted: Callable[[Key], bool]) -> None:
        """Nobody who asks from now on gets the answers of these."""
        self._flights = {key: task for key, task in self._flights.items() if not wanted(key)}

    def _landed(self, key: Key, task: asyncio.Task[Answer]) -> None:
        if self._flights.get(key) is task:
            del self._flights[key]
        if not task.cancelled():
            task.exception()  # everybody who waited has it, or has gone
