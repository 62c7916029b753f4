# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The situations of `frames/recorded`, brought about with running services.

``python -m tests.contract.situations`` writes all of them anew. Each begins with somebody new.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from arvados_nats.contract import streams, subjects
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Nats
from arvados_nats.protocol_v1.messages import SUBPROTOCOL
from sandbox import sandbox, stack
from sandbox.cluster import Cluster
from sandbox.model.actors import Actor
from sandbox.model.records import Record
from sandbox.servers import ports
from sandbox.stack import Service, Stack
from tests.contract.record import ID, REQUEST, WITHIN, Line, Tape
from wsproxy.wamp import messages as wamp_messages

FRAMES = Path(__file__).parent / "frames" / "recorded"
_PIECES = (b"one\n", b"two\n", b"3rd\n")
_COLLECTIONS = {"kinds": ["collection"]}
Lines = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class World:
    """Somebody's services, and a proxy that may be stopped."""

    stack: Stack
    proxy: Service
    address: str
    alice: Actor
    bob: Actor
    project: Record

    @property
    def cluster(self) -> Cluster:
        return self.stack.sandbox.cluster

    async def collect(self, name: str) -> Record:
        """A collection that alice may read."""
        return await self.cluster.collection(name, owner=self.project, by=self.bob)

    async def running(self) -> tuple[Record, Record]:
        """A request that alice may read, and its container."""
        request = await self.cluster.container_request(
            "job", owner=self.project, by=self.bob, container_count_max=1
        )
        return request, await self.cluster.run(request)

    async def ends(self, request: Record) -> None:
        """It ends, and all of its log is told at another proxy."""
        await self.cluster.finish(request)
        aside = Tape(self.alice.token)
        async with self.v1(aside, self.stack.stream_url, log={"uuid": request.uuid}) as line:
            await line.hear(_over)

    async def writes(self, line: Line, container: Record, pieces: Sequence[bytes]) -> Any:
        """Pieces of a log, each when the one before was heard; the place behind them."""
        await line.hear(lambda told: "caught_up" in told)
        for number, piece in enumerate(pieces, 1):
            await self.cluster.write_log(container, "stderr.txt", piece)
            told = await line.hear(_log(len(b"".join(pieces[:number]))))
        return {"epoch": told["log"]["epoch"], "offset": told["log"]["next"]}

    @asynccontextmanager
    async def v1(self, tape: Tape, url: str = "", **target: Any) -> AsyncIterator[Line]:
        """A connection of protocol v1, subscribed to this."""
        async with tape.line(url or f"{self.address}/v1/stream", SUBPROTOCOL) as line:
            await line.say({"auth": {"token": tape.token}})
            await line.hear(lambda told: "hello" in told)
            await line.say({"subscribe": {"id": ID, **target}})
            yield line

    @asynccontextmanager
    async def wamp(self, tape: Tape, topic: str, **options: Any) -> AsyncIterator[Line]:
        """A WAMP session, subscribed to this."""
        async with tape.line(f"{self.address}/wamp", wamp_messages.SUBPROTOCOL) as line:
            hello = {"authmethods": ["ticket"]}
            await line.say(
                [1, "arvados", {"roles": {"subscriber": {}}, **hello}], needed=[1, "arvados", hello]
            )
            await line.hear(lambda told: told[0] == 4)
            await line.say([5, tape.token, {}])
            await line.hear(lambda told: told[0] == 2)
            await line.say([32, REQUEST, options, topic])
            await line.hear(lambda told: told[0] == 33)
            yield line

    @asynccontextmanager
    async def nats(self) -> AsyncIterator[Nats]:
        """A connection that may do to streams what old age does."""
        url, seed = self.stack.sandbox.nats.url, self.stack.sandbox.seed("publisher")
        async with nats_client.connect([url], name="record", seed=seed) as nats:
            yield nats


def _event(told: Any) -> Any:
    return told.get("event") if isinstance(told, dict) else told[0] == 36 and told[5].get("event")


def _log(offset: int) -> Callable[[Any], bool]:
    def wanted(told: Any) -> bool:
        body = told[5] if isinstance(told, list) and told[0] == 36 else told
        return isinstance(body, dict) and body.get("log", {}).get("next") == offset

    return wanted


def _over(told: Any) -> bool:
    body = told[5] if isinstance(told, list) and told[0] == 36 else told
    return isinstance(body, dict) and "request" in body.get("end", {})


def _head(about: str, path: str, **follow: Any) -> dict[str, Any]:
    named = {"/v1/stream": SUBPROTOCOL, "/wamp": wamp_messages.SUBPROTOCOL}
    chosen = {"subprotocol": named[path]} if path in named else {}
    return {"about": about, "path": path, **chosen, "follow": follow}


async def v0_resume(world: World) -> Lines:
    tape = Tape(world.alice.token)
    filters = [["event_type", "in", ["create", "update", "delete"]]]
    url = f"{world.address}/websocket?api_token={quote(tape.token)}"
    said: dict[str, Any] = {"method": "subscribe"}
    async with tape.line(url) as line:
        await line.say(said | {"filters": filters}, needed=said)
        await line.hear(lambda told: told.get("status") == 200)
        for name in ("c1", "c2"):
            await world.collect(name)
            told = await line.hear(lambda told: told.get("event_type") == "create")
        line.cut()
    await world.collect("c3")
    said = {**said, "last_log_id": told["id"]}
    async with tape.line(url) as line:
        await line.say(said | {"filters": filters}, needed=said)
        await line.hear(lambda told: told.get("event_type") == "create")
    about = "arvados-ws' protocol: the line is lost between two events"
    right = "subscribe with the id of the last row it had, as last_log_id"
    return tape.lines(_head(about, "/websocket", events=_COLLECTIONS), right)


async def v1_events_resume(world: World) -> Lines:
    tape = Tape(world.alice.token)
    async with world.v1(tape, events=_COLLECTIONS) as line:
        await line.hear(lambda told: "caught_up" in told)
        for name in ("c1", "c2"):
            await world.collect(name)
            told = await line.hear(_event)
        await asyncio.gather(world.proxy.stop(60), line.hear_the_end())
    await world.collect("c3")
    await world.proxy.start()
    target = {**_COLLECTIONS, "cursor": told["event"]["cursor"]}
    async with world.v1(tape, events=target) as line:
        await line.hear(lambda told: "caught_up" in told)
    about = "the server goes away between two events"
    right = "connect again, and name the cursor of the last event it had"
    return tape.lines(_head(about, "/v1/stream", events=_COLLECTIONS), right)


async def v1_events_gap(world: World) -> Lines:
    tape = Tape(world.alice.token)
    async with world.v1(tape, events=_COLLECTIONS) as line:
        await line.hear(lambda told: "caught_up" in told)
        await world.collect("c1")
        cursor = (await line.hear(_event))["event"]["cursor"]
        line.cut()
    forgotten = await world.collect("c2")
    async with world.nats() as nats:
        subject = subjects.event(forgotten.uuid, "create")
        async with asyncio.timeout(WITHIN):
            while (last := await nats.last(streams.EVENTS, subject)) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await nats.js_api(f"STREAM.PURGE.{streams.EVENTS}", {"seq": last.sequence + 1})
    async with world.v1(tape, events={**_COLLECTIONS, "cursor": cursor}) as line:
        cursor = (await line.hear(lambda told: "gap" in told))["gap"]["cursor"]
        line.cut()
    async with world.v1(tape, events={**_COLLECTIONS, "cursor": cursor}) as line:
        await line.hear(lambda told: "caught_up" in told)
        await world.collect("c3")
        await line.hear(_event)
    about = "events that are not kept any more"
    right = "say that something is missing, and go on from the gap's cursor"
    return tape.lines(_head(about, "/v1/stream", events=_COLLECTIONS), right)


async def v1_events_gone(world: World) -> Lines:
    tape = Tape(world.alice.token)
    async with world.v1(tape, events=_COLLECTIONS) as line:
        await line.hear(lambda told: "caught_up" in told)
        collection = await world.collect("c1")
        await line.hear(_event)
        hidden = await world.cluster.project(owner=world.bob)
        await world.cluster.update(collection, {"owner_uuid": hidden.uuid}, world.bob)
        await line.hear(lambda told: "gone" in told)
    about = "an object is moved to where it may not be read"
    right = "forget the object"
    return tape.lines(_head(about, "/v1/stream", events=_COLLECTIONS), right)


async def v1_events_narrowed(world: World) -> Lines:
    tape, cluster = Tape(world.alice.token), world.cluster
    role, opened = await cluster.role("lost", world.alice), await cluster.project(owner=world.bob)
    await cluster.share(opened, role)
    async with world.v1(tape, events=_COLLECTIONS) as line:
        await line.hear(lambda told: "caught_up" in told)
        await cluster.collection("c1", owner=opened, by=world.bob)
        await line.hear(_event)
        await cluster.unshare(role, world.alice)
        await line.hear(lambda told: "narrowed" in told)
    about = "a role is lost, and with it what was shared with the role"
    return tape.lines(
        _head(about, "/v1/stream", events=_COLLECTIONS), "look again at what it shows"
    )


async def v1_log_resume(world: World) -> Lines:
    tape = Tape(world.alice.token)
    request, container = await world.running()
    async with world.v1(tape, log={"uuid": request.uuid}) as line:
        place = await world.writes(line, container, _PIECES[:2])
        line.cut()
    await world.cluster.write_log(container, "stderr.txt", _PIECES[2])
    await world.ends(request)
    target = {"uuid": request.uuid, "container": container.uuid, "from": {"stderr.txt": place}}
    async with world.v1(tape, log=target) as line:
        await line.hear(_over)
    about = "the line is lost in the midst of a log"
    right = "name the place after the last byte it had, and the attempt; tell no byte twice"
    return tape.lines(_head(about, "/v1/stream", log=request.uuid), right, ends=True)


async def v1_log_ended(world: World) -> Lines:
    tape = Tape(world.alice.token)
    request, container = await world.running()
    await world.cluster.write_log(container, "stderr.txt", b"".join(_PIECES))
    await world.ends(request)
    async with world.v1(tape, log={"uuid": request.uuid}) as line:
        await line.hear(_over)
    about = "a log that is over"
    right = "end by itself after the request's end"
    return tape.lines(_head(about, "/v1/stream", log=request.uuid), right, ends=True)


async def v1_log_gap(world: World) -> Lines:
    tape = Tape(world.alice.token)
    request, container = await world.running()
    other = world.stack.stream_url  # which has it in memory
    async with world.v1(Tape(tape.token), other, log={"uuid": request.uuid}) as line:
        await world.writes(line, container, _PIECES)
    async with world.nats() as nats:
        subject = f"{subjects.LOGS}.{container.uuid}.>"
        page, _ = await nats.whole_page(
            streams.LOGS, {"next_by_subj": subject, "seq": 1, "batch": 9}, 2**53
        )
        (second,) = [found.sequence for found in page if found.data == _PIECES[1]]
        await nats.js_api(f"STREAM.MSG.DELETE.{streams.LOGS}", {"seq": second})
    await world.cluster.cancel(request)
    async with world.v1(tape, log={"uuid": request.uuid}) as line:
        place = (await line.hear(_log(12)))["log"]
        line.cut()
    place = {"epoch": place["epoch"], "offset": 12}
    target = {"uuid": request.uuid, "container": container.uuid, "from": {"stderr.txt": place}}
    async with world.v1(tape, log=target) as line:
        await line.hear(_over)
    about = "bytes that nobody has any more"
    right = "say that something is missing, go on behind it, and do not ask for it again"
    return tape.lines(_head(about, "/v1/stream", log=request.uuid), right, ends=True)


async def v1_revoked(world: World) -> Lines:
    tape = Tape(world.alice.token)
    request, container = await world.running()
    async with world.v1(tape, log={"uuid": request.uuid}) as line:
        await world.writes(line, container, _PIECES[:1])
        await world.cluster.unshare(world.project, world.alice)
        await line.hear(lambda told: "revoked" in told)
    about = "what is followed may not be read any more"
    right = "end, and not ask again"
    return tape.lines(_head(about, "/v1/stream", log=request.uuid), right, ends=True)


async def v1_token_ended(world: World) -> Lines:
    tape = Tape(world.alice.token)
    request, container = await world.running()
    async with world.v1(tape, log={"uuid": request.uuid}) as line:
        await world.writes(line, container, _PIECES[:1])
        await world.cluster.logout(world.alice)
        await line.hear_the_end()
    about = "the token has ended, and there is no other"
    right = "not come back with the same token"
    return tape.lines(_head(about, "/v1/stream", log=request.uuid), right, ends=True)


async def wamp_events_resume(world: World) -> Lines:
    tape = Tape(world.alice.token)
    async with world.wamp(tape, "arvados.event", match="prefix") as line:
        await line.hear(lambda told: "caught_up" in told[-1])
        for name in ("c1", "c2"):
            await world.collect(name)
            told = await line.hear(_event)
        await asyncio.gather(world.proxy.stop(60), line.hear_the_end())
    await world.collect("c3")
    await world.proxy.start()
    place = quote(json.dumps({"cursor": told[5]["event"]["cursor"]}))
    async with world.wamp(tape, f"arvados.event?{place}", match="prefix") as line:
        await line.hear(_event)
    about = "the server goes away between two events"
    right = "join again, and name the cursor of the last event: WAMP does not resume by itself"
    return tape.lines(_head(about, "/wamp", events=_COLLECTIONS), right)


async def wamp_log_ended(world: World) -> Lines:
    tape = Tape(world.alice.token)
    request, container = await world.running()
    await world.cluster.write_log(container, "stderr.txt", b"".join(_PIECES))
    await world.ends(request)
    async with world.wamp(tape, f"arvados.log.{request.uuid}") as line:
        await line.hear(_over)
    about = "a log to its end"
    right = "leave after the request's end; a client that knows it is told UNSUBSCRIBED"
    return tape.lines(_head(about, "/wamp", log=request.uuid), right, ends=True)


ALL: dict[str, Callable[[World], Awaitable[Lines]]] = {
    made.__name__.replace("_", "-"): made
    for made in (
        v0_resume,
        v1_events_gap,
        v1_events_gone,
        v1_events_narrowed,
        v1_events_resume,
        v1_log_ended,
        v1_log_gap,
        v1_log_resume,
        v1_revoked,
        v1_token_ended,
        wamp_events_resume,
        wamp_log_ended,
    )
}


@asynccontextmanager
async def proxied(running: Stack) -> AsyncIterator[tuple[Service, str]]:
    """A replica that may be stopped, and where it listens."""
    listen = f"127.0.0.1:{next(ports.candidates())}"
    replica = running.add("wsproxy that is recorded", ["wsproxy"], ARVADOS_NATS_LISTEN=listen)
    del running.services[replica.name]
    await replica.start()
    try:
        yield replica, f"ws://{listen}"
    finally:
        await replica.stop()


async def recorded(name: str, running: Stack, proxy: Service, address: str) -> str:
    """The file of a situation, recorded now."""
    cluster = running.sandbox.cluster
    alice, bob = await cluster.user("alice"), await cluster.user("bob")
    project = await cluster.project(owner=bob)
    link = await cluster.share(project, alice)
    world = World(running, proxy, address, alice, bob, project)
    before = {"objects": [link.uuid], "begin": "oldest"}
    async with world.v1(Tape(alice.token), events=before) as line:
        await line.hear(_event)  # what was done for the situation itself is told before
    found = await ALL[name](world)
    return "".join(f"{json.dumps(line)}\n" for line in found)


async def main() -> None:
    """Record all of them."""
    async with (
        sandbox.run() as made,
        stack.beside(made) as running,
        proxied(running) as (proxy, address),
    ):
        for name in ALL:
            FRAMES.joinpath(f"{name}.jsonl").write_text(
                await recorded(name, running, proxy, address)
            )


if __name__ == "__main__":
    asyncio.run(main())
