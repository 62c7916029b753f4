# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whether the publishers answer: all that a service decides rests on what they read.

A service that runs while nobody reads Arvados' database lets people in and shows them nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import NoReturn

import msgspec

from arvados_nats.contract import subjects
from arvados_nats.errors import ArvadosNatsError, Unavailable
from arvados_nats.nats.client import Nats
from arvados_nats.permission_client import grants_messages
from arvados_nats.permission_client.grants_messages import GrantsQuestion
from arvados_nats.permission_client.own_tokens import OwnTokens
from arvados_nats.service.ops import Health

PART = "publishers"
_EVERY, _SOON = 15.0, 1.0
_NOBODY = "zzzzz-tpzed-" + "0" * 15


async def probe(nats: Nats, own: OwnTokens, health: Health) -> NoReturn:
    """Ask now and then until cancelled; not well before the first answer."""
    health.faults.setdefault(PART, "none has answered yet: do they run?")
    while True:
        why = await unanswered(nats)
        with contextlib.suppress(ArvadosNatsError):  # others tell of Arvados and the streams
            why = why or await own.elsewhere()
        if why is None:
            health.well(PART)
        else:
            health.fault(PART, why)
        await asyncio.sleep(_SOON if why else _EVERY)


async def unanswered(nats: Nats) -> str | None:
    """Why there is no answer about users and tokens; None if there is one."""
    grants = msgspec.json.encode(GrantsQuestion({_NOBODY: ""}))
    for subject, question in ((subjects.TOKENS_GET, b"[]"), (subjects.GRANTS_GET, grants)):
        try:
            answer = await nats.request(subject, question)
        except Unavailable:
            return "no publisher answers: do they run, and what does their health say?"
        try:
            grants_messages.check_answer(answer.headers)
        except Unavailable as error:
            return str(error)
    return None
