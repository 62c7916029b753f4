# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A stream that is there for as long as somebody relies on it, and the same one.

A store can be lost, and a stream can be deleted, under running services. Whoever made it then
begins anew: what it knew of the old one means nothing for the new one, which has to be filled
again from Arvados.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

from arvados_nats.contract import streams
from arvados_nats.errors import ArvadosNatsError, Unavailable, said
from arvados_nats.nats.client import Nats
from arvados_nats.nats.lives import Life
from arvados_nats.service.ops import Health
from publishers.retry import Attempts

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_UNANSWERED_SECONDS = 10.0
_UNANSWERED = "NATS says nothing of this stream: do most of the servers that keep it run?"


async def until_lost(life: Life, stream: str, health: Health) -> NoReturn:
    """Raise Unavailable once this life of the stream is over.

    While NATS does not answer nothing is known, and nothing is lost; if it does not for long,
    health says so, as a part of its own: under the stream's name its writer says what it cannot
    store.
    """
    part = f"servers of {stream}"
    clock = asyncio.get_running_loop().time
    answered = clock()
    try:
        while True:
            try:
                if not await life.look():
                    break
                answered = clock()
                health.well(part)
            except ArvadosNatsError as error:
                if clock() - answered > _UNANSWERED_SECONDS:
                    health.fault(part, f"{_UNANSWERED} ({said(error)})")
            await asyncio.sleep(_LOOK_SECONDS)
    finally:
        health.well(part)
    logger.warning("a stream was lost", extra={"action": "streams.lost", "stream": stream})
    raise Unavailable(f"the stream {stream} was lost; it is made anew and filled from Arvados")


async def keep(
    nats: Nats,
    config: dict[str, Any],
    attempts: Attempts,
    work: Callable[[Life], Awaitable[None]],
) -> NoReturn:
    """Make the stream and do `work(life)` on it, and both again whenever it was lost."""
    while True:
        try:
            async with asyncio.TaskGroup() as tasks:
                await streams.ensure(nats, config)
                life = Life(nats, config["name"])
                if not await life.look():
                    raise Unavailable(f"the stream {config['name']} was lost as it was made")
                tasks.create_task(until_lost(life, config["name"], attempts.health))
                await work(life)
        except* ArvadosNatsError as group:
            failure = first_of(group)
        await attempts.failed(failure)


def first_of(group: BaseExceptionGroup[ArvadosNatsError]) -> ArvadosNatsError:
    """The first failure in a group of them."""
    for error in group.exceptions:
        return error if isinstance(error, ArvadosNatsError) else first_of(error)
    raise AssertionError("a group is never empty")
