# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A publisher of container logs as a process of its own, for tests that kill it.

`python -m tests.support.log_replica '<JSON of Place>'`
"""

from __future__ import annotations

import asyncio
import sys

import msgspec

from arvados_nats.arvados import client as arvados_client
from arvados_nats.arvados.tokens import Token
from arvados_nats.contract import streams
from arvados_nats.nats import client as nats_client
from arvados_nats.service.ops import Health
from publishers.container_logs import publisher as container_logs
from publishers.container_logs.pace import Pace
from publishers.container_logs.publisher import Options
from publishers.container_logs.scan import Scan
from publishers.container_logs.source import LogSource
from publishers.postgres import database as postgres

LIMITS = streams.StreamLimits(streams.DEFAULT_LOG_LIMITS.max_age, 1 << 30)
"""What fits the NATS server of the tests."""


class Place(msgspec.Struct, frozen=True):
    """Where everything is, and how often to look, in seconds."""

    nats_url: str
    seed: str
    api_url: str
    token: str
    dsn: str
    fast: float
    slow: float
    confirm: float
    give_up: float
    push: float
    scan: float


async def publish(place: Place, health: Health) -> None:
    """Publish container logs until cancelled, with connections of its own."""
    async with (
        nats_client.connect([place.nats_url], name="replica", seed=place.seed) as nats,
        arvados_client.connect(place.api_url, keep_idle=60) as arvados,
        postgres.connect(place.dsn) as database,
    ):
        source = LogSource(arvados, lambda: Token(place.token), health, calls=8)
        pace = Pace(
            fast=place.fast,
            slow=place.slow,
            confirm=place.confirm,
            give_up=place.give_up,
            push=place.push,
        )
        options = Options(pace, Scan(place.scan), LIMITS)
        await container_logs.run(nats, database, source, health, options)


if __name__ == "__main__":
    asyncio.run(publish(msgspec.json.decode(sys.argv[1], type=Place), Health()))
