# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`log_events`: the same bytes as over v1, for curl and EventSource."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from sandbox.cluster import Cluster
from sandbox.model.actors import Actor
from tests.support.clients.v1 import WITHIN, Logs, as_described
from tests.support.worlds.site import Site
from wsproxy.v1 import sse


class Events:
    """One open stream; log bytes are checked as they come."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.logs = Logs()
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.comments = 0
        self.last_id = ""
        self._lines = answer.aiter_lines()

    async def next(self) -> tuple[str, dict[str, Any]]:
        """The next message; StopAsyncIteration at the end of the stream."""
        while True:
            line = await anext(self._lines)
            if line.startswith(":"):
                self.comments += 1
            if line.startswith("id: "):
                self.last_id = line.removeprefix("id: ")
            if not line.startswith("data: ") or line == "data: {}":
                continue
            ((key, body),) = json.loads(line.removeprefix("data: ")).items()
            as_described(key, body)
            if key == "log":
                self.logs.take(body)
            self.seen.append((key, body))
            return key, body

    async def until(self, wanted: str, **fields: Any) -> dict[str, Any]:
        """Read on to a message of this type with these fields."""
        async with asyncio.timeout(WITHIN):
            while True:
                key, body = await self.next()
                if key == wanted and all(body.get(name) == fields[name] for name in fields):
                    return body

    async def rest(self) -> None:
        """Read to the end."""
        async with asyncio.timeout(WITHIN):
            try:
                while True:
                    await self.next()
            except StopAsyncIteration:
                return


@asynccontextmanager
async def opened(
    site: Site | str, uuid: str, who: Actor, query: str = "", last: str = ""
) -> AsyncIterator[Events]:
    """The stream of a request's or container's logs, of a site or at an address."""
    kind = "containers" if "-dz642-" in uuid else "container_requests"
    headers = {"Authorization": f"Bearer {who.token}"}
    if last:
        headers["Last-Event-ID"] = last
    base = site if isinstance(site, str) else site.http_url
    async with (
        httpx.AsyncClient(base_url=base, timeout=WITHIN) as http,
        http.stream("GET", f"/arvados/v1/{kind}/{uuid}/log_events{query}", headers=headers) as got,
    ):
        yield Events(got)


async def test_lines_as_they_are_written_and_an_end(
    site: Site, cluster: Cluster, alice: Actor
) -> None:
    """Headers that no proxy buffers, history, live lines, ends, and then the response is over."""
    request = await cluster.container_request("job", owner=alice)
    container = await cluster.run(request)
    await cluster.write_log(container, "stdout.txt", "früh\n".encode())
    async with opened(site, request.uuid, alice) as events:
        assert events.answer.status_code == 200
        assert events.answer.headers["content-type"].startswith("text/event-stream")
        assert events.answer.headers["x-accel-buffering"] == "no"
        assert events.answer.headers["cache-control"] == "no-store, no-transform"
        await events.until("log")
        begun = events.last_id
        await cluster.write_log(container, "stdout.txt", b"later\n")
        await events.until("log")
        await cluster.finish(container)
        await events.until("end", request=request.uuid)
        await events.rest()
        content = events.logs.content(container.uuid, "stdout.txt")
        assert content == "früh\nlater\n".encode()
        done = events.last_id
    async with opened(site, request.uuid, alice, last=done) as events:
        assert events.answer.status_code == 204
    for query in (
        f"?last_event_id={done}",
        f"?lastEventId={done}",
        f"?last_event_id={begun}&lastEventId={done}",  # by a polyfill, to an address with a place
    ):
        async with opened(site, request.uuid, alice, query) as events:
            assert events.answer.status_code == 204


async def test_any_event_id_resumes_exactly(site: Site, cluster: Cluster, alice: Actor) -> None:
    """Cut after each event in turn: nothing lost, nothing twice, over two files."""
    request = await cluster.container_request("job", owner=alice)
    container = await cluster.run(request)
    out, err = b"out %d\n" * 3 % (1, 2, 3), b"err\n" * 20_000
    await cluster.write_log(container, "stdout.txt", out)
    await cluster.write_log(container, "stderr.txt", err)
    await cluster.finish(container)
    got = {"stdout.txt": b"", "stderr.txt": b""}
    last, status = "", 200
    for _ in range(40):
        async with opened(site, request.uuid, alice, last=last) as events:
            status = events.answer.status_code
            if status == 204:
                break
            body: dict[str, Any] = {}
            while not body:
                key, found = await events.next()
                if key == "log":
                    body = found
                if key == "end" and "request" in found:
                    await events.rest()
                    break
            last = events.last_id
        if body:
            assert body["offset"] == len(got[body["file"]])
            got[body["file"]] += body["text"].encode()
    assert status == 204
    assert got == {"stdout.txt": out, "stderr.txt": err}


async def test_an_event_id_between_two_attempts_resumes_both(
    site: Site, cluster: Cluster, alice: Actor
) -> None:
    """Cut while the former attempt's end is not settled: what comes of either comes once."""
    request = await cluster.container_request("job", owner=alice, container_count_max=2)
    first = await cluster.run(request)
    await cluster.write_log(first, "stdout.txt", b"first\n")
    async with opened(site, request.uuid, alice) as events:
        await events.until("log")
        await cluster.cancel(first)
        second = await cluster.run(request)
        await cluster.write_log(second, "stdout.txt", b"second\n")
        await events.until("log", container=second.uuid)
        ended = any(key == "end" and body.get("state") for key, body in events.seen)
        last = events.last_id
    async with opened(site, request.uuid, alice, last=last) as events:
        if not ended:  # a busy machine may have settled it before the second one's first line
            end = await events.until("end", container=first.uuid, state="Cancelled")
            assert end["confirmed"] is False
        await cluster.write_log(second, "stdout.txt", b"more\n")
        await cluster.finish(second)
        await events.rest()
        assert events.logs.content(second.uuid, "stdout.txt") == b"more\n"
        assert not events.logs.content(first.uuid, "stdout.txt")
        done = events.last_id
    async with opened(site, request.uuid, alice, last=done) as events:
        assert events.answer.status_code == 204


async def test_a_container_some_files_and_the_last_lines(
    site: Site, cluster: Cluster, alice: Actor
) -> None:
    """`files`, `tail` and `from` in the query."""
    container = await cluster.run(await cluster.container_request("job", owner=alice))
    await cluster.write_log(container, "stdout.txt", b"1\n2\n3\n")
    await cluster.write_log(container, "stderr.txt", b"0123456789")
    await cluster.finish(container)
    async with opened(site, container.uuid, alice, "?files=stdout.txt&tail=1") as events:
        await events.rest()
        assert events.logs.content(container.uuid, "stdout.txt") == b"3\n"
        assert not events.logs.content(container.uuid, "stderr.txt")
    async with opened(site, container.uuid, alice, "?from=stderr.txt:7") as events:
        await events.rest()
        assert events.logs.content(container.uuid, "stderr.txt") == b"789"
        assert events.logs.content(container.uuid, "stdout.txt") == b"1\n2\n3\n"


async def test_refusals_have_their_status(
    site: Site, cluster: Cluster, alice: Actor, bob: Actor
) -> None:
    """As Arvados' API: 401 for the token, 404 for forbidden and missing alike, 400 for nonsense."""
    request = await cluster.container_request("job", owner=alice)
    path = f"/arvados/v1/container_requests/{request.uuid}/log_events"
    missing = path.replace(request.uuid[12:], "000000000000000")
    mine, other = ({"Authorization": f"Bearer {who.token}"} for who in (alice, bob))
    async with httpx.AsyncClient(base_url=site.http_url, timeout=WITHIN) as http:
        assert (await http.get(path)).status_code == 401
        bad = {"Authorization": "Bearer undefined"}
        assert (await http.get(path, headers=bad)).status_code == 401
        forbidden, nothing = (
            await http.get(path, headers=other),
            await http.get(missing, headers=mine),
        )
        assert forbidden.status_code == nothing.status_code == 404
        assert forbidden.json() == nothing.json()
        for query in ("tail=x", "from=stdout.txt:x", "last_event_id=made-up"):
            assert (await http.get(f"{path}?{query}", headers=mine)).status_code == 400
        away = await http.options(path, headers={"Origin": "https://wb.example"})
        assert away.headers["access-control-allow-origin"] == "*"
        assert "Last-Event-ID" in away.headers["access-control-allow-headers"]


async def test_a_quiet_stream_is_kept_alive(
    site: Site, cluster: Cluster, alice: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Comments, which every client skips, before a proxy would cut."""
    monkeypatch.setattr(sse, "HEARTBEAT_SECONDS", 0.5)
    request = await cluster.container_request("job", owner=alice)
    async with opened(site, request.uuid, alice) as events:
        await events.until("caught_up")

        async def comments() -> None:
            while not events.comments:
                await events.next()

        reading = asyncio.create_task(comments())
        await asyncio.sleep(2.5)
        container = await cluster.run(request)
        await cluster.write_log(container, "stdout.txt", b"x\n")
        async with asyncio.timeout(WITHIN):
            await reading


async def test_logout_ends_the_stream(site: Site, cluster: Cluster, alice: Actor) -> None:
    """`revoked`, then the end of the response (docs/facts/arvados-demand.md A40)."""
    request = await cluster.container_request("job", owner=alice)
    async with opened(site, request.uuid, alice) as events:
        await events.until("caught_up")
        await cluster.logout(alice)
        await events.rest()
        assert events.seen[-1][0] == "revoked"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_prints_lines_at_once(site: Site, cluster: Cluster, alice: Actor) -> None:
    """`curl -N` needs nothing more."""
    request = await cluster.container_request("job", owner=alice)
    container = await cluster.run(request)
    await cluster.write_log(container, "stdout.txt", b"hello curl\n")
    url = f"{site.http_url}/arvados/v1/container_requests/{request.uuid}/log_events"
    curl = await asyncio.create_subprocess_exec(
        "curl",
        "-sN",
        "-H",
        f"Authorization: Bearer {alice.token}",
        url,
        stdout=asyncio.subprocess.PIPE,
    )
    assert curl.stdout is not None
    async with asyncio.timeout(WITHIN):
        while b"hello curl" not in await curl.stdout.readline():
            pass
        await cluster.finish(container)
        rest = await curl.stdout.read()
        assert b'"end"' in rest
        assert await curl.wait() == 0
