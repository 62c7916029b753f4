# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who may not read an object holds up nobody, however many ask about it at once."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from arvados_nats.arvados.tokens import Token
from arvados_nats.errors import Refused
from wsproxy.objects.hub import ObjectHub


class Refusing:
    """Stands for Arvados and for the stream. Somebody else asks in the very turn of its answer."""

    position = 7

    def __init__(self) -> None:
        self.asked = 0
        arvados = source = cast("Any", self)
        self.hub = ObjectHub("zzzzz-xvhdp-000000000000000", source, cast("Any", None), arvados)
        self.others: list[asyncio.Task[Any]] = []

    async def record(self, token: Token, uuid: str, select: list[str]) -> Any:
        self.asked += 1
        if len(self.others) < 3:
            self.others.append(asyncio.create_task(self.hub.load(Token("other"))))
        await asyncio.sleep(0)
        if len(self.others) < 3:
            self.others.append(asyncio.create_task(self.hub.load(Token("another"))))
        raise Refused("not for you")


async def test_strangers_who_ask_at_once_are_each_refused() -> None:
    """It went round in a circle for ever, and with it the whole proxy."""
    arvados = Refusing()
    with pytest.raises(Refused):
        await arvados.hub.load(Token("one"))
    for other in arvados.others:
        with pytest.raises(Refused):
            await other
    assert arvados.asked == 1 + len(arvados.others)
