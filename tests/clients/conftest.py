# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The programs of docs/clients, in each language that is installed, and what they follow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from arvados_nats.contract import accounts, streams, subjects
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Nats
from sandbox.model.actors import Actor
from sandbox.model.records import Record
from sandbox.stack import Stack
from tests.clients import programs
from tests.clients.programs import LANGUAGES, Program, running
from tests.support.worlds.stacks import shared_stack

__all__ = ["shared_stack"]


@pytest.fixture(scope="session", params=LANGUAGES)
def command(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Sequence[str]:
    """How to start the program of one language, which is made once."""
    try:
        return programs.ready(request.param, tmp_path_factory.mktemp(request.param))
    except programs.Missing as reason:
        pytest.skip(f"{request.param}: {reason}")


@dataclass(frozen=True, slots=True)
class World:
    """A project of bob that alice may read."""

    stack: Stack
    alice: Actor
    bob: Actor
    project: Record

    def environment(self, token: str | None = None) -> dict[str, str]:
        return {
            "NATS_URL": self.stack.sandbox.nats.url,
            "ARVADOS_API_TOKEN": token or self.alice.token,
            "RECONCILE_SECONDS": "5",
        }

    async def make(self, count: int = 1) -> list[str]:
        """Collections in the project; their uuids."""
        cluster = self.stack.sandbox.cluster
        made = [await cluster.collection(owner=self.project, by=self.bob) for _ in range(count)]
        return [one.uuid for one in made]

    async def kick(self) -> None:
        """Cut every connection of alice, as the callout service would."""
        sandbox = self.stack.sandbox
        async with nats_client.connect(
            [sandbox.nats.url], name="test", seed=sandbox.seed("sys")
        ) as system:
            for account in (accounts.USERS, accounts.REQUESTS):
                await self._kick(system, account)

    async def _kick(self, system: Nats, account: str) -> None:
        query = json.dumps({"auth": True, "acc": account}).encode()
        answer = await system.request("$SYS.REQ.SERVER.PING.CONNZ", query)
        body = json.loads(answer.data)
        for one in body["data"].get("connections") or ():
            if self.alice.uuid in one.get("authorized_user", ""):
                subject = f"$SYS.REQ.SERVER.{body['server']['id']}.KICK"
                await system.request(subject, json.dumps({"cid": one["cid"]}).encode())

    @asynccontextmanager
    async def unanswered(self) -> AsyncIterator[Nats]:
        """Nobody answers requests, but who does it by this connection."""
        sandbox, proxy = self.stack.sandbox, self.stack.services["wsproxy"]
        await proxy.stop()
        try:
            seed = sandbox.seed("wsproxy")
            async with nats_client.connect([sandbox.nats.url], name="test", seed=seed) as nats:
                yield nats
        finally:
            await proxy.start()

    async def live(self, *messages: tuple[str, dict[str, str], bytes]) -> None:
        """Have users hear what no service of ours would send them like this."""
        sandbox = self.stack.sandbox
        seed = sandbox.seed("publisher")
        async with nats_client.connect([sandbox.nats.url], name="test", seed=seed) as nats:
            for subject, headers, data in messages:
                await nats.publish(subject, data, headers=headers)
            await nats.flush()

    async def forget(self, objects: Sequence[str]) -> None:
        """Have the stream forget all up to the events of these objects, as old age does."""
        sandbox = self.stack.sandbox
        seed = sandbox.seed("publisher")
        async with nats_client.connect([sandbox.nats.url], name="test", seed=seed) as nats:
            subject = subjects.event(objects[-1], "create")
            async with asyncio.timeout(60):
                while (last := await nats.last(streams.EVENTS, subject)) is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            await nats.js_api(f"STREAM.PURGE.{streams.EVENTS}", {"seq": last.sequence + 1})


@pytest.fixture
async def world(stack: Stack) -> World:
    cluster = stack.sandbox.cluster
    alice, bob = await cluster.user("alice"), await cluster.user("bob")
    project = await cluster.project(owner=bob)
    await cluster.share(project, alice)
    return World(stack, alice, bob, project)


@pytest.fixture
async def program(world: World, command: Sequence[str]) -> AsyncIterator[Program]:
    """The program that follows the project, having caught up."""
    async with running(
        command, "events", world.project.uuid, environment=world.environment()
    ) as program:
        await program.says("caught up")
        yield program
