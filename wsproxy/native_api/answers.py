# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What may be asked below `arvados.api`, by name, and how many ask at once, by whichever door."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from arvados_nats.contract import subjects
from arvados_nats.contract.answers import Busy, Part
from arvados_nats.errors import BadInput
from wsproxy.native_api.events import NativeEvents
from wsproxy.native_api.logs import NativeLogs
from wsproxy.native_api.objects import NativeObjects
from wsproxy.native_api.reply import Answer, GetJudge

_AT_ONCE = 8
"""Answers that are made at once, each at most `reply.MAX_BYTES`; the others wait."""
PER_USER = 8
IN_ALL = 500
SECONDS = 20.0
"""The server forgets where an answer goes after 30 s without a message (`accounts_config`)."""

OBJECT = f"{subjects.API_OBJECT}."


class Answers:
    """All that is asked of this process."""

    def __init__(self, events: NativeEvents, logs: NativeLogs, objects: NativeObjects) -> None:
        self.by_name: Mapping[str, Answer] = {
            subjects.API_EVENTS: events.answer,
            subjects.API_LOGS: logs.answer,
        }
        self._objects = objects
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._of_user: Counter[str] = Counter()

    def to(self, name: str, payload: bytes, get_judge: GetJudge) -> AsyncIterator[Part]:
        """The answer to a request; BadInput where nothing has this name."""
        answer = self.by_name.get(name)
        if answer is not None:
            return answer(payload, get_judge)
        if not name.startswith(OBJECT):
            raise BadInput("there is nothing of this name to be asked")
        return self._objects.answer(name.removeprefix(OBJECT), payload, get_judge)

    @asynccontextmanager
    async def turn(self, user_uuid: str) -> AsyncIterator[None]:
        """Wait for a place among those who are answered; Busy where too many wait already."""
        if self._of_user[user_uuid] >= PER_USER or self._of_user.total() >= IN_ALL:
            raise Busy("too many requests are under way: wait for an answer, then ask again")
        self._of_user[user_uuid] += 1
        try:
            async with self._turn:
                yield
        finally:
            self._of_user[user_uuid] -= 1
            if not self._of_user[user_uuid]:
                del self._of_user[user_uuid]
