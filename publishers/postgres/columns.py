# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What Arvados' database has, and what of it the role may read, as it is now.

An upgrade of Arvados under running publishers adds columns, and no statement fails for it; a
downgrade takes them away. So knowledge is a few seconds old at most, and looked at anew when a
statement was refused for want of something.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn

from arvados_nats.errors import ArvadosNatsError
from arvados_nats.postgres import arvados_tables
from arvados_nats.postgres.arvados_tables import Column, Found
from arvados_nats.service.ops import Health

logger = logging.getLogger(__name__)

FRESH = 3.0
"""Seconds for which a look counts."""
_EVERY = 10.0
_PART = "tables"


Fetch = Callable[..., Awaitable[Sequence[Any]]]


class Columns:
    """Looks by a function that fetches rows; get it from `postgres.Database`."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._turn = asyncio.Lock()
        self._found = Found()
        self._seen_at = float("-inf")

    async def has(self, column: Column) -> bool:
        """Whether the column is there, readable or not: what is not granted must be complained of,
        not left out."""
        return (await self.found()).has(column)

    async def found(self, *, fresh: float | None = None) -> Found:
        """What was seen within the last `fresh` seconds, or `FRESH`."""
        within = FRESH if fresh is None else fresh
        asked_at = time.monotonic()
        async with self._turn:
            if self._seen_at <= asked_at - within:
                started = time.monotonic()
                (row,) = await self._fetch(arvados_tables.LOOK, *arvados_tables.LOOK_ARGUMENTS)
                self._found, self._seen_at = arvados_tables.found(row), started
            return self._found

    async def lacking(self) -> str | None:
        """What is missing at this moment, by name and with its remedy."""
        return "; ".join(arvados_tables.lacks(await self.found(fresh=0))) or None

    async def follow(self, health: Health) -> NoReturn:
        """Tell what is missing, and once what this release does not have, until cancelled."""
        told: set[str] = set()
        while True:
            try:
                seen = await self.found()
            except ArvadosNatsError as error:
                health.fault(_PART, error)
            else:
                if lacks := arvados_tables.lacks(seen):
                    health.fault(_PART, "; ".join(lacks))
                else:
                    health.well(_PART)
                for text in set(arvados_tables.older(seen)) - told:
                    logger.info(
                        "older release of Arvados",
                        extra={"action": "postgres.older", "lacks": text},
                    )
                    told.add(text)
            await asyncio.sleep(_EVERY)
