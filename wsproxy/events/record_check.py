# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whether Arvados shows one object to one token: a GET, the same for all who ask meanwhile."""

from __future__ import annotations

import asyncio

from arvados_nats.arvados.client import Arvados
from arvados_nats.arvados.tokens import Token
from arvados_nats.errors import BadInput, Refused
from arvados_nats.single_flight import SingleFlight
from wsproxy import metrics


class RecordCheck:
    """Questions of the whole process; at most `calls` are under way at Arvados at once."""

    def __init__(self, arvados: Arvados, calls: int = 16) -> None:
        self._arvados = arvados
        self._calls = asyncio.Semaphore(calls)
        self._flights = SingleFlight[tuple[bytes, str, bool], bool]("record check")

    async def readable(
        self, token: Token, uuid: str, *, include_trash: bool = False, anew: bool = False
    ) -> bool:
        """Whether GET answers 200; 401, 403 and 404 are a no. Raises Unavailable otherwise.

        `anew`: an answer to a question that was asked before does not count.
        """
        key = (token.digest, uuid, include_trash)
        if anew:
            self._flights.forget(lambda other: other == key)
        return await self._flights.ask(key, lambda: self._get(token, uuid, include_trash))

    async def _get(self, token: Token, uuid: str, include_trash: bool) -> bool:
        async with self._calls:
            metrics.permission_gets.inc()
            try:
                await self._arvados.record(
                    token, uuid, include_trash=include_trash, select=["uuid"]
                )
            except (Refused, BadInput):
                return False
            return True
