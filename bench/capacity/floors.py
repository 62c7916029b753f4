# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The same work with nothing of ours in it, in turn with ours: how far we are from what is there.

`latency`: ours from COMMIT to the frame; the floor from a bare publisher over nats-server to a
relay of the `websockets` library, with frames of the same size to as many sockets. `pushed`: ours
from a container's write to `push-log` to its viewers; the floor publishes each write. `rows`: ours
a backlog of rows to the stream; the floor reads the same rows by COPY and writes them to JetStream,
both in the fewest lines. `fanout`: frames for a second of CPU; the floor is `send` of the same
bytes to as many sockets. `replay`: a log in the stream to one viewer; the floor gives the same
viewer the same bytes from memory. `ratio_to_floor_…` is always ours over the floor's.
`--tls`: nginx with TLS in front of both sides (`latency`, `pushed`, `replay`).
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client

from arvados_nats.nats import client as nats_client
from bench import figures
from bench.crowd import clients as crowds
from bench.crowd.clients import Clients, Far
from bench.crowd.crowd_process import Heard
from bench.delivery import fanout, live_logs, publish, saved_logs
from bench.figures import Figures
from bench.peers import bare, copied
from bench.peers.bare import SUBJECT, Bare
from bench.worlds import cluster as world
from bench.worlds import compared
from bench.worlds.cluster import World
from bench.worlds.subscribers import Ours
from sandbox import stack
from sandbox.logs.log_files import NumberedLines
from sandbox.model.records import Record
from sandbox.servers import tls
from sandbox.stack import Stack

_HERE = "127.0.0.1"


@dataclass(slots=True)
class Place:
    """Both sides, and how clients come to them."""

    made: World
    stack: Stack
    far: Far
    nats: Client
    relay: int
    proxy: int
    authority: Path | None
    options: argparse.Namespace

    @asynccontextmanager
    async def clients(self) -> AsyncIterator[Clients]:
        async with crowds.clients() as clients:
            if self.authority:
                await clients.trust(self.authority)
            yield clients

    async def say(self, text: bytes) -> None:
        """The bare publisher."""
        await self.nats.publish(SUBJECT, text)


@asynccontextmanager
async def _place(options: argparse.Namespace, folder: Path) -> AsyncIterator[Place]:
    async with AsyncExitStack() as exits:
        made = await exits.enter_async_context(world.world(options.users, 0))
        services = await exits.enter_async_context(stack.beside(made.sandbox))
        url = await exits.enter_async_context(bare.nats_server(folder))
        far = Far(*await exits.enter_async_context(crowds.process(Bare)))
        publisher = await nats.connect(url)
        exits.push_async_callback(publisher.close)
        relay, proxy, authority = await far.tell("relay", url), services.proxy_port, None
        if options.tls:
            files = tls.make(folder / "tls")
            front = bare.nginx(folder, files.certificate, files.key, [proxy, relay])
            proxy, relay = await exits.enter_async_context(front)
            authority = files.authority
        yield Place(made, services, far, publisher, relay, proxy, authority, options)
        stack.require(services)


async def _steady(
    write: Callable[[int], Awaitable[float]], rate: float, count: int
) -> dict[int, float]:
    """When each was written, at a rate."""
    began, written = time.monotonic(), {}
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        written[number] = await write(number)
    return written


def _late(heard: Heard, written: dict[int, float]) -> Figures:
    found = [
        moment - written[number]
        for moment, number in zip(heard.times, heard.numbers, strict=True)
        if number in written
    ]
    return figures.delays(found) | {"frames": len(found)}


async def _latency(place: Place) -> dict[str, Sequence[Figures]]:
    options, made = place.options, place.made
    count, each = int(options.rate * options.seconds), options.sockets // options.users
    target = await world.share(made, tuple(range(options.users)))
    rounds: dict[str, list[Figures]] = {"ours": [], "floor": []}
    async with place.clients() as ours, place.clients() as floor:
        tokens = [user.token for user in made.users] * each
        await world.open_v0(ours, (_HERE, place.proxy), tokens)
        await floor.open((_HERE, place.relay), ["/"] * len(tokens))
        await made.commit([target])
        first = await ours.until(len(tokens), compared.ROW_ID)
        size = first.bytes // max(len(first.times), 1)

        async def say(number: int) -> float:
            head = b'{"id":%d,"text":"' % number
            moment = time.monotonic()
            await place.say(head + b"x" * (size - len(head) - 2) + b'"}')
            return moment

        for _ in range(options.rounds):
            rows = await made.stream([target], options.rate, count)
            heard = await ours.until(count * len(tokens), compared.ROW_ID, within=10.0)
            rounds["ours"].append(_late(heard, {row: moment for row, _, moment in rows}))
            said = await _steady(say, options.rate, count)
            heard = await floor.until(count * len(tokens), compared.ROW_ID, within=10.0)
            rounds["floor"].append(_late(heard, said))
    return {"ours": rounds["ours"], "floor": rounds["floor"]}


async def _pushed(place: Place) -> dict[str, Sequence[Figures]]:
    options = place.options
    options.rate, rate = options.lines, options.rate
    bench = live_logs.Bench(place.made, replace(place.stack, proxy_port=place.proxy), options)
    bench.authority = place.authority
    try:
        ours = await bench.live(options.viewers, True)
    finally:
        options.rate = rate

    offset = 0

    async def write(data: bytes) -> None:
        nonlocal offset
        await place.say(b'{"log":{"offset":%d,"text":"%b"}}' % (offset, data[:-1]))
        offset += len(data)

    async with place.clients() as clients:
        await clients.open((_HERE, place.relay), ["/"] * options.viewers)
        written = await live_logs.write_lines(write, 0, options.lines, options.seconds)
        await asyncio.sleep(2)
        heard = await clients.take(live_logs.OFFSET)
    floor = figures.delays(live_logs.delays_of(heard, 0, written)) | {"frames": len(heard.times)}
    return {"ours": [ours], "floor": [floor]}


async def _rows(options: argparse.Namespace, folder: Path) -> dict[str, Sequence[Figures]]:
    async with publish.world() as made, bare.nats_server(folder) as url:
        found = await publish.backlog(made, made.keys, options.rows)
        line = await nats.connect(url)
        await line.jetstream().add_stream(name="bench", subjects=[f"{SUBJECT}.>"])
        began, cpu = time.monotonic(), time.process_time()
        sent = await copied.copy(made.writer, line)
        seconds, used = time.monotonic() - began, time.process_time() - cpu
        await line.close()
    ours = {
        "rows_per_second": found["backlog_rows_per_second"],
        "cpu_us": found["backlog_cpu_microseconds_per_row"],
    }
    floor = {"rows_per_second": sent / seconds, "cpu_us": used / max(sent, 1) * 1e6}
    return {"ours": [ours], "floor": [floor]}


async def _fanout(place: Place) -> dict[str, Sequence[Figures]]:
    options, made = place.options, place.made
    seed = made.sandbox.seed("publisher")
    rounds: dict[str, list[Figures]] = {"ours": [], "floor": []}
    async with (
        nats_client.connect([made.sandbox.nats.url], name="bench", seed=seed) as line,
        crowds.clients() as clients,
        crowds.clients() as others,
    ):
        ours = Ours(made, place.stack, line, clients)
        await ours.connect(options.subscribers)
        port = await place.far.tell("sockets")
        await others.open((_HERE, port), ["/"] * options.subscribers)
        for number in range(options.rounds + 1):
            found = await fanout.published(ours, options.subscribers, 10)
            size = round(found["single_frame_bytes"]) - 4
            text = bare.frame(ours.marker + b"x" * (size - len(ours.marker)))
            floor: Figures = {}
            for name, times, each in fanout.TIMES:
                cpu, frames = 0.0, each * options.subscribers
                for _ in range(times):
                    cpu += await place.far.tell("send", text * each)
                    await others.tally(ours.marker, frames)
                floor[f"{name}_frames_per_cpu_s"] = times * frames / cpu
            if number:
                rounds["ours"].append({k: v for k, v in found.items() if k in floor})
                rounds["floor"].append(floor)
    return {"ours": rounds["ours"], "floor": rounds["floor"]}


async def _replay(place: Place) -> dict[str, Sequence[Figures]]:
    megabytes = place.options.stored_mb
    bench = live_logs.Bench(place.made, place.stack, place.options)
    request, container = await bench.container("replayed")
    cluster = place.made.sandbox.cluster
    cluster.logs.put(container.uuid, live_logs.FILE, NumberedLines(megabytes * 10_000, 100))
    await cluster.finish(container)
    await saved_logs.until_stored(bench, container)
    ours = await _read(place, place.proxy, request, bench.tokens[0])
    port = await place.far.tell("tape", place.stack.proxy_port)
    plain = replace(place, authority=None)
    await _read(plain, port, request, bench.tokens[0])
    async with AsyncExitStack() as exits:
        if place.authority:
            folder = Path(exits.enter_context(tempfile.TemporaryDirectory()))
            files = tls.make(folder)
            place = replace(place, authority=files.authority)
            front = bare.nginx(folder, files.certificate, files.key, [port])
            (port,) = await exits.enter_async_context(front)
        floor = await _read(place, port, request, bench.tokens[0])
    return {"ours": [ours], "floor": [floor]}


async def _read(place: Place, port: int, request: Record, token: str) -> Figures:
    scheme = "wss" if place.authority else "ws"
    url = f"{scheme}://{_HERE}:{port}/v1/stream"
    read = await saved_logs.read_all(url, request, token, place.authority)
    return {"mb_per_second": read["bytes"] / 1e6 / read["seconds"], "mb": read["bytes"] / 1e6}


_PARTS: dict[str, Callable[[Place], Awaitable[dict[str, Sequence[Figures]]]]] = {
    "latency": _latency,
    "pushed": _pushed,
    "fanout": _fanout,
    "replay": _replay,
}


def _told(name: str, found: dict[str, Sequence[Figures]]) -> dict[str, Any]:
    ours, floor = (figures.medians(found[side]) for side in ("ours", "floor"))
    report: dict[str, Any] = {f"{name}_ours_{key}": value for key, value in ours.items()}
    report |= {f"{name}_floor_{key}": value for key, value in floor.items()}
    for key in ours.keys() & floor.keys():
        report[f"ratio_to_floor_{name}_{key}"] = figures.ratio(ours[key], floor[key])
    return report


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    wanted = options.only.split(",")
    report: dict[str, Any] = {"tls": options.tls}
    async with AsyncExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="bare-")))
        if "rows" in wanted:
            report |= _told("rows", await _rows(options, folder))
        if wanted == ["rows"]:
            return report
        place = await exits.enter_async_context(_place(options, folder))
        for name, work in _PARTS.items():
            if name in wanted:
                report |= _told(name, await work(place))
    return report


SHORT = {
    "seconds": 2.0,
    "rounds": 1,
    "rows": 4000,
    "stored_mb": 20,
    "viewers": 50,
    "subscribers": 200,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options: which parts, and how much of each."""
    parser.add_argument("--only", default="latency,pushed,rows,fanout,replay", help="parts")
    parser.add_argument("--tls", action="store_true", help="nginx with TLS before both sides")
    parser.add_argument("--users", type=int, default=20, help="who share the sockets")
    parser.add_argument("--sockets", type=int, default=100, help="of `latency`, all readers")
    parser.add_argument("--rate", type=float, default=100.0, help="rows a second of `latency`")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a round")
    parser.add_argument("--rounds", type=int, default=3, help="of `latency` and `fanout`")
    parser.add_argument("--viewers", type=int, default=500, help="of `pushed`")
    parser.add_argument("--lines", type=float, default=1000.0, help="a second, of `pushed`")
    parser.add_argument("--rows", type=int, default=20_000, help="of `rows`")
    parser.add_argument("--subscribers", type=int, default=1000, help="of `fanout`")
    parser.add_argument("--stored-mb", type=int, default=200, help="of `replay`")
