# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Any bytes, written and read in any portions, with connections cut anywhere, arrive as they are:
through the tailer, v1 and server-sent events."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.cluster import Cluster
from sandbox.model.actors import Actor
from tests.v0.site import Site
from tests.v1.conftest import Connect
from tests.v1.test_sse import opened

FILES = ("stdout.txt", "stderr.txt")

_pieces = st.one_of(
    st.binary(min_size=1, max_size=60),
    st.text(min_size=1, max_size=30).map(str.encode),
    st.sampled_from([b"\n", "é€😀\n".encode(), b"\xf0\x9f", b"\0", b"\r50%\r"]),
    st.integers(1, 100_000),
)
_writes = st.lists(st.tuples(st.sampled_from(FILES), _pieces), min_size=1, max_size=12)
_cuts = st.lists(st.integers(1, 4), max_size=8)


class Readers:
    """Two readers that are cut after so many messages: one over v1, one over SSE."""

    def __init__(self, site: Site, connect: Connect, who: Actor, request: str) -> None:
        self._site = site
        self._connect = connect
        self._who = who
        self._request = request

    async def over_v1(self, cuts: list[int]) -> dict[str, bytes]:
        """All bytes, resumed by the places in the messages."""
        got: dict[str, bytes] = {}
        places: dict[str, Any] = {}
        container: str | None = None
        for count in [*cuts, 0]:
            target: dict[str, Any] = {"uuid": self._request, "from": places}
            if container:
                target["container"] = container
            async with self._connect(self._who) as client:
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
        for count in [*cuts, 0]:
            async with opened(self._site, self._request, self._who, last=last) as events:
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


def _take(got: dict[str, bytes], body: dict[str, Any]) -> None:
    data = base64.b64decode(body["base64"]) if "base64" in body else body["text"].encode()
    before = got.get(body["file"], b"")
    assert body["offset"] == len(before), "gap or double"
    got[body["file"]] = before + data


@pytest.mark.timeout(240)
@given(writes=_writes, v1_cuts=_cuts, sse_cuts=_cuts, late=st.booleans())
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_any_bytes_arrive_as_they_are(
    site: Site,
    cluster: Cluster,
    connect: Connect,
    alice: Actor,
    writes: list[tuple[str, bytes | int]],
    v1_cuts: list[int],
    sse_cuts: list[int],
    late: bool,
) -> None:
    """Live or after the end, cut after any message: every byte once, in order.

    A number in `writes` stands for about so many bytes.
    """
    request = await cluster.container_request("job", owner=alice)
    container = await cluster.run(request)
    readers = Readers(site, connect, alice, request.uuid)
    written: dict[str, bytes] = {}

    async def write() -> None:
        for file, piece in writes:
            data = piece if isinstance(piece, bytes) else b"%06d " % piece * (piece // 7 + 1)
            await cluster.write_log(container, file, data)
            written[file] = written.get(file, b"") + data
            await asyncio.sleep(0.02)
        await cluster.finish(container)

    if late:
        await write()
    async with asyncio.TaskGroup() as tasks:
        over_v1 = tasks.create_task(readers.over_v1(v1_cuts))
        over_sse = tasks.create_task(readers.over_sse(sse_cuts))
        if not late:
            tasks.create_task(write())
    assert over_v1.result() == written
    assert over_sse.result() == written
