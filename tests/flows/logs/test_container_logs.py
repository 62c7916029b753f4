# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Container logs through the publishers as an operator runs them, with events that wake them."""

from __future__ import annotations

import asyncio
import time

import httpx

from arvados_nats.contract import log_chunks, streams, subjects
from arvados_nats.contract.log_chunks import Chunk, ContainerEnd, FileEnd
from arvados_nats.nats.client import Nats
from sandbox.model.records import Record
from sandbox.sandbox import MANAGEMENT_TOKEN
from sandbox.stack import Service, Stack
from tests.support.waiting import until
from tests.support.worlds.logs import joined


async def running(stack: Stack, name: str) -> Record:
    """A container that has just begun to run."""
    cluster = stack.sandbox.cluster
    alice = await cluster.user("alice")
    return await cluster.run(await cluster.container_request(name, owner=alice))


async def messages(nats: Nats, container: Record) -> list[Chunk | ContainerEnd]:
    return [
        log_chunks.parse(m.subject, m.headers, m.data)
        async for m in nats.history(streams.LOGS, subjects.logs_of(container.uuid))
    ]


async def content(nats: Nats, container: Record) -> dict[str, bytes]:
    return joined([m for m in await messages(nats, container) if isinstance(m, Chunk)])


async def until_end(nats: Nats, container: Record) -> ContainerEnd:
    async def ended() -> bool:
        return await nats.last(streams.LOGS, subjects.log(container.uuid, "end")) is not None

    await until(ended, within=60)
    last = (await messages(nats, container))[-1]
    assert isinstance(last, ContainerEnd)
    return last


async def test_one_line_and_exit_before_the_next_look(stack: Stack, nats: Nats) -> None:
    """A container of 10 ms that nobody watched: its line is there and its end confirmed, before the
    look that would come 5 seconds later (docs/facts/arvados-demand.md A33, G1)."""
    cluster = stack.sandbox.cluster
    container = await running(stack, "short")
    await cluster.write_log(container, "stdout.txt", b"only line\n")
    await asyncio.sleep(0.01)
    await cluster.finish(container)
    started = time.monotonic()
    end = await until_end(nats, container)
    assert time.monotonic() - started < 5
    assert await content(nats, container) == {"stdout.txt": b"only line\n"}
    assert end.files == {"stdout.txt": FileEnd(0, 10, confirmed=True)}


async def test_line_of_a_watched_container_before_the_next_look(stack: Stack, nats: Nats) -> None:
    """With the settings as they are delivered."""
    cluster = stack.sandbox.cluster
    container = await running(stack, "watched")
    for number in range(5):
        await nats.publish(subjects.log_interest(container.uuid))
        line = b"line %d\n" % number
        await cluster.write_log(container, "stdout.txt", line)
        started = time.monotonic()

        async def there(line: bytes = line) -> bool:
            return (await content(nats, container)).get("stdout.txt", b"").endswith(line)

        await until(there)
        assert number == 0 or time.monotonic() - started < 5
    await cluster.finish(container)


async def figure(service: Service, name: str) -> float:
    """One metric of a service."""
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{service.ops_port}",
        headers={"Authorization": f"Bearer {MANAGEMENT_TOKEN}"},
    ) as client:
        text = (await client.get("/metrics")).text
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


async def _all_nonzero(services: tuple[Service, ...], name: str) -> bool:
    return all([await figure(service, name) for service in services])


async def test_publishers_are_killed_and_another_takes_over(stack: Stack, nats: Nats) -> None:
    """Two processes share the containers; one is killed in the middle, and nothing is missing."""
    cluster = stack.sandbox.cluster
    first = stack.services["publishers"]
    second = stack.add(
        "publishers-2",
        ["publishers", "container-logs"],
        ARVADOS_NATS_LOG_TOKEN=cluster.root.token,
    )
    await second.start()
    containers = [await running(stack, f"shared {number}") for number in range(8)]
    name = "arvados_nats_publishers_log_tailed_containers"
    try:
        await until(lambda: _all_nonzero((first, second), name), within=60)
        written = b""
        for turn in range(100):
            line = b"turn %d\n" % turn
            written += line
            for container in containers:
                cluster.logs.append(container.uuid, "stderr.txt", line)
                await nats.publish(subjects.log_interest(container.uuid))
            if turn == 50:
                await second.kill()
            await asyncio.sleep(0.02)
        for container in containers:
            await cluster.finish(container)
        for container in containers:
            end = await until_end(nats, container)
            assert await content(nats, container) == {"stderr.txt": written}
            assert end.files["stderr.txt"].confirmed
    finally:
        await second.kill()
        del stack.services["publishers-2"]
