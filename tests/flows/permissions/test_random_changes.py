# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Somebody changes things at random through the API alone; the API says who may read each row.

Live: each reader hears of every row exactly if GET of the object answers them 200 at that moment;
who could read the object until then and cannot any more hears that it is gone. Late: who joins
now gets of the whole past what GET answers now. What is gone is judged by its last owner.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from sandbox.model.actors import Actor
from sandbox.stack import Stack
from tests.support.clients import late, v1
from tests.support.clients.native_answers import eventually

STEPS = int(os.environ.get("RANDOM_STEPS", "30"))
SEEDS = [int(seed) for seed in os.environ.get("RANDOM_SEEDS", "1").split(",")]
KINDS = {"j7d0g": "groups", "4zz18": "collections", "xvhdp": "container_requests"}
KINDS |= {"dz642": "containers", "o0j2j": "links", "7fd4e": "workflows"}
NATIVE = ("j7d0g", "4zz18", "xvhdp", "dz642", "7fd4e")

Json = dict[str, Any]


def kind_of(uuid: str) -> str | None:
    return KINDS.get((uuid or "").split("-")[1]) if (uuid or "").count("-") == 2 else None


@dataclass(slots=True)
class Person:
    """Somebody with a token and a live socket."""

    actor: Actor
    api: httpx.AsyncClient
    live: v1.Client

    async def may_get(self, uuid: str) -> bool:
        """What the API answers, as events are judged: with include_trash."""
        path = f"/arvados/v1/{kind_of(uuid)}/{uuid}"
        answer = await self.api.get(path, params={"include_trash": "true", "select": '["uuid"]'})
        assert answer.status_code in (200, 403, 404), answer.text
        return answer.status_code == 200

    async def listed(self, kind: str | None, uuids: list[str]) -> list[str]:
        """Which of these objects of one kind a list of the API holds."""
        filters = json.dumps([["uuid", "in", uuids]])
        options = {
            "filters": filters,
            "select": '["uuid"]',
            "include_trash": "true",
            "limit": "500",
        }
        answer = await self.api.get(f"/arvados/v1/{kind}", params=options)
        assert answer.status_code == 200, answer.text
        return [item["uuid"] for item in answer.json()["items"]]


@dataclass(slots=True)
class Row:
    """A row of the log table, as the database has it."""

    uuid: str
    event_type: str
    object_uuid: str
    owner: str


@dataclass
class World:
    """People, what is there, and what was done."""

    stack: Stack
    people: list[Person]
    admin: httpx.AsyncClient
    dice: random.Random
    projects: list[str] = field(default_factory=list)
    things: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    last_row: int = 0
    done: list[str] = field(default_factory=list)

    async def rows(self) -> list[Row]:
        """The rows since the last call, of kinds that everybody may ask about."""
        found = await self.stack.sandbox.cluster.pool.fetch(
            "SELECT id, uuid, event_type, object_uuid, object_owner_uuid FROM logs WHERE id > $1"
            " ORDER BY id",
            self.last_row,
        )
        self.last_row = max([row["id"] for row in found], default=self.last_row)
        return [
            Row(row["uuid"], row["event_type"], row["object_uuid"], row["object_owner_uuid"] or "")
            for row in found
            if kind_of(row["object_uuid"])
        ]

    async def call(self, method: str, path: str, body: Json | None = None) -> Json | None:
        """One request of an administrator or of anybody; a refusal is fine."""
        by = self.dice.choice([self.admin, self.admin, *(person.api for person in self.people)])
        answer = await by.request(method, f"/arvados/v1/{path}", json=body)
        assert answer.status_code < 500, answer.text
        self.done.append(f"{method} {path} {json.dumps(body)}: {answer.status_code}")
        return answer.json() if answer.status_code == 200 else None

    async def change(self) -> None:
        """One change at random."""
        acts = [self.make_project, self.make_thing, self.make_thing, self.share, self.unshare]
        acts += [self.move, self.move, self.rename, self.trash, self.delete]
        await self.dice.choice(acts)()

    def owner(self) -> str:
        homes = [person.actor.uuid for person in self.people]
        return self.dice.choice([*homes, *self.projects, *self.projects])

    async def make_project(self) -> None:
        name = f"p {len(self.done)}"
        group = {"name": name, "group_class": "project", "owner_uuid": self.owner()}
        if made := await self.call("POST", "groups", {"group": group}):
            self.projects.append(made["uuid"])

    async def make_thing(self) -> None:
        name, owner = f"t {len(self.done)}", self.owner()
        if self.dice.random() < 0.5:
            body: Json = {"collection": {"name": name, "owner_uuid": owner}}
            made = await self.call("POST", "collections", body)
        else:
            body = {"workflow": {"name": name, "owner_uuid": owner}}
            made = await self.call("POST", "workflows", body)
        if made:
            self.things.append(made["uuid"])

    async def share(self) -> None:
        if not self.projects:
            return
        link = {
            "link_class": "permission",
            "name": self.dice.choice(["can_read", "can_write", "can_manage"]),
            "tail_uuid": self.dice.choice(self.people).actor.uuid,
            "head_uuid": self.dice.choice([*self.projects, *self.things]),
        }
        if made := await self.call("POST", "links", {"link": link}):
            self.links.append(made["uuid"])

    async def unshare(self) -> None:
        if self.links:
            link = self.links.pop(self.dice.randrange(len(self.links)))
            await self.call("DELETE", f"links/{link}")

    async def move(self) -> None:
        if things := [*self.projects, *self.things]:
            uuid = self.dice.choice(things)
            body = {str(kind_of(uuid)).removesuffix("s"): {"owner_uuid": self.owner()}}
            await self.call("PUT", f"{kind_of(uuid)}/{uuid}", body)

    async def rename(self) -> None:
        if things := [*self.projects, *self.things]:
            uuid = self.dice.choice(things)
            body = {str(kind_of(uuid)).removesuffix("s"): {"name": f"n {len(self.done)}"}}
            await self.call("PUT", f"{kind_of(uuid)}/{uuid}", body)

    async def trash(self) -> None:
        if self.projects:
            what = self.dice.choice(["trash", "untrash", "untrash"])
            await self.call("POST", f"groups/{self.dice.choice(self.projects)}/{what}")

    async def delete(self) -> None:
        flows = [uuid for uuid in self.things if kind_of(uuid) == "workflows"]
        if flows:
            await self.call("DELETE", f"workflows/{self.dice.choice(flows)}")

    async def may_read(self, person: Person, row: Row, last_owner: dict[str, str]) -> bool:
        """What the API says now of a row's object."""
        if row.object_uuid not in last_owner:
            return await person.may_get(row.object_uuid)
        owner = last_owner[row.object_uuid]
        if kind_of(owner) == "groups":
            return await person.may_get(owner)
        return owner == person.actor.uuid

    async def gone(self, rows: list[Row]) -> dict[str, str]:
        """Objects that are not there any more, with their last owner."""
        deleted = {row.object_uuid: row.owner for row in rows if row.event_type == "delete"}
        for uuid in [*deleted]:
            answer = await self.admin.get(f"/arvados/v1/{kind_of(uuid)}/{uuid}")
            if answer.status_code == 200:
                del deleted[uuid]
        return deleted


@asynccontextmanager
async def a_world(stack: Stack, seed: int) -> AsyncIterator[World]:
    cluster, dice = stack.sandbox.cluster, random.Random(seed)
    async with AsyncExitStack() as opened:

        async def api(actor: Actor) -> httpx.AsyncClient:
            headers = {"Authorization": f"Bearer {actor.token}"}
            url = stack.sandbox.api.url
            client = httpx.AsyncClient(base_url=url, headers=headers, timeout=30)
            return await opened.enter_async_context(client)

        people = []
        for name in ("ann", "ben", "cleo", "dan"):
            actor = await cluster.user(f"{name} {seed}")
            socket = v1.connected(f"ws://127.0.0.1:{stack.proxy_port}", actor)
            live = await opened.enter_async_context(socket)
            await live.subscribe("all", events={})
            people.append(Person(actor, await api(actor), live))
        world = World(stack, people, await api(cluster.root), dice)
        await world.rows()
        yield world


async def heard_live(world: World, person: Person) -> tuple[set[str], set[str]]:
    """What a reader was told before a change of their own: rows, and objects that are gone."""
    marker = await world.stack.sandbox.cluster.collection(owner=person.actor)
    await person.live.until("event", object_uuid=marker.uuid)
    seen, person.live.seen = person.live.seen, []
    events = {body["uuid"] for key, body in seen if key == "event"}
    return events, {body["uuid"] for key, body in seen if key == "gone"}


async def differences_live(
    world: World, rows: list[Row], before: set[tuple[str, str]]
) -> list[str]:
    """What was told too much and too little of the rows of one change."""
    gone, wrong = await world.gone(rows), []
    for person in world.people:
        events, lost = await heard_live(world, person)
        for row in rows:
            may = await world.may_read(person, row, gone)
            if (row.uuid in events) != may:
                wrong.append(f"{person.actor.uuid} {'missed' if may else 'heard'} {row}")
        wrong += [
            f"{person.actor.uuid} was told that {uuid} is gone"
            for uuid in lost
            if (person.actor.uuid, uuid) not in before
        ]
    return wrong


async def differences_late(world: World, rows: list[Row]) -> list[str]:
    """The same for those who join now, by socket and natively."""
    wrong, gone = [], await world.gone(rows)
    for person in world.people:
        answers = dict.fromkeys({row.object_uuid for row in rows}, False)
        for row in rows:
            answers[row.object_uuid] = await world.may_read(person, row, gone)
        by_v1 = await late.by_v1(world.stack, person.actor)
        by_native = await late.by_native(world.stack, person.actor)
        for row in rows:
            may = answers[row.object_uuid]
            if (row.uuid in by_v1) != may:
                wrong.append(f"v1 {person.actor.uuid} {'missed' if may else 'got'} {row}")
            if row.object_uuid.split("-")[1] in NATIVE and (row.uuid in by_native) != may:
                wrong.append(f"native {person.actor.uuid} {'missed' if may else 'got'} {row}")
            elif row.uuid in by_native and not may:
                wrong.append(f"native {person.actor.uuid} got {row}")
    return wrong


async def all_seen(world: World) -> None:
    """The proxy has seen all rows up to now."""
    cluster = world.stack.sandbox.cluster
    marker = await cluster.collection(owner=cluster.root)

    async def seen() -> bool:
        found = await late.by_v1(world.stack, cluster.root, objects=[marker.uuid])
        return bool(found)

    await eventually(seen)


async def readable_now(world: World) -> set[tuple[str, str]]:
    """Who may read what, before a change."""
    things: dict[str | None, list[str]] = {}
    for uuid in (*world.projects, *world.things, *world.links):
        things.setdefault(kind_of(uuid), []).append(uuid)
    found = set()
    for person in world.people:
        for kind, uuids in things.items():
            found |= {(person.actor.uuid, uuid) for uuid in await person.listed(kind, uuids)}
    return found


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", SEEDS)
async def test_everybody_hears_live_and_late_what_the_api_says(stack: Stack, seed: int) -> None:
    """After each change live; every tenth time the whole past as well."""
    wrong: list[str] = []
    every: list[Row] = []
    async with a_world(stack, seed) as world:
        for step in range(STEPS):
            before = await readable_now(world)
            await world.change()
            rows = await world.rows()
            found = await differences_live(world, rows, before)
            wrong += [f"live, step {step}, {world.done[-1:]}: {text}" for text in found]
            every += [*rows, *await world.rows()]
            if step % 10 == 9:
                await all_seen(world)
                every += await world.rows()
                found = await differences_late(world, every)
                wrong += [f"late, step {step}: {text}" for text in found]
    assert len(every) > STEPS / 2
    assert not wrong, "\n".join(wrong)
