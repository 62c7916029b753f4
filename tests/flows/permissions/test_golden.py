# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The recording of a real Arvados, end to end: who hears what after each of its changes.

The pretend cluster is led from step to step; it is held to the recording elsewhere
(test_sandbox_golden). After each step an event about every object is made, and every reader must
hear exactly those about objects that they may read now: by protocols v0 and v1 on sockets that
stay open, and by native NATS with the subjects that their token gets. Who joins anew, natively or
for the whole past, are those whose rights the step has changed, and now and then everybody.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from arvados_nats.contract import streams, subjects
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Nats
from sandbox import sandbox as whole_sandbox
from sandbox import stack as services
from sandbox.cluster import Cluster
from sandbox.model.actors import Actor
from sandbox.model.config import ClusterConfig
from sandbox.model.refusal import Refusal
from sandbox.servers import backends
from sandbox.servers.postgres import PostgresServer
from sandbox.stack import Stack
from tests.support import golden_losses
from tests.support.clients import late
from tests.support.clients.native import connected
from tests.support.golden_losses import Told
from tests.support.golden_replay import Json, Replay
from tests.support.waiting import until

EVERYBODY = int(os.environ.get("ARVADOS_NATS_GOLDEN_EVERYBODY", "8"))
"""At each eighth step everybody joins anew; at the others those whose rights it has changed. The
long form has 1."""
SETTLED = 60.0
"""Seconds within which readers must hear exactly what they may; most take a fraction of one."""
NATIVE_ROUNDS = 5
TRASHABLE = ("group", "collection")
V1 = Subprotocol("arvados.events.v1.json")
SUBSCRIBE_V0: Json = {"method": "subscribe", "narrowed": True}
SUBSCRIBE_V1: Json = {"subscribe": {"id": "all", "events": {}}}
LIVE = ("collection", "container_request", "workflow", "container")
"""Kinds of the live tree whose readers all hear of them; role groups are not told natively."""


@pytest.fixture(scope="module")
def recording(golden: Path) -> Json:
    loaded: Json = json.loads((golden / "permissions.json").read_text())
    return loaded


@pytest.fixture
async def stack(
    backend: backends.Backend,
    postgres_server: PostgresServer,
    keys_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    recording: Json,
) -> AsyncIterator[Stack]:
    """Our services beside a cluster with the recorded cluster id and fixed tokens."""
    settings = recording["config"]
    config = ClusterConfig(
        cluster_id=recording["cluster_id"],
        system_root_token=settings["SystemRootToken"],
        anonymous_user_token=settings["Users.AnonymousUserToken"],
    )
    async with (
        backends.run_nats(backend, keys_folder) as nats,
        whole_sandbox.on(
            postgres_server, nats, keys_folder, tmp_path_factory.mktemp("tls"), config=config
        ) as sandbox,
        services.beside(
            sandbox,
            ARVADOS_NATS_GRANTS_ROUND_SECONDS="0.5",
            ARVADOS_NATS_TOKEN_SWEEP_SECONDS="0.3",
            # Arvados is not asked of what is gone: who saw a role that is deleted must be known.
            ARVADOS_NATS_ROLE_GROUPS_VISIBLE_TO_ALL="true",
        ) as running,
    ):
        yield running


@pytest.fixture
async def replay(stack: Stack, recording: Json) -> AsyncIterator[Replay]:
    listener = await asyncpg.connect(stack.sandbox.database.dsn)
    following = Replay(stack.sandbox.cluster, listener, recording)
    await following.start()
    yield following
    await listener.close()


@pytest.fixture
async def nats(stack: Stack) -> AsyncIterator[Nats]:
    """A trusted connection."""
    seed = stack.sandbox.seed("publisher")
    async with nats_client.connect([stack.sandbox.nats.url], name="test", seed=seed) as connection:
        yield connection


@dataclass
class Ear:
    """One reader's socket, and what came over it, however often it was opened."""

    stack: Stack
    label: str
    protocol: str
    told: Told = field(default_factory=Told)
    token: str | None = None
    listening: bool = False
    _task: asyncio.Task[None] | None = None

    async def use(self, token: str | None) -> None:
        """Listen with this token; a socket that is open with it stays open."""
        if token == self.token and (token is None or (self._task and not self._task.done())):
            return
        await self.close()
        self.token, self.told.stayed = token, False
        if token is not None:
            ready = asyncio.Event()
            self._task = asyncio.create_task(self._listen(token, ready))
            await asyncio.wait_for(ready.wait(), 60)

    async def _listen(self, token: str, ready: asyncio.Event) -> None:
        v0 = self.protocol == "v0"
        url = f"{self.stack.websocket_url}?api_token={token}" if v0 else self.stack.stream_url
        try:
            async with connect(url, subprotocols=None if v0 else [V1]) as socket:
                for message in [SUBSCRIBE_V0] if v0 else [{"auth": {"token": token}}, SUBSCRIBE_V1]:
                    await socket.send(json.dumps(message))
                async for frame in socket:
                    answer = json.loads(frame)
                    if answer.get("status") == 200 or "caught_up" in answer:
                        ready.set()
                    self.told.take(answer)
        except (OSError, WebSocketException):
            return
        finally:
            ready.set()

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class Readers:
    """The recorded readers, and what each may read and has heard."""

    def __init__(self, stack: Stack, replay: Replay, recording: Json) -> None:
        self._stack = stack
        self._replay = replay
        self.labels = list(recording["matrix_user_uuid"])
        self.ears = [Ear(stack, label, how) for label in self.labels for how in ("v0", "v1")]

    async def actors(self) -> dict[str, Actor | None]:
        """Each reader by label; None where the token is not accepted."""
        found: dict[str, Actor | None] = {}
        for label in self.labels:
            try:
                found[label] = await self._replay.actor(label)
            except Refusal:
                found[label] = None
        return found

    async def listen(self) -> None:
        actors = await self.actors()
        for ear in self.ears:
            actor = actors[ear.label]
            await ear.use(actor.token if actor else None)

    async def may(self, objects: set[str]) -> dict[str, set[str]]:
        """Who may read which of these objects now, as events are judged: with include_trash."""
        found = {}
        for label, actor in (await self.actors()).items():
            found[label] = await self._readable(actor) & objects if actor else set()
        return found

    async def _readable(self, actor: Actor) -> set[str]:
        cluster = self._stack.sandbox.cluster
        others = tuple(kind for kind in told_kinds(cluster) if kind not in TRASHABLE)
        async with cluster.unit(actor) as unit:
            return await unit.all_readable(
                *TRASHABLE, include_trash=True
            ) | await unit.all_readable(*others)

    def all_has_come(self, rows: dict[str, str], may: dict[str, set[str]]) -> bool:
        """The root token has heard of all of them, so that others may have as well."""
        heard = next(ear.told.heard for ear in self.ears if ear.label == "root")
        return all(row in heard for row, uuid in rows.items() if uuid in may["root"])

    async def close(self) -> None:
        for ear in self.ears:
            await ear.close()


def told_kinds(cluster: Cluster) -> tuple[str, ...]:
    """Kinds that events are about. Log rows have none, and there are many."""
    return tuple(kind for kind in cluster.tables if kind not in ("log", "api_client_authorization"))


def is_asked_about(replay: Replay, recording: Json, uuid: str) -> bool:
    """Of links the recording asks about those with a name alone."""
    named = (one["uuid"] for one in recording["objects"] if one["name"] is not None)
    return "-o0j2j-" not in uuid or uuid in {replay.translate(one) for one in named}


async def objects_of(replay: Replay, recording: Json) -> set[str]:
    """Our uuids of the recorded objects that are there now; nameless links are not asked about."""
    known = {
        replay.translate(one["uuid"])
        for one in recording["objects"]
        if one["type"] not in ("logs", "api_client_authorizations")
        and (one["type"] != "links" or one["name"] is not None)
    }
    cluster = replay.cluster
    async with cluster.unit(cluster.root) as unit:
        there = await unit.all_readable(*told_kinds(cluster), include_trash=True)
        rows = await unit.connection.fetch("SELECT uuid FROM container_requests")
    return known & (there | {row[0] for row in rows})


async def tell_of(replay: Replay, objects: set[str]) -> dict[str, str]:
    """Make an event about each object; log row uuid to object uuid."""
    rows: dict[str, str] = {}
    async with replay.cluster.transaction() as transaction:
        for uuid in sorted(objects):
            row = await transaction.log(
                replay.cluster.root, object_uuid=uuid, event_type="update", properties={}
            )
            rows[row.uuid] = uuid
    await replay.new_logs()
    return rows


def differences(
    readers: Readers, rows: dict[str, str], may: dict[str, set[str]]
) -> dict[str, dict[str, list[str]]]:
    """Per reader what they heard too much and too little of, of these rows."""
    found = {}
    for ear in readers.ears:
        heard = {uuid for row, uuid in rows.items() if row in ear.told.heard}
        if heard != may[ear.label]:
            found[f"{ear.label} by {ear.protocol}"] = {
                "too much": sorted(heard - may[ear.label]),
                "missing": sorted(may[ear.label] - heard),
            }
    return found


async def settle(
    readers: Readers, replay: Replay, recording: Json, title: str
) -> list[tuple[dict[str, str], dict[str, set[str]]]]:
    """Tell of every object until all hear exactly what they may; what was told, and to whom."""
    deadline = time.monotonic() + SETTLED
    while True:
        await readers.listen()
        objects = await objects_of(replay, recording)
        may = await readers.may(objects)
        rows = await tell_of(replay, objects)
        wrong: dict[str, Any] = {}
        patience = time.monotonic() + 2
        while (now := time.monotonic()) < patience:
            if now < deadline and not readers.all_has_come(rows, may):
                patience = now + 2
            wrong = differences(readers, rows, may)
            if not wrong:
                return [(rows, may)]
            await asyncio.sleep(0.02)
        assert time.monotonic() < deadline, f"{title}: {replay.recorded(wrong)}"


def stale(replay: Replay, recording: Json, step: int, label: str) -> set[str]:
    """What Arvados forgot to hide: either answer is right (docs/facts/permission-rule.md). No link
    leads to it, so it is no share point, and is told below none."""
    return {
        replay.translate(recording["objects"][index]["uuid"])
        for cell in recording["stale_cells"]
        if (cell["step"], cell["label"]) == (step, label)
        for index in cell["objects"]
    }


def joining(told: list[tuple[dict[str, str], dict[str, set[str]]]], step: int) -> set[str]:
    """Who joins anew after this step."""
    now, before = told[-1][1], told[-2][1] if len(told) > 1 else {}
    return {label for label in now if step % EVERYBODY == 0 or now[label] != before.get(label)}


async def late_joiners(
    readers: Readers, stack: Stack, replay: Replay, recording: Json, labels: set[str]
) -> list[str]:
    """What readers who join now get of the whole past too much, or do not get.

    Of what is gone only what is sure without asking: it belonged to a project, or to the reader.
    """
    problems: list[str] = []
    objects = await objects_of(replay, recording)
    groups = await replay.cluster.pool.fetch("SELECT uuid FROM groups")
    may = await readers.may(objects | {row[0] for row in groups})
    rows = await replay.cluster.pool.fetch(
        "SELECT uuid, event_type, object_uuid, object_owner_uuid AS owner FROM logs"
        " WHERE event_type IN ('create', 'delete') ORDER BY id"
    )
    gone = {row["object_uuid"]: row["owner"] for row in rows if row["event_type"] == "delete"}

    def expected(actor: Actor, mine: set[str], uuid: str) -> bool | None:
        if uuid in objects:
            return uuid in mine
        owner = gone.get(uuid, "")
        if actor.is_admin or not owner:
            return None
        return owner in mine if "-j7d0g-" in owner else None if owner != actor.uuid else True

    async def one(label: str, actor: Actor) -> None:
        got = await late.by_v1(stack, actor, event_types=["create", "delete"])
        for row in rows:
            wanted = expected(actor, may[label], row["object_uuid"] or "")
            if wanted is not None and wanted != (row["uuid"] in got):
                problems.append(f"{label}: {'missing' if wanted else 'too much'} {dict(row)}")

    await asyncio.gather(
        *(
            one(label, actor)
            for label, actor in (await readers.actors()).items()
            if actor and label in labels
        )
    )
    return problems


async def natives(
    readers: Readers, stack: Stack, replay: Replay, recording: Json, step: int, labels: set[str]
) -> list[str]:
    """What native clients hear that they may not, or do not hear though they may.

    A client that is cut while it listens (the change of this step may reach it last) misses what is
    said meanwhile: then all are asked once more.
    """
    for _ in range(NATIVE_ROUNDS):
        problems, cuts = await _natives(readers, stack, replay, recording, step, labels)
        if not cuts or any("too much ['" in problem for problem in problems):
            break
    return problems


async def _natives(
    readers: Readers, stack: Stack, replay: Replay, recording: Json, step: int, labels: set[str]
) -> tuple[list[str], int]:
    problems: list[str] = []
    cuts = 0
    objects = await objects_of(replay, recording)
    may = await readers.may(objects)

    async def one(label: str, actor: Actor, gate: asyncio.Barrier) -> None:
        nonlocal cuts
        async with connected(stack, actor) as client, connected(stack, actor, asks=True) as asking:
            answer = json.loads((await asking.nats.request("arvados.api.whoami")).data)
            for pattern in answer["subscribe"]:
                await client.listen(pattern)
            await gate.wait()
            await gate.wait()
            heard = {message.subject.split(".")[7] for message in client.heard} & objects
            cuts += client.cuts
        wanted = {uuid for uuid in may[label] if _kind(uuid) in LIVE}
        missing = wanted - heard - stale(replay, recording, step, label)
        if heard - may[label] or missing:
            problems.append(
                f"{label}: too much {sorted(heard - may[label])} missing {sorted(missing)}"
            )

    plain = {
        label: actor
        for label, actor in (await readers.actors()).items()
        if actor and not actor.is_admin and label in labels - {"root", "ctok"}
    }
    if not plain:
        return [], 0
    gate = asyncio.Barrier(len(plain) + 1)
    async with asyncio.TaskGroup() as tasks:
        for label, actor in plain.items():
            tasks.create_task(one(label, actor, gate))
        await gate.wait()
        rows = await tell_of(replay, objects)
        root = next(ear.told.heard for ear in readers.ears if ear.label == "root")
        last = {row for row, uuid in rows.items() if uuid in may["root"]}
        await until(lambda: last <= root.keys(), "the root token hears all")
        await asyncio.sleep(0.2)  # nothing says when a message that may not come did not come
        await gate.wait()
    return problems, cuts


def _kind(uuid: str) -> str:
    return {
        "4zz18": "collection",
        "xvhdp": "container_request",
        "7fd4e": "workflow",
        "dz642": "container",
        "j7d0g": "group",
    }.get(uuid.split("-")[1], "other")


async def follow(replay: Replay, step: Json, nats: Nats | None = None) -> list[Json]:
    """Do what was done in a step; what the server makes by itself is known by its log rows, which
    are returned. With `nats` each of its requests waits until the rows of those before are stored:
    of what is deleted before the publisher has seen it, nothing can be proven."""
    logs: list[Json] = []
    for request in step["requests"]:
        if nats and logs:
            await until(functools.partial(is_stored, nats, logs[-1]))
        await replay.send(request)
        logs += await replay.new_logs()
        replay.learn(logs, step["logs"])
    return logs


async def is_stored(nats: Nats, row: Json) -> bool:
    """Whether the stream has a row's event."""
    subject = subjects.event(row["object_uuid"], row["event_type"])
    last = await nats.last(streams.EVENTS, subject)
    return last is not None and last.headers["Nats-Msg-Id"] == row["uuid"]


def losses(
    readers: Readers, rows: list[Json], before: dict[str, set[str]], after: dict[str, set[str]]
) -> list[str]:
    """What was told wrongly of a step's rows to sockets that stayed open."""
    problems = []
    for ear in readers.ears:
        had, has, name = before[ear.label], after[ear.label], f"{ear.label} by {ear.protocol}"
        if not ear.told.stayed:
            continue
        problems += [f"{name}: {wrong}" for wrong in golden_losses.untold(ear.told, rows, had, has)]
        if golden_losses.silent(ear.told, rows, had, has):
            problems.append(f"{name}: not a word of {sorted(had - has)}")
    return problems


@pytest.mark.timeout(600)
async def test_everybody_hears_exactly_what_he_may_after_every_step(
    stack: Stack, replay: Replay, recording: Json, nats: Nats
) -> None:
    """57 changes, 14 tokens, every object: sockets that stay open, and native NATS logins."""
    readers = Readers(stack, replay, recording)
    told: list[tuple[dict[str, str], dict[str, set[str]]]] = []
    problems: list[str] = []
    await follow(replay, recording["setup"])
    for step in recording["steps"]:
        title = f"step {step['n']} {step['title']}"
        for ear in readers.ears:
            ear.told.next_step()
        made = await follow(replay, step, nats)
        told += await settle(readers, replay, recording, title)
        if len(told) > 1:
            asked = [row for row in made if is_asked_about(replay, recording, row["object_uuid"])]
            found = losses(readers, asked, told[-2][1], told[-1][1])
            problems += [f"{title}: {problem}" for problem in found]
        labels = joining(told, step["n"])
        problems += [
            f"{title}: late {problem}"
            for problem in await late_joiners(readers, stack, replay, recording, labels)
        ]
        problems += [
            f"{title}: native {problem}"
            for problem in await natives(readers, stack, replay, recording, step["n"], labels)
        ]
    for rows, may in told:
        assert not differences(readers, rows, may)
    await readers.close()
    assert not problems, replay.recorded("\n".join(problems))
