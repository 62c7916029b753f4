# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A rolling restart under many clients; `RESTART_SOCKETS=1000` runs it with as many."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed

from sandbox.model.actors import Actor
from sandbox.sandbox import Sandbox
from tests.integration.wsproxy.test_wsproxy_process import running
from tests.support.clients.v0 import client, settled
from tests.support.waiting import until
from tests.support.worlds import site as sites
from tests.support.worlds.site import Site

SOCKETS = int(os.environ.get("RESTART_SOCKETS", "60"))
DRAIN_SECONDS = max(2.0, SOCKETS / 100)
GRACE_SECONDS = DRAIN_SECONDS + 5
PAUSE = SOCKETS / 2000
"""Between two changes: all clients together read 2,000 events a second."""
CREATES = [["event_type", "in", ["create"]]]
LAST = "last"


class Follower:
    """A client that goes to the next server when its own says that it stops."""

    def __init__(self, user: Actor) -> None:
        self._user = user
        self.seen: list[str] = []
        self.left: float | None = None
        """When the first server closed its connection."""
        self.subscribed = asyncio.Event()

    async def follow(self, servers: list[str]) -> None:
        """Read up to the event of the object called LAST, from one server after the other."""
        last_id: int | None = None
        for base in servers:
            try:
                async with client(f"{base}/websocket", self._user.token) as reader:
                    await reader.subscribe(CREATES, last_log_id=last_id)
                    self.subscribed.set()
                    while True:
                        event = await reader.event(60)
                        last_id = event["id"]
                        self.seen.append(event["object_uuid"])
                        if event["properties"]["new_attributes"]["name"] == LAST:
                            return
            except ConnectionClosed as closed:
                assert closed.rcvd is not None and closed.rcvd.code == 1001
                self.left = time.monotonic()
            await asyncio.sleep(random.random() / 2)
        raise AssertionError("no server is left")


class Maker:
    """Makes objects all the time."""

    def __init__(self, site: Site, user: Actor) -> None:
        self._site = site
        self._user = user
        self.made: list[str] = []
        self.going = True

    async def make(self) -> None:
        """Until `going` is false; then the last one."""
        while self.going:
            await self._one(f"number {len(self.made)}")
            await asyncio.sleep(PAUSE)
        await self._one(LAST)

    async def _one(self, name: str) -> None:
        self.made.append((await self._site.cluster.collection(name, owner=self._user)).uuid)


async def test_no_client_misses_or_repeats_an_event_over_a_restart(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """SIGTERM: closes are spread over the drain time, the process ends inside the grace period,
    and each client that resumes at the other replica has seen everything once, in order
    (docs/facts/arvados-demand.md G28)."""
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
    drain = str(DRAIN_SECONDS)
    async with (
        sites.beside(sandbox) as site,
        running(site, tmp_path / "old", drain_seconds=drain) as (old, old_url),
        running(site, tmp_path / "new", drain_seconds="0.2") as (_, new_url),
        asyncio.TaskGroup() as tasks,
    ):
        user = await site.cluster.user("one")
        await settled(site.websocket_url, site.api.url, user)
        followers = [Follower(user) for _ in range(SOCKETS)]
        for follower in followers:
            tasks.create_task(follower.follow([old_url, new_url]))
            await asyncio.wait_for(follower.subscribed.wait(), 60)
        maker = Maker(site, user)
        making = tasks.create_task(maker.make())
        async with asyncio.timeout(60):
            while not all(follower.seen for follower in followers):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        begun = time.monotonic()
        await old.stop(signal.SIGTERM, within=GRACE_SECONDS)
        ended = time.monotonic() - begun
        maker.going = False
        await making
    assert old.exit_code == 0
    assert ended < GRACE_SECONDS
    times = sorted(follower.left - begun for follower in followers if follower.left is not None)
    assert len(times) == SOCKETS
    assert times[-1] - times[0] > DRAIN_SECONDS * 0.7
    fullest = max(sum(at <= other < at + DRAIN_SECONDS / 4 for other in times) for at in times)
    assert fullest < SOCKETS / 2, "not all in the same moment"
    wrong = [follower.seen for follower in followers if follower.seen != maker.made]
    assert not wrong, f"{len(wrong)} of {SOCKETS} saw something else"


async def until_refused(port: int) -> None:
    """Nobody listens there any more."""
    async with asyncio.timeout(30):
        with contextlib.suppress(ConnectionRefusedError):
            while True:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                await asyncio.sleep(0.05)


async def test_a_drain_at_leisure_leaves_sockets_as_they_are(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """After SIGTERM they get their events on, while who comes now comes to the next process at the
    same address; the old one ends when the last has left, or at once on a second SIGTERM."""
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
    leisure: dict[str, Any] = {"leisure_seconds": "3600", "drain_seconds": "0.2"}
    async with (
        sites.beside(sandbox) as site,
        running(site, tmp_path / "old", **leisure) as (old, base),
    ):
        user = await site.cluster.user("leisurely")
        await settled(site.websocket_url, site.api.url, user)
        port = int(base.rpartition(":")[2])
        async with client(f"{base}/websocket", user.token) as there:
            await there.subscribe(CREATES)
            os.kill(old.pid, signal.SIGTERM)
            await until_refused(port)
            async with (
                running(site, tmp_path / "new", port=port, **leisure) as (new, _),
                client(f"{base}/websocket", user.token) as late,
            ):
                await late.subscribe(CREATES)
                made = (await site.cluster.collection("both", owner=user)).uuid
                await late.event_about(made)
                await there.event_about(made)
                assert old.running
                await there.socket.close()
                await until(lambda: not old.running, "the old process ends with its last socket")
                assert late.socket.close_code is None
                os.kill(new.pid, signal.SIGTERM)
                await until_refused(port)
                assert late.socket.close_code is None
                os.kill(new.pid, signal.SIGTERM)
                await asyncio.wait_for(late.socket.wait_closed(), 30)
                assert late.socket.close_code == 1001
