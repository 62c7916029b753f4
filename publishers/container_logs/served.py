# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whether this release of Arvados serves container logs where they are read: since 2.7."""

from __future__ import annotations

import asyncio
import logging

from arvados_nats.arvados.client import Arvados, release
from arvados_nats.errors import ArvadosNatsError
from arvados_nats.service.ops import Health

logger = logging.getLogger(__name__)

_SINCE = (2, 7)
_EVERY = 600.0
"""Seconds between two looks for an upgrade."""


async def until_served(arvados: Arvados, health: Health, *, every: float = _EVERY) -> None:
    """Return as soon as they are, at once where nobody says how old Arvados is; told once."""
    told = False
    while (found := await _release(arvados)) is not None and found < _SINCE:
        health.well("container logs")
        if not told:
            told = True
            logger.warning(
                "container logs are not read: Arvados serves them at"
                " container_requests/{uuid}/log since 2.7",
                extra={"action": "logs.not_served", "release": "{}.{}".format(*found)},
            )
        await asyncio.sleep(every)


async def _release(arvados: Arvados) -> tuple[int, int] | None:
    try:
        return release(await arvados.discovery())
    except ArvadosNatsError:
        return None
