# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""autobahn-js and nexus' Go client, as they come, through all that can befall a WAMP session."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from sandbox.servers import ports
from sandbox.stack import Service, Stack
from tests.clients import programs
from tests.clients.programs import Program, running
from tests.support.clients.v1 import Logs


@pytest.fixture(scope="module", params=["js", "go"])
def command(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Sequence[str]:
    try:
        return programs.wamp(request.param, tmp_path_factory.mktemp(f"wamp_{request.param}"))
    except programs.Missing as reason:
        pytest.skip(f"{request.param}: {reason}")


@pytest.fixture
async def proxy(stack: Stack) -> AsyncIterator[tuple[Service, str]]:
    """A replica that is this test's to stop, and where it listens."""
    port = next(ports.candidates())
    listen = f"127.0.0.1:{port}"
    replica = stack.add("wsproxy of WAMP", ["wsproxy"], ARVADOS_NATS_LISTEN=listen)
    del stack.services[replica.name]
    await replica.start()
    yield replica, f"ws://{listen}/wamp"
    await replica.stop()


def told(program: Program, on: int, key: str) -> list[dict[str, Any]]:
    """What was told of one topic under one name."""
    lines = map(json.loads, program.lines)
    return [line[key] for line in lines if line["on"] == on and key in line]


async def test_a_library_of_wamp(
    stack: Stack, proxy: tuple[Service, str], command: Sequence[str]
) -> None:
    """Joins, reads a running container's log from its beginning, hears events by prefix and an
    object, loses one, comes back from a drain where it was, and leaves when its token dies."""
    cluster = stack.sandbox.cluster
    alice, bob = await cluster.user("alice"), await cluster.user("bob")
    project, shared = await cluster.project(owner=alice), await cluster.project(owner=bob)
    lent = await cluster.collection(owner=shared, by=bob)
    await cluster.share(shared, alice, by=bob)
    container = await cluster.run(await cluster.container_request(owner=project, by=alice))
    log = "from the beginning é\n".encode()
    await cluster.write_log(container, "stdout.txt", log)
    topics = [
        [f"arvados.log.{container.uuid}", {}],
        [f"arvados.event.{project.uuid}.collection", {"match": "prefix"}],
        [f"arvados.object.{lent.uuid}", {"get_retained": True}],
        ["arvados.object.zzzzz-4zz18-000000000000000", {}],
    ]
    environment = {
        "ARVADOS_WAMP_URL": proxy[1],
        "ARVADOS_API_TOKEN": alice.token,
    }

    def read(program: Program) -> bytes:
        logs = Logs()
        for body in told(program, 0, "log"):
            logs.take(body)
        return logs.content(container.uuid, "stdout.txt")

    async with running(command, json.dumps(topics), environment=environment) as program:
        await program.says(f"whoami {alice.uuid}", within=60)
        await program.says("subscribed 2", within=60)
        await program.until(
            lambda: any("not_authorized" in line for line in program.said), "refused", within=90
        )
        if "js" in command[-1]:  # nexus' client drops what comes before its Subscribe has returned
            await program.until(lambda: read(program) == log, "the log", within=60)
            await cluster.write_log(container, "stdout.txt", b"live\n")
            await program.until(lambda: read(program) == log + b"live\n", "live", within=60)
            await program.until(lambda: bool(told(program, 2, "object")), "the object", within=60)
            assert [one["uuid"] for one in told(program, 2, "object")] == [lent.uuid]
            await cluster.finish(container)
            await program.says("unsubscribed 0", within=60)
            assert read(program) == log + b"live\n"
            assert told(program, 0, "end")[-1]["state"] == "Complete"
        made = [(await cluster.collection(owner=project, by=alice)).uuid for _ in range(3)]

        def heard() -> list[str]:
            """Of these; the end of the container makes others."""
            uuids = [str(event["object_uuid"]) for event in told(program, 1, "event")]
            return [uuid for uuid in uuids if uuid in made]

        await program.until(lambda: len(heard()) >= 3, "events", within=60)
        await cluster.unshare(shared, alice, by=bob)
        await program.until(lambda: bool(told(program, 2, "revoked")), "revoked", within=60)
        await program.says("unsubscribed 2", within=60)

        await proxy[0].stop(60)
        await program.says("left", within=60)
        made += [(await cluster.collection(owner=project, by=alice)).uuid for _ in range(3)]
        await proxy[0].start()
        await program.says("joined", times=2, within=120)
        await program.until(lambda: len(heard()) >= 6, "resumed", within=60)
        assert heard() == made
        await cluster.logout(alice)
        assert await program.ends(within=60) == 3
