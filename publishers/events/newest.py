# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Is anyone missing events? The newest row that Arvados has, beside the newest that is stored.

Every replica looks, also one that stands by: the figures are there while nobody leads. What wsproxy
has delivered stands in a figure of its own (docs/reliability.md).
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC
from typing import NoReturn

from arvados_nats.contract import events, streams, subjects
from arvados_nats.errors import ArvadosNatsError
from arvados_nats.nats.client import Nats
from arvados_nats.permissions import object_facts
from arvados_nats.service.ops import Health
from publishers import metrics
from publishers.postgres.database import Database

logger = logging.getLogger(__name__)

PART = "newest events"

_EVERY_SECONDS = 5.0
_AGAIN_SECONDS = 0.5
"""What failed may be well soon: at the start the stream is not there yet."""
_BEHIND_SECONDS = 30.0
_NEWEST = """
    SELECT max(created_at) FROM logs
    WHERE created_at > now() AT TIME ZONE 'UTC' - interval '1 hour'
        AND created_at < now() AT TIME ZONE 'UTC' - interval '5 seconds' AND uuid IS NOT NULL
"""
"""What is younger may be on its way."""


async def follow(
    nats: Nats, database: Database, health: Health, *, every: float = _EVERY_SECONDS
) -> NoReturn:
    """Compare again and again, until cancelled; what cannot be asked is not well either."""
    while True:
        pause = every
        try:
            behind = await _behind(nats, database)
        except ArvadosNatsError as error:
            health.fault(PART, error)
            pause = _AGAIN_SECONDS
        else:
            if behind > _BEHIND_SECONDS:
                health.fault(
                    PART,
                    f"rows of the last {behind:.0f} s are not in the stream {streams.EVENTS}:"
                    " does a publisher lead, and does NATS store what it is sent?",
                )
            else:
                health.well(PART)
        await asyncio.sleep(pause)


async def _behind(nats: Nats, database: Database) -> float:
    """Seconds between the newest row and the newest event; nothing where there is no new row."""
    newest = await database.fetch_value(_NEWEST)
    last = await nats.last(streams.EVENTS, f"{subjects.EVENTS}.>")
    stored = object_facts.timestamp(events.decode(last.data).created_at) if last else None
    if stored is not None:
        metrics.EVENT_STORED.set(stored)
    if newest is None:
        return 0.0
    row: float = newest.replace(tzinfo=UTC).timestamp()
    metrics.EVENT_ROW.set(row)
    return float(max(0.0, row - (stored or 0.0)))
