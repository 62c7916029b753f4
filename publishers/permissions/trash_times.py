# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Tell what the trash hides when its time comes, which leaves no log row (docs/facts/arvados.md 1).

Whoever sees the project has heard the time before. Who has a right to a request, workflow or
project in it from a link of its own hears of the project nothing at all.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import NoReturn

from arvados_nats.contract import subjects
from arvados_nats.errors import ArvadosNatsError
from arvados_nats.nats.client import Nats
from arvados_nats.permission_client import grants_messages
from arvados_nats.permission_client.grants_messages import GrantsHidden
from publishers.postgres import places
from publishers.postgres.database import Database

_EVERY = 2.0
_BACK = 30.0
"""Seconds that each look goes back: what was committed late, or came while nobody led."""
_CLOCK = "SELECT extract(epoch FROM statement_timestamp())::float8"


async def tell(nats: Nats, database: Database, leads: Callable[[], bool]) -> NoReturn:
    """Until cancelled, while this replica leads. That the database is away is told by others."""
    told: frozenset[str] = frozenset()
    while True:
        with contextlib.suppress(ArvadosNatsError):
            if leads():
                now = await database.fetch_value(_CLOCK)
                found = await places.hidden_between(database, now - _BACK, now)
                if hidden := found - told:
                    message = grants_messages.encode(GrantsHidden(tuple(hidden)))
                    await nats.publish(subjects.GRANTS_HIDDEN, message)
                told = found
        await asyncio.sleep(_EVERY)
