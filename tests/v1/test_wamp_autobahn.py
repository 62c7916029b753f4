# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""autobahn-python, as it comes, is served: join, topics, calls, revocation, drain, the end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.types import SubscribeOptions

from sandbox.cluster import Cluster
from sandbox.model.actors import Actor
from tests.support.clients import autobahn_session as autobahn
from tests.support.clients.v1 import Logs
from tests.support.worlds.proxy import own
from tests.support.worlds.site import Site


def base(site: Site) -> str:
    return site.websocket_url.removesuffix("/websocket")


async def test_it_joins_and_leaves(site: Site, alice: Actor) -> None:
    """The token is the ticket; the user is the authid."""
    async with autobahn.session(base(site), alice) as session:
        details = session.joined.result()
        assert (details.authid, details.authmethod) == (alice.uuid, "ticket")
        assert (await session.call("arvados.api.whoami")).kwresults["user_uuid"] == alice.uuid
        session.leave()
        async with asyncio.timeout(autobahn.WITHIN):
            assert (await session.left).reason == "wamp.close.goodbye_and_out"


async def test_a_dead_token_does_not_join(site: Site, cluster: Cluster, alice: Actor) -> None:
    """onLeave says why."""
    await cluster.logout(alice)
    async with autobahn.session(base(site), alice) as session:
        assert session.left.result().reason == "wamp.error.authentication_failed"


async def test_it_reads_the_log_of_a_running_container(
    site: Site, cluster: Cluster, alice: Actor
) -> None:
    """Every byte from the beginning, once, in order, and the end; then the last lines alone."""
    request = await cluster.container_request("job", owner=alice)
    container = await cluster.run(request)
    wanted = b""
    for number in range(3):
        line = f"before {number} héllo\n".encode()
        wanted += line
        await cluster.write_log(container, "stdout.txt", line)
    topic = f"arvados.log.{container.uuid}"
    async with autobahn.session(base(site), alice) as session:
        await session.subscribe(session.hear(topic), topic)

        def read() -> bytes:
            logs = Logs()
            for body in session.messages(topic, "log"):
                logs.take(body)
            return logs.content(container.uuid, "stdout.txt")

        await session.until(lambda: read() == wanted)
        wanted += b"live\n" + bytes(range(0xF0, 0x100)) + b"\n"
        await cluster.write_log(container, "stdout.txt", wanted[-22:])
        await session.until(lambda: read() == wanted)
        tail = f"{topic}?{quote(json.dumps({'tail': 1}))}"
        async with autobahn.session(base(site), alice) as other:
            await other.subscribe(other.hear(topic), tail)
            await other.until(lambda: bool(other.messages(topic, "caught_up")))
            assert sum(body["next"] - body["offset"] for body in other.messages(topic, "log")) == 17
        await cluster.finish(container)
        await session.until(lambda: bool(session.messages(topic, "end")))
        assert read() == wanted


async def test_it_hears_events_by_prefix_and_an_object(
    site: Site, cluster: Cluster, alice: Actor
) -> None:
    """Each event once, in order, under the topic that matched; the object as it is, and changed."""
    project = await cluster.project("p", owner=alice)
    made = await cluster.collection("0", owner=project, by=alice)
    events, state = f"arvados.event.{project.uuid}.collection", f"arvados.object.{made.uuid}"
    async with autobahn.session(base(site), alice) as session:
        prefix = SubscribeOptions(match="prefix", details=True)
        await session.subscribe(session.hear(events), events, prefix)
        retained = SubscribeOptions(get_retained=True, details=True)
        await session.subscribe(session.hear(state), state, retained)
        await session.until(lambda: bool(session.messages(state, "object")))
        assert session.told[-1][2].retained
        for name in "12345":
            await cluster.update(made, {"name": name}, alice)
        update = f"{events}.update"

        def updates() -> list[dict[str, Any]]:
            return [m["event"] for _, m, d in session.told if "event" in m and d.topic == update]

        await session.until(lambda: len(updates()) == 5)
        names = [event["properties"]["new_attributes"]["name"] for event in updates()]
        assert names == [*"12345"]
        await session.until(lambda: session.messages(state, "object")[-1]["record"]["name"] == "5")


async def test_it_asks_for_the_past(site: Site, cluster: Cluster, alice: Actor) -> None:
    """Calls: every byte of a log, every event of a project, and an object as it is."""
    project = await cluster.project("p", owner=alice)
    made = [(await cluster.collection(name, owner=project, by=alice)).uuid for name in "123"]
    container = await cluster.run(await cluster.container_request("job", owner=alice))
    pieces = ["one é\n", "two\n"]
    topic = f"arvados.log.{container.uuid}"
    async with autobahn.session(base(site), alice) as session:
        await session.subscribe(session.hear(topic), topic)
        for piece in pieces:
            await cluster.write_log(container, "stdout.txt", piece.encode())
        length = len("".join(pieces).encode())
        await session.until(
            lambda: any(m["next"] == length for m in session.messages(topic, "log"))
        )
        asked = {"uuid": container.uuid, "file": "stdout.txt"}
        found = (await session.call("arvados.api.logs", **asked)).kwresults
        assert "".join(message["text"] for message in found["messages"]) == "".join(pieces)
        assert found["end"]["Arvados-End"] == str(length)
        wanted = {"owners": [project.uuid], "kinds": ["collection"]}
        found = (await session.call("arvados.api.events", **wanted)).kwresults
        assert [message["json"]["object_uuid"] for message in found["messages"]] == made
        found = (await session.call(f"arvados.api.object.{made[0]}")).kwresults
        assert found["messages"][0]["json"]["name"] == "1"


async def test_a_dead_token_ends_its_session(site: Site, cluster: Cluster, alice: Actor) -> None:
    """onLeave says why; nothing is told any more."""
    async with autobahn.session(base(site), alice) as session:
        await cluster.logout(alice)
        async with asyncio.timeout(autobahn.WITHIN):
            assert (await session.left).reason == "wamp.close.killed"


async def test_it_gets_the_specifications_errors(site: Site, alice: Actor, bob: Actor) -> None:
    """As ApplicationErrors with their URIs; what is not there looks like what is forbidden."""
    async with autobahn.session(base(site), alice) as session:
        for topic in ("arvados.object.zzzzz-4zz18-000000000000000", f"arvados.object.{bob.uuid}"):
            with pytest.raises(ApplicationError) as refused:
                await session.subscribe(session.hear(topic), topic)
            assert refused.value.error in (
                "wamp.error.not_authorized",
                "wamp.error.invalid_argument",
            )
        with pytest.raises(ApplicationError) as unknown:
            await session.call("com.nobody")
        assert unknown.value.error == "wamp.error.no_such_procedure"


async def test_a_revoked_subscription_costs_no_other(
    site: Site, cluster: Cluster, alice: Actor, bob: Actor
) -> None:
    """The library breaks on an UNSUBSCRIBED that it did not ask for: it is told by an event."""
    project = await cluster.project("shared", owner=alice)
    made = await cluster.collection("in it", owner=project, by=alice)
    await cluster.share(project, bob, by=alice)
    shared, mine = f"arvados.object.{made.uuid}", f"arvados.event.{bob.uuid}.collection.create"
    async with autobahn.session(base(site), bob) as session:
        subscription = await session.subscribe(session.hear(shared), shared)
        await session.subscribe(session.hear(mine), mine)
        await cluster.unshare(project, bob, by=alice)
        await session.until(lambda: bool(session.messages(shared, "revoked")))
        own_ = await cluster.collection("own", owner=bob)
        await session.until(lambda: bool(session.messages(mine, "event")))
        assert session.messages(mine, "event")[0]["object_uuid"] == own_.uuid
        await subscription.unsubscribe()


async def test_the_lines_of_the_page_print_a_log(
    site: Site, cluster: Cluster, alice: Actor
) -> None:
    """docs/wamp.md's program in Python, with another address."""
    page = (Path(__file__).parents[2] / "docs" / "wamp.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    program = program.replace("wss://ws.example.com", base(site))
    container = await cluster.run(await cluster.container_request(owner=alice))
    await cluster.write_log(container, "stdout.txt", b"as the page says\n")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-u",
        "-c",
        program,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "ARVADOS_API_TOKEN": alice.token, "CONTAINER": container.uuid},
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            while b"as the page says" not in (line := await process.stdout.readline()):
                assert line, "it has ended"
    finally:
        process.kill()
        await process.wait()


async def test_a_drain_is_a_goodbye(site: Site, alice: Actor) -> None:
    """The program knows why, and may come back."""
    async with own(site) as (elsewhere, services), autobahn.session(elsewhere, alice) as session:
        await services.transport.connections.drain(0.1)
        async with asyncio.timeout(autobahn.WITHIN):
            assert (await session.left).reason == "wamp.close.system_shutdown"
