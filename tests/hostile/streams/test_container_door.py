# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a container's own token gets into the streams, with every service at work."""

from __future__ import annotations

import pytest

from arvados_nats.contract import streams, subjects
from arvados_nats.contract.log_chunks import MAX_CHUNK_BYTES, MAX_MESSAGE, Chunk, ContainerEnd
from arvados_nats.errors import BadInput
from arvados_nats.nats.client import Nats
from sandbox import stack as services
from sandbox.model.records import Record
from sandbox.stack import Stack
from tests.support.clients.native import connected
from tests.support.waiting import until

MAX_PAYLOAD = 8 * 1024 * 1024


@pytest.mark.parametrize("size", [MAX_MESSAGE, 1024 * 1024, MAX_PAYLOAD - 200])
async def test_a_message_larger_than_a_chunk_is_refused_at_the_door(
    stack: Stack, nats: Nats, container: Record, size: int
) -> None:
    """Nothing is stored, and everybody goes on."""
    actor = await stack.sandbox.cluster.container_token(container)
    chunk = Chunk(container.uuid, "stdout.txt", 0, 0, bytes(MAX_CHUNK_BYTES), pushed=True)
    async with connected(stack, actor) as own:
        await (await own.nats.publish_stored(chunk.subject, chunk.data, chunk.headers))
        answer = await own.nats.publish_stored(chunk.subject, bytes(size), chunk.headers)
        await until(lambda: answer.done() or own.cuts, "the message or the connection is refused")
        assert own.cuts or isinstance(answer.exception(), BadInput)
    found = nats.history(streams.LOGS, subjects.logs_of(container.uuid))
    assert [one.data async for one in found] == [chunk.data]
    services.require(stack)


@pytest.mark.parametrize("tail", ["{other}.stdout_txt", "{other}.end", "a.b.c", "end"])
async def test_a_container_is_heard_under_its_own_name_alone(
    stack: Stack, nats: Nats, container: Record, tail: str
) -> None:
    """Whoever reads the last tokens of a subject would take them for another container's."""
    cluster = stack.sandbox.cluster
    bob = await cluster.user("bob")
    other = await cluster.run(await cluster.container_request("other", owner=bob))
    actor = await cluster.container_token(container)
    end = ContainerEnd(other.uuid, "Complete", 0, {})
    chunk = Chunk(other.uuid, "stdout.txt", 0, 0, b"forged")
    data = end.payload if tail.endswith("end") else chunk.data
    subject = f"{subjects.LOGS}.{container.uuid}.{tail.format(other=other.uuid)}"
    async with connected(stack, bob) as victim, connected(stack, actor) as own:
        await victim.listen(f"{subjects.LIVE}.{bob.uuid}.>")
        await own.nats.publish_stored(subject, data, {**chunk.headers, **end.headers})
        await own.nats.flush()
        assert await nats.last(streams.LOGS, f"{subjects.LOGS}.{container.uuid}.>") is None
        marker = Chunk(other.uuid, "marker.txt", 0, 0, b"behind")
        await (await nats.publish_stored(marker.subject, marker.data, marker.headers))
        await until(lambda: [m for m in victim.heard if m.data == b"behind"], "the marker is heard")
        assert not [m for m in victim.heard if ".log." in m.subject and m.data != b"behind"]
