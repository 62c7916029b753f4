# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whether Arvados answers: by how the calls of a service end, and by a question of its own.

A controller that hangs says nothing, and neither does a service that nobody asks anything; so
there is always a question under way that needs no token.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import NoReturn, Protocol

from arvados_nats.errors import ArvadosNatsError, Unavailable
from arvados_nats.service.ops import Health

PART = "Arvados"

_EVERY_SECONDS = 5.0
_ANSWER_SECONDS = 5.0
_FAILURES = 3
"""So many calls of a kind without an answer between them are no accident."""
_FORGOTTEN_SECONDS = 60.0
_WHAT_TO_DO = "see whether the controller and the API server behind it work"


class Asked(Protocol):
    """What a probe needs of Arvados."""

    async def exported_config(self) -> object: ...


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
        health.faults.setdefault(PART, "not asked yet")

    def ended(self, call: str, error: Unavailable | None) -> None:
        """A call of this kind was answered, or failed for this reason."""
        if error is None:
            self._failing.pop(call, None)
            self._tell_if_well()
            return
        now = asyncio.get_running_loop().time()
        failing = self._failing.setdefault(call, _Failing(now, now))
        failing.count += 1
        failing.last = now
        if failing.count >= _FAILURES:
            self._health.fault(PART, f"{error}; {_WHAT_TO_DO}")

    async def probe(self, arvados: Asked) -> NoReturn:
        """Ask for what Arvados shows to everybody, again and again."""
        while True:
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    await arvados.exported_config()
            except TimeoutError:
                self.ended("public", Unavailable(f"no answer within {_ANSWER_SECONDS:.0f} s"))
            except ArvadosNatsError:
                pass  # its end was told
            self._forget()
            await asyncio.sleep(_EVERY_SECONDS)

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
