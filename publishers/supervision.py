# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Run the parts of the publishers so that one that fails begins anew alone.

Each part has a connection to NATS of its own: a server answers a message that it does not like by
ending the connection for good, and the parts that did not send it go on. A setting that is wrong at
the start ends the process; everything else is tried again.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from prometheus_client import Counter

from arvados_nats.errors import ConfigError, Disagreement, said
from arvados_nats.nats.client import Nats
from arvados_nats.service.ops import STARTING, Health

logger = logging.getLogger(__name__)

RESTARTS = Counter(
    "arvados_nats_publishers_part_restarts_total",
    "Times that a part failed and began anew while the others went on, by part.",
    ["part"],
)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0
_STEADY_SECONDS = 300.0
"""A part that ran for so long fails for the first time again."""


async def keep_running(part: str, health: Health, run: Callable[[], Awaitable[None]]) -> None:
    """Run a part until it ends by itself; begin anew when it fails, later each time."""
    loop = asyncio.get_running_loop()
    failures = 0
    while True:
        began = loop.time()
        try:
            return await run()
        except Exception as error:
            causes = list(_leaves(error))
            if health.faults.get(part) == STARTING and any(
                isinstance(cause, ConfigError) and not isinstance(cause, Disagreement)
                for cause in causes
            ):
                raise
            failures = 1 if loop.time() - began > _STEADY_SECONDS else failures + 1
            _report(part, health, causes[0])
        pause = min(_FIRST_PAUSE * 2 ** min(failures - 1, 10), _LONGEST_PAUSE)
        await asyncio.sleep(random.uniform(0.5, 1) * pause)


def _report(part: str, health: Health, cause: BaseException) -> None:
    RESTARTS.labels(part).inc()
    health.fault(part, said(cause))
    logger.error(
        "a part failed and begins anew",
        extra={"action": "publishers.restart", "part": part},
        exc_info=cause,
    )


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


class Standing:
    """Tells health which parts have no connection to NATS."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._without: set[str] = set()

    @contextmanager
    def of(self, part: str) -> Iterator[Callable[[Nats], None]]:
        """While a part runs; gives what it calls with the connection that it has got."""

        def follow(nats: Nats) -> None:
            nats.on_change(functools.partial(self._set, part))
            self._set(part, True)

        self._set(part, False)
        try:
            yield follow
        finally:
            self._set(part, True)

    def _set(self, part: str, connected: bool) -> None:
        (self._without.discard if connected else self._without.add)(part)
        if self._without:
            self._health.fault("nats", f"no connection: {', '.join(sorted(self._without))}")
        else:
            self._health.well("nats")
