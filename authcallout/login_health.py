# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whether logins are decided: by how they end, and by one of our own where nobody logs in."""

from __future__ import annotations

import asyncio
from typing import NoReturn

from arvados_nats.errors import ArvadosNatsError, Refused, Unavailable
from arvados_nats.nats import client as nats_client
from arvados_nats.service.ops import Health
from authcallout.callout import PROBE

PART = "logins"

_EVERY_SECONDS = 5.0
_ANSWER_SECONDS = 1.5
"""The servers say no by themselves after 2 s: that is no answer."""
_FAILURES = 3


class LoginHealth:
    """`outcome` is told of each login that somebody had to be asked about."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._failures = 0
        health.faults.setdefault(PART, "none was tried yet")

    def outcome(self, error: ArvadosNatsError | None) -> None:
        """A login was decided, or it was not, for this reason."""
        self._failures = 0 if error is None else self._failures + 1
        if error is None:
            self._health.well(PART)
        elif self._failures >= _FAILURES:
            self._health.fault(PART, f"the last {self._failures} were not decided: {error}")

    async def probe(self, servers: list[str], ca_file: str | None = None) -> NoReturn:
        """Try to log in as nobody, again and again: a quick no is an answer."""
        loop = asyncio.get_running_loop()
        while True:
            asked = loop.time()
            try:
                async with nats_client.connect(
                    servers,
                    name="authcallout probe",
                    token=PROBE,
                    timeout=2 * _ANSWER_SECONDS,
                    ca_file=ca_file,
                ):
                    raise Unavailable("NATS lets everybody in: is auth_callout configured?")
            except Refused:
                taken = loop.time() - asked
                late = Unavailable("NATS has no answer of any callout service in time")
                self._probed(None if taken < _ANSWER_SECONDS else late)
            except ArvadosNatsError as error:
                self._probed(error)
            await asyncio.sleep(_EVERY_SECONDS)

    def _probed(self, error: ArvadosNatsError | None) -> None:
        """What the way through NATS is like; a failure of it alone counts."""
        if error is not None:
            self._health.fault(PART, error)
        elif self._failures < _FAILURES:
            self._health.well(PART)
