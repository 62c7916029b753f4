# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Any bytes, written and read in any portions, arrive as they are, through v1, SSE and the command.

Connections are cut anywhere and taken up at another replica of the proxy; replicas of the log
publisher come and go, the way to the node is cut, the log is saved in the middle.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arvados_nats.client import stream
from arvados_nats.commands.command import Notes
from arvados_nats.commands.log_lines.printers import Copy
from arvados_nats.commands.logs import LogSelection, Show
from sandbox.cluster import Cluster
from sandbox.model.actors import Actor
from sandbox.model.records import Record
from tests.support.clients.v1 import connected
from tests.support.worlds import site as sites
from tests.support.worlds.shared_site import publisher
from tests.support.worlds.site import Site
from tests.v1.test_sse import opened

FILES = ("stdout.txt", "stderr.txt")
Event = Literal["second", "leave", "tunnel", "checkpoint", "cut"]
Step = tuple[str, bytes | int] | Event

_pieces = st.one_of(
    st.binary(min_size=1, max_size=60),
    st.text(min_size=1, max_size=30).map(str.encode),
    st.sampled_from([b"\n", "é€😀\n".encode(), b"\xf0\x9f", b"\0", b"\r50%\r"]),
    st.integers(1, 100_000),
)
_writes = st.tuples(st.sampled_from(FILES), _pieces)
_events = st.sampled_from(("second", "leave", "tunnel", "checkpoint", "cut"))
_steps = st.lists(st.one_of(_writes, _writes, _events), min_size=1, max_size=14)
_cuts = st.lists(st.integers(1, 4), max_size=8)


@pytest.fixture(scope="module")
async def bases(site: Site) -> AsyncIterator[list[str]]:
    """Two replicas of the proxy."""
    first = site.websocket_url.removesuffix("/websocket")
    async with sites.serving(sites.settings(site)) as second:
        yield [first, second]


@dataclass
class Readers:
    """Three readers of a request; those over v1 and SSE are cut after so many messages."""

    bases: list[str]
    who: Actor
    request: str
    lines: list[Any] = field(default_factory=list)
    """Connections of the command."""

    async def over_v1(self, cuts: list[int]) -> dict[str, bytes]:
        """All bytes, resumed by the places in the messages."""
        got: dict[str, bytes] = {}
        places: dict[str, Any] = {}
        container: str | None = None
        for turn, count in enumerate([*cuts, 0]):
            target: dict[str, Any] = {"uuid": self.request, "from": places}
            if container:
                target["container"] = container
            async with connected(self.bases[turn % 2], self.who) as client:
                await client.subscribe("a", log=target)
                while count != 1:
                    key, body = await client.next()
                    if key == "end" and "request" in body:
                        return got
                    if key != "log":
                        continue
                    container = body["container"]
                    _take(got, body)
                    places[body["file"]] = {"epoch": body["epoch"], "offset": body["next"]}
                    count -= 1
        raise AssertionError("not reached")

    async def over_sse(self, cuts: list[int]) -> dict[str, bytes]:
        """All bytes, resumed by the last event id."""
        got: dict[str, bytes] = {}
        last = ""
        for turn, count in enumerate([*cuts, 0]):
            base = self.bases[turn % 2].replace("ws", "http", 1)
            async with opened(base, self.request, self.who, last=last) as events:
                while count != 1:
                    key, body = await events.next()
                    if key == "end" and "request" in body:
                        return got
                    if key != "log":
                        continue
                    _take(got, body)
                    count -= 1
                last = events.last_id or last
        raise AssertionError("not reached")

    async def by_command(self, file: str) -> bytes:
        """What `arvados-nats logs -f --file` copies into a pipe."""
        copied = bytearray()
        wanted = LogSelection(self.request, (file,), follow=True)
        url = f"{self.bases[0]}/v1/stream"
        async with stream.connect(url, lambda: self.who.token) as events:
            self.lines.append(events)
            reading = await events.log(self.request, files=(file,))
            await Show(wanted, Copy(copied.extend), Notes()).run(reading)
        return bytes(copied)

    def cut_command(self) -> None:
        """The command loses its connections, without a goodbye."""
        for events in self.lines:
            if events._line is not None:
                events._line.transport.abort()


def _take(got: dict[str, bytes], body: dict[str, Any]) -> None:
    data = base64.b64decode(body["base64"]) if "base64" in body else body["text"].encode()
    before = got.get(body["file"], b"")
    assert body["offset"] == len(before), "gap or double"
    got[body["file"]] = before + data


@dataclass
class Life:
    """One container, and what befalls it and those who carry its log."""

    site: Site
    container: Record
    readers: Readers
    replicas: contextlib.AsyncExitStack
    written: dict[str, bytes] = field(default_factory=dict)
    second: bool = False

    async def live(self, steps: list[Step]) -> None:
        """Everything, up to the end in order."""
        for step in steps:
            if isinstance(step, str):
                await self._happens(step)
            else:
                await self._write(*step)
            await asyncio.sleep(0.02)
        await self.site.cluster.finish(self.container)

    async def _write(self, file: str, piece: bytes | int) -> None:
        data = piece if isinstance(piece, bytes) else b"%06d " % piece * (piece // 7 + 1)
        await self.site.cluster.write_log(self.container, file, data)
        self.written[file] = self.written.get(file, b"") + data

    async def _happens(self, event: Event) -> None:
        logs = self.site.cluster.logs
        match event:
            case "second" if not self.second:
                await self.replicas.enter_async_context(publisher(self.site))
                self.second = True
            case "leave":
                await self.replicas.aclose()
                self.second = False
            case "tunnel":
                logs.set_tunnel(self.container.uuid, up=False)
                await asyncio.sleep(0.05)
                logs.set_tunnel(self.container.uuid, up=True)
            case "checkpoint":
                logs.checkpoint(self.container.uuid)
            case "cut":
                self.readers.cut_command()


@pytest.mark.timeout(240)
@given(steps=_steps, v1_cuts=_cuts, sse_cuts=_cuts, late=st.booleans())
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_any_bytes_arrive_as_they_are(
    site: Site,
    cluster: Cluster,
    bases: list[str],
    alice: Actor,
    steps: list[Step],
    v1_cuts: list[int],
    sse_cuts: list[int],
    late: bool,
) -> None:
    """Live or after the end, cut after any message: every byte of every file once, in order
    (docs/facts/arvados-demand.md G5).

    A number in `steps` stands for about so many bytes.
    """
    request = await cluster.container_request("job", owner=alice)
    container = await cluster.run(request)
    readers = Readers(bases, alice, request.uuid)
    async with contextlib.AsyncExitStack() as replicas:
        life = Life(site, container, readers, replicas)
        if late:
            await life.live(steps)
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            over_v1 = tasks.create_task(readers.over_v1(v1_cuts))
            over_sse = tasks.create_task(readers.over_sse(sse_cuts))
            copies = {file: tasks.create_task(readers.by_command(file)) for file in FILES}
            if not late:
                tasks.create_task(life.live(steps))
    assert over_v1.result() == life.written
    assert over_sse.result() == life.written
    copied = {file: copy.result() for file, copy in copies.items() if copy.result()}
    assert copied == life.written
