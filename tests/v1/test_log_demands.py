# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What broke log viewers elsewhere, with its small input, from the compute node to v1 and SSE.

The rows are those of docs/facts/arvados-demand.md 1c, 1d and 2; those that are about one part of
the way stand with the tests of that part.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect as connect_raw
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from arvados_nats.protocol_v1.messages import SUBPROTOCOL
from sandbox.cluster import Cluster
from sandbox.model.actors import Actor
from sandbox.model.records import Record
from tests.support.clients import v1, wamp
from tests.support.clients.v1 import WITHIN, Client
from tests.support.worlds import site as sites
from tests.support.worlds.site import Site
from tests.v1.conftest import Connect
from tests.v1.test_sse import opened
from wsproxy.logs.pieces import PIECE_BYTES
from wsproxy.v1 import session as session_v1
from wsproxy.v1 import sse

EMOJI = "\N{GRINNING FACE}".encode()
STAMP = b"2026-01-02T03:04:05.000000000Z "

LINES = {
    "W1 é across byte 64000": b"x" * 63_999 + "é\n".encode(),
    "W3 300 kB in one burst": b"".join(b"%06d of a burst\n" % n for n in range(17_650)),
    "A38 without stamps": b"crunchstat: cpu 1.5 user\nhoststat: mem 4\n",
    "A38 130 kB line": b"y" * 130_000 + b"\n",
    "G15 NUL": b"a\0b\n",
    "G16 40 kB line": STAMP + b"z" * 40_000 + b"\n",
    "G20 traceback": STAMP + b"x\nTraceback (most recent call last):\n  69.01998901367188\n",
    "W5 half line": b"--end--",
    **{
        f"G14 emoji {offset} bytes before the edge": b"x" * (PIECE_BYTES - offset) + EMOJI * 9000
        for offset in range(5)
    },
    **{
        f"G14 the same, after a broken byte, {offset}": (
            b"x" * (PIECE_BYTES - offset - 1) + b"\xff" + EMOJI * 9000
        )
        for offset in range(5)
    },
}


async def _running(cluster: Cluster, owner: Actor, **more: Any) -> tuple[Record, Record]:
    request = await cluster.container_request("job", owner=owner, **more)
    return request, await cluster.run(request)


async def test_lines_that_broke_others(
    site: Site, connect: Connect, cluster: Cluster, alice: Actor
) -> None:
    """Each as a file of its own, live and after the end: every byte as it was written, and text
    wherever it is text (W1, W3, W5, A38, G14, G15, G16, G20)."""
    request, container = await _running(cluster, alice)
    files = {f"{number}.txt": data for number, data in enumerate(LINES.values())}
    async with connect(alice) as live:
        await live.subscribe("a", log={"uuid": request.uuid})
        for name, data in files.items():
            await cluster.write_log(container, name, data)
        await cluster.finish(container)
        await live.until("end", request=request.uuid)
        assert _files(live, container) == files
        for body in live.of("log"):
            assert ("base64" in body) <= (b"\xff" in files[body["file"]])
            assert body["next"] - body["offset"] <= 2 * PIECE_BYTES
    async with connect(alice) as late:
        await late.subscribe("a", log={"uuid": request.uuid})
        await late.until("end", request=request.uuid)
        assert _files(late, container) == files
    async with opened(site, request.uuid, alice) as events:
        await events.rest()
        assert {file: bytes(data) for (_, file, _), data in events.logs.bytes_of.items()} == files


def _files(client: Client, container: Record) -> dict[str, bytes]:
    found = {key: bytes(data) for key, data in client.logs.bytes_of.items()}
    assert {key[0] for key in found} == {container.uuid}
    return {file: data for (_, file, _), data in found.items()}


@pytest.mark.parametrize("lines", [3, 10])
async def test_lines_of_one_time_come_once_after_a_reconnect(
    site: Site, connect: Connect, cluster: Cluster, alice: Actor, lines: int
) -> None:
    """All have the same stamp, and the connection is cut in their middle: a place is a byte, never
    a time, so none is lost and none comes twice (G5, G6, G7)."""
    request, container = await _running(cluster, alice)
    written = [STAMP + b"line %d\n" % number for number in range(lines)]
    before = b"".join(written[: lines // 2])
    async with connect(alice) as client, opened(site, request.uuid, alice) as events:
        await client.subscribe("a", log={"uuid": request.uuid})
        await cluster.write_log(container, "stdout.txt", before)
        await client.until_content(container.uuid, "stdout.txt", before)
        place = client.of("log")[-1]
        while events.logs.content(container.uuid, "stdout.txt") != before:
            await events.until("log")
        last = events.last_id
    await cluster.write_log(container, "stdout.txt", b"".join(written[lines // 2 :]))
    await cluster.finish(container)
    target = {
        "uuid": request.uuid,
        "container": container.uuid,
        "from": {"stdout.txt": {"epoch": place["epoch"], "offset": place["next"]}},
    }
    async with connect(alice) as client:
        await client.subscribe("a", log=target)
        await client.until("end", request=request.uuid)
        content = before + client.logs.content(container.uuid, "stdout.txt")
        assert content.splitlines(keepends=True) == written
    async with opened(site, request.uuid, alice, last=last) as events:
        await events.rest()
        content = before + events.logs.content(container.uuid, "stdout.txt")
        assert content.splitlines(keepends=True) == written


async def test_who_joins_at_line_5000_sees_the_lines_before(
    connect: Connect, cluster: Cluster, alice: Actor
) -> None:
    """While the container runs, and without a limit (G21)."""
    request, container = await _running(cluster, alice)
    lines = b"".join(b"line %d\n" % number for number in range(5000))
    async with connect(alice) as early:
        await early.subscribe("a", log={"uuid": request.uuid})
        await cluster.write_log(container, "stdout.txt", lines)
        await early.until_content(container.uuid, "stdout.txt", lines)
        async with connect(alice) as late:
            await late.subscribe("a", log={"uuid": request.uuid})
            await late.until_content(container.uuid, "stdout.txt", lines)
            await cluster.write_log(container, "stdout.txt", b"line 5000\n")
            await late.until_content(container.uuid, "stdout.txt", lines + b"line 5000\n")


@pytest.mark.parametrize("how", ["failed", "cancelled"])
async def test_a_finished_job_ends_once(
    connect: Connect, cluster: Cluster, alice: Actor, how: str
) -> None:
    """A job that failed: its lines once and one end of the container and of the request, for who
    was there and for who comes later (G8)."""
    request, container = await _running(cluster, alice, container_count_max=1)
    async with connect(alice) as live, connect(alice) as late:
        await live.subscribe("a", log={"uuid": request.uuid})
        await cluster.write_log(container, "stderr.txt", b"failed\n")
        await live.until_content(container.uuid, "stderr.txt", b"failed\n")
        if how == "failed":
            await cluster.finish(container, exit_code=1)
        else:
            await cluster.cancel(container)
        await live.until("end", request=request.uuid)
        await late.subscribe("a", log={"uuid": request.uuid})
        await late.until("end", request=request.uuid)
        for client in (live, late):
            await client.silence(0.2)
            assert client.logs.content(container.uuid, "stderr.txt") == b"failed\n"
            assert [end for end in client.of("end") if "request" in end] == [
                {"id": "a", "request": request.uuid, "state": "Final"}
            ]
            ends = [end for end in client.of("end") if "exit_code" in end]
            assert [end["exit_code"] for end in ends] == [1 if how == "failed" else None]


Told = list[tuple[str, dict[str, Any]]]
Read = Callable[[Site, str, Actor], Coroutine[Any, Any, Told]]


async def _by_socket(site: Site, uuid: str, who: Actor) -> Told:
    async with v1.connected(site.websocket_url.removesuffix("/websocket"), who) as client:
        await client.subscribe("a", log={"uuid": uuid})
        await client.until("end", request=uuid)
        return client.seen


async def _by_sse(site: Site, uuid: str, who: Actor) -> Told:
    async with opened(site, uuid, who) as events:
        await events.until("end", request=uuid)
        await events.rest()
        return events.seen


async def _by_wamp(site: Site, uuid: str, who: Actor) -> Told:
    async with wamp.connected(site.websocket_url.removesuffix("/websocket"), who) as client:
        await client.subscribe(f"arvados.log.{uuid}")
        await client.told("end", request=uuid)
        return [one for message in client.seen if message[0] == 36 for one in message[5].items()]


@pytest.mark.parametrize("read", [_by_socket, _by_sse, _by_wamp])
async def test_the_last_words_come_at_every_door(
    site: Site, cluster: Cluster, alice: Actor, read: Read
) -> None:
    """Who comes before them, between them and the end, while the log is handed over to Keep, and
    after that: every byte once, and one end, confirmed."""
    request, container = await _running(cluster, alice)
    readings: list[asyncio.Task[Told]] = []
    async with asyncio.TaskGroup() as tasks:
        for number in range(9):
            if number == 2:
                await cluster.write_log(container, "stdout.txt", b"last words")
            if number == 4:
                await cluster.finish(container)
            readings.append(tasks.create_task(read(site, request.uuid, alice)))
            await asyncio.sleep(0.05)
    for told in (reading.result() for reading in readings):
        assert "".join(body["text"] for key, body in told if key == "log") == "last words"
        assert not {"gap", "error"} & {key for key, _ in told}
        ends = [body for key, body in told if key == "end" and "exit_code" in body]
        assert [end["confirmed"] for end in ends] == [True]


async def test_none_yet_and_empty_are_told_apart(
    site: Site, connect: Connect, cluster: Cluster, alice: Actor
) -> None:
    """A log that does not exist yet, and one without a byte; `log_gone` is in test_log_hub (A35,
    A38, G9)."""
    queued = await cluster.container_request("job", owner=alice)
    empty, nothing = await _running(cluster, alice)
    await cluster.write_log(nothing, "stdout.txt", b"")
    await cluster.finish(nothing)
    async with connect(alice) as client:
        await client.subscribe("queued", log={"uuid": queued.uuid})
        await client.until("caught_up", id="queued")
        assert not client.of("end") and not client.of("error")
        await client.subscribe("empty", log={"uuid": empty.uuid})
        await client.until("end", request=empty.uuid)
        (file,) = [end for end in client.of("end") if "file" in end]
        assert (file["file"], file["size"], file["confirmed"]) == ("stdout.txt", 0, True)
        assert not client.of("log") and not client.of("error")
    async with opened(site, queued.uuid, alice) as events:
        await events.until("caught_up")
        assert [key for key, _ in events.seen] == ["subscribed", "attempt", "caught_up"]


async def test_a_draft_is_told_to_have_no_log_yet(
    connect: Connect, cluster: Cluster, alice: Actor
) -> None:
    """Who does not follow need not guess by the clock; what it will have is new, and all of it
    comes to who asked for the last lines."""
    draft = await cluster.container_request("job", owner=alice, state="Uncommitted", priority=0)
    async with connect(alice) as client:
        await client.subscribe("a", log={"uuid": draft.uuid, "tail": 1})
        await client.until("caught_up", id="a")
        assert not client.of("attempt")
        await cluster.update(draft, {"state": "Committed", "priority": 500}, alice)
        container = await cluster.run(draft)
        await cluster.write_log(container, "stdout.txt", b"one\ntwo\n")
        await client.until_content(container.uuid, "stdout.txt", b"one\ntwo\n")


async def test_retries_whose_logs_are_shorter_and_longer(
    connect: Connect, cluster: Cluster, alice: Actor
) -> None:
    """Offsets of one attempt mean nothing in the next, whichever is longer (W2)."""
    request, first = await _running(cluster, alice, container_count_max=3)
    texts = [b"first attempt\n", b"2nd\n", b"the third attempt, the longest of all\n"]
    containers = [first]
    async with connect(alice) as client:
        await client.subscribe("a", log={"uuid": request.uuid})
        for number, text in enumerate(texts, start=1):
            await cluster.write_log(containers[-1], "stdout.txt", text)
            await client.until_content(containers[-1].uuid, "stdout.txt", text)
            if number < len(texts):
                await cluster.cancel(containers[-1])
                containers.append(await cluster.run(request))
        await cluster.finish(containers[-1])
        await client.until("end", request=request.uuid)
        assert client.logs.bytes_of == {
            (one.uuid, "stdout.txt", 0): text for one, text in zip(containers, texts, strict=True)
        }


def test_something_is_sent_more_often_than_proxies_cut() -> None:
    """Lines 65 s apart, and nginx gives up after 60 s of silence (G3)."""
    assert max(session_v1.PING_SECONDS, sse.HEARTBEAT_SECONDS) <= 30


async def test_pages_of_foreign_origins_read_no_logs(
    site: Site, cluster: Cluster, alice: Actor
) -> None:
    """Over v1 and SSE, where only some origins are let in (G27)."""
    request, _ = await _running(cluster, alice)
    path = f"/arvados/v1/container_requests/{request.uuid}/log_events"
    chosen = sites.settings(site, allowed_origins=("https://wb.example",))
    async with sites.serving(chosen) as base:
        with pytest.raises(InvalidStatus):
            async with connect_raw(
                f"{base}/v1/stream",
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                additional_headers={"Origin": "https://evil.example"},
            ):
                pass
        headers = {"Origin": "https://evil.example", "Authorization": f"Bearer {alice.token}"}
        async with (
            httpx.AsyncClient(base_url=base.replace("ws", "http", 1), timeout=WITHIN) as http,
            http.stream("GET", path, headers=headers) as answer,
        ):
            assert "access-control-allow-origin" not in answer.headers


async def test_pages_of_workbench_may_connect_as_arvados_tells(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is set and no configuration file is read, it is asked (S16)."""
    config = dataclasses.replace(site.cluster.config, workbench_url="https://WB.example:443/")
    monkeypatch.setattr(site.cluster, "config", config)
    async with sites.serving(sites.settings(site)) as base:
        for origin, let_in in (("https://wb.example", True), ("https://evil.example", False)):
            with contextlib.nullcontext() if let_in else pytest.raises(InvalidStatus):
                async with connect_raw(
                    f"{base}/v1/stream",
                    subprotocols=[Subprotocol(SUBPROTOCOL)],
                    additional_headers={"Origin": origin},
                ):
                    pass


async def test_the_token_is_not_taken_from_an_address(
    site: Site, cluster: Cluster, alice: Actor
) -> None:
    """Addresses are logged by every proxy on the way (G27)."""
    request, _ = await _running(cluster, alice)
    path = f"/arvados/v1/container_requests/{request.uuid}/log_events"
    async with httpx.AsyncClient(base_url=site.http_url, timeout=WITHIN) as http:
        for name in ("api_token", "token", "access_token"):
            assert (await http.get(path, params={name: alice.token})).status_code == 401


async def test_thousand_viewers_cost_arvados_nothing_more(
    connect: Connect, cluster: Cluster, alice: Actor, site: Site
) -> None:
    """1,000 subscriptions to one log on some connections: as many calls as one has made (A31), but
    for reads of the log by which its publisher looks on."""

    def asked() -> int:
        faults = site.backend.faults
        read = faults.calls["GET /arvados/v1/container_requests/{uuid}/log"]
        return faults.count("GET /arvados/v1/container") - read

    request, container = await _running(cluster, alice)
    await cluster.write_log(container, "stdout.txt", b"line\n")
    async with connect(alice) as first:
        limit = 50
        await first.subscribe("a", log={"uuid": request.uuid})
        await first.until_content(container.uuid, "stdout.txt", b"line\n")
        await first.until_true(lambda: bool(first.of("caught_up")))
        before = asked()

        async def many() -> None:
            async with connect(alice) as client:
                for number in range(limit):
                    await client.send(
                        "subscribe", {"id": str(number), "log": {"uuid": request.uuid}}
                    )
                seen = 0
                while seen < limit:
                    frame = str(await client.socket.recv())
                    assert '"error"' not in frame[:10]
                    seen += frame.startswith('{"caught_up"')

        async with asyncio.timeout(WITHIN), asyncio.TaskGroup() as tasks:
            for _ in range(1000 // limit):
                tasks.create_task(many())
        assert asked() == before
