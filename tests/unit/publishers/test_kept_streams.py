# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A stream that is kept is made again whenever it is lost, also as it is made."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from arvados_nats.errors import Unavailable
from arvados_nats.nats.client import Nats
from arvados_nats.nats.lives import Life
from arvados_nats.service.ops import Health
from publishers.jetstream import kept
from publishers.retry import Attempts
from tests.support.background import background
from tests.support.waiting import until


def _info(created: str) -> dict[str, Any]:
    return {"created": created, "state": {"first_seq": 1, "last_seq": 0}}


class Server:
    """Loses the first stream before anybody can ask when it was made."""

    def __init__(self) -> None:
        self.made = 0

    async def stream_config(self, _: str) -> dict[str, Any] | None:
        return None

    async def js_api(self, call: str, _: Any, **__: Any) -> None:
        assert call == "STREAM.CREATE.KEPT"
        self.made += 1

    async def stream_info(self, _: str) -> dict[str, Any] | None:
        return _info(str(self.made)) if self.made > 1 else None


async def test_a_stream_lost_as_it_is_made_is_made_again() -> None:
    """Work never begins on a stream that is not there, and nobody waits for that to change."""
    server, worked = Server(), asyncio.Queue[Life]()
    attempts = Attempts(Health(), "kept")
    keeping = asyncio.create_task(
        kept.keep(cast(Nats, server), {"name": "KEPT"}, attempts, worked.put)
    )
    async with asyncio.timeout(60):
        assert (await worked.get()).created == "2"
    keeping.cancel()
    await asyncio.wait([keeping])


class Leaderless:
    """Knows the stream, and says nothing of it for a while."""

    silent = False
    asked = 0

    async def stream_info(self, _: str) -> dict[str, Any]:
        self.asked += 1
        if self.silent:
            raise Unavailable("NATS: no answer in time")
        return _info("then")

    async def at(self, *_: object) -> None:
        """It has no message."""


async def test_health_names_a_stream_of_which_nats_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Until it does again; whoever writes to it waits meanwhile."""
    monkeypatch.setattr("publishers.jetstream.kept._LOOK_SECONDS", 0.01)
    monkeypatch.setattr("publishers.jetstream.kept._UNANSWERED_SECONDS", 0.05)
    server, health = Leaderless(), Health()
    async with background(kept.until_lost(Life(server, "KEPT"), "KEPT", health)):
        for _ in range(2):
            server.silent = True
            await until(lambda: "no answer in time" in (health.error or ""))
            assert "KEPT" in str(health.error)
            server.silent = False
            await until(lambda: health.error is None)
        server.silent = True
        await until(lambda: health.error is not None)
    assert not health.faults


async def test_what_a_writer_says_of_its_stream_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk stores nothing, and its server answers what it is asked about the stream."""
    monkeypatch.setattr("publishers.jetstream.kept._LOOK_SECONDS", 0.01)
    server, health = Leaderless(), Health()
    health.fault("KEPT", Unavailable("insufficient resources"))
    async with background(kept.until_lost(Life(server, "KEPT"), "KEPT", health)):
        await until(lambda: server.asked > 2)
        assert "insufficient resources" in str(health.error)
    assert "insufficient resources" in str(health.error)
