# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whether Arvados answers: by how the calls of a service end, and by a question of its own.

A controller that hangs says nothing, and neither does a service that nobody asks anything; so it
is asked again and again for what it shows to everybody. It tells that alone, while the API server
behind it may be down; so where nobody's token leads to a question, one that nobody has does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import NoReturn, Protocol

from arvados_nats.errors import ArvadosNatsError, Unavailable
from arvados_nats.service.ops import Health

PART = "Arvados"

_PUBLIC, _TOKEN = "public", "token"
"""Kinds of call (`arvados.client.Ended`)."""

_EVERY_SECONDS = 5.0
_ANSWER_SECONDS = 5.0
_QUIET_SECONDS = 10.0
"""Without a question about a token for so long we ask one: the API server takes few at a time."""
_FAILURES = 3
"""So many calls of a kind without an answer between them are no accident."""
_FORGOTTEN_SECONDS = 60.0
_WHAT_TO_DO = "see whether the controller and the API server behind it work"


class Asked(Protocol):
    """What a probe needs of Arvados."""

    async def exported_config(self) -> object: ...

    async def refuse_nobody(self) -> None: ...


@dataclass(slots=True)
class _Failing:
    since: float
    last: float
    count: int = 0


class ArvadosHealth:
    """Tells health; `ended` is for `arvados_client.connect`."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._failing: dict[str, _Failing] = {}
        self._last_token = float("-inf")
        health.faults.setdefault(PART, "not asked yet")

    def ended(self, call: str, error: Unavailable | None) -> None:
        """A call of this kind was answered, or failed for this reason."""
        now = asyncio.get_running_loop().time()
        if call == _TOKEN:
            self._last_token = now
        if error is None:
            self._failing.pop(call, None)
            self._tell_if_well()
            return
        failing = self._failing.setdefault(call, _Failing(now, now))
        failing.count += 1
        failing.last = now
        if failing.count >= _FAILURES:
            self._health.fault(PART, f"{error}; {_WHAT_TO_DO}")

    async def probe(self, arvados: Asked) -> NoReturn:
        """Ask the controller, and the API server behind it if nobody else does, for ever."""
        while True:
            await self._ask(_PUBLIC, arvados.exported_config())
            if self._nobody_asked():
                await self._ask(_TOKEN, arvados.refuse_nobody())
            self._forget()
            await asyncio.sleep(_EVERY_SECONDS)

    async def _ask(self, call: str, answer: Awaitable[object]) -> None:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await answer
        except TimeoutError:
            self.ended(call, Unavailable(f"no answer within {_ANSWER_SECONDS:.0f} s"))
        except ArvadosNatsError:
            pass  # its end was told

    def _nobody_asked(self) -> bool:
        quiet = _EVERY_SECONDS if _TOKEN in self._failing else _QUIET_SECONDS
        return asyncio.get_running_loop().time() - self._last_token >= quiet

    def _forget(self) -> None:
        """What nobody asks any more says nothing about now."""
        now = asyncio.get_running_loop().time()
        for call, failing in tuple(self._failing.items()):
            if now - failing.last > _FORGOTTEN_SECONDS:
                del self._failing[call]
        self._tell_if_well()

    def _tell_if_well(self) -> None:
        if not self._failing:
            self._health.well(PART)
