# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`arvados-nats publishers push-log` on a compute node, with the container's own token."""

from __future__ import annotations

from pathlib import Path

import pytest

from arvados_nats.contract import log_chunks, streams, subjects
from arvados_nats.contract.log_chunks import Chunk, ContainerEnd
from arvados_nats.nats.client import Nats
from sandbox.model.records import Record
from sandbox.stack import Stack
from tests.support.clients.native import connected
from tests.support.clients.pushed import close, push_log, write
from tests.support.waiting import until
from tests.support.worlds.logs import joined


async def messages(nats: Nats, container_uuid: str) -> list[Chunk | ContainerEnd]:
    return [
        log_chunks.parse(m.subject, m.headers, m.data)
        async for m in nats.history(streams.LOGS, subjects.logs_of(container_uuid))
    ]


async def content(nats: Nats, container_uuid: str) -> bytes:
    """What the stream holds of stdout.txt, each byte once."""
    found = await messages(nats, container_uuid)
    return joined([m for m in found if isinstance(m, Chunk)]).get("stdout.txt", b"")


async def test_container_pushes_its_own_log(
    stack: Stack, nats: Nats, container: Record, tmp_path: Path
) -> None:
    """Lines are stored at once; when all are, the command ends well and keeps no bytes."""
    actor = await stack.sandbox.cluster.container_token(container)
    async with push_log(stack, actor, container.uuid, tmp_path / "spool") as process:
        await write(process, b"first\n")
        await until(lambda: _holds(nats, container, b"first\n"))
        await write(process, b"second\n")
        await until(lambda: _holds(nats, container, b"first\nsecond\n"))
        await write(process, b"--end--")
        assert await close(process) == 0
    assert await content(nats, container.uuid) == b"first\nsecond\n--end--"
    kept = (tmp_path / "spool" / container.uuid).rglob("*")
    assert sum(path.stat().st_size for path in kept if path.is_file()) == 0


async def test_a_second_run_goes_on_where_the_first_has_ended(
    stack: Stack, nats: Nats, container: Record, tmp_path: Path
) -> None:
    """As the help says, without a word about where that is: no byte is lost in silence (V7)."""
    actor = await stack.sandbox.cluster.container_token(container)
    for lines in (b"one\ntwo\n", b"three\n", b"four\n"):
        async with push_log(stack, actor, container.uuid, tmp_path / "spool") as process:
            await write(process, lines)
            assert await close(process) == 0
    assert await content(nats, container.uuid) == b"one\ntwo\nthree\nfour\n"


async def test_a_run_that_ends_says_nothing_of_its_connection(
    stack: Stack, container: Record, tmp_path: Path
) -> None:
    """It was the command itself that ended it (V16)."""
    actor = await stack.sandbox.cluster.container_token(container)
    async with push_log(stack, actor, container.uuid, tmp_path / "spool") as process:
        await write(process, b"one\n")
        assert await close(process) == 0
        assert process.stderr
        assert b"NATS connection changed" not in await process.stderr.read()


async def _holds(nats: Nats, container: Record, data: bytes) -> bool:
    return await content(nats, container.uuid) == data


async def test_killed_and_started_again(
    stack: Stack, nats: Nats, container: Record, tmp_path: Path
) -> None:
    """The next process goes on at the right offset; the log publisher confirms the end."""
    cluster = stack.sandbox.cluster
    actor = await cluster.container_token(container)
    whole = b"".join(b"line %d\n" % number for number in range(20_000))
    cluster.logs.append(container.uuid, "stdout.txt", whole)
    async with push_log(stack, actor, container.uuid, tmp_path) as process:
        await write(process, whole[:70_000])
        await until(lambda: _begun(nats, container))
        process.kill()
        await process.wait()
    async with push_log(stack, actor, container.uuid, tmp_path, "--offset", "0") as process:
        await write(process, whole)
        assert await close(process) == 0
    assert await content(nats, container.uuid) == whole
    await cluster.finish(container)
    end = await _end(nats, container)
    assert end.files["stdout.txt"].confirmed
    assert await content(nats, container.uuid) == whole


async def _begun(nats: Nats, container: Record) -> bool:
    return bool(await messages(nats, container.uuid))


async def _end(nats: Nats, container: Record) -> ContainerEnd:
    subject = subjects.log(container.uuid, "end")

    async def ended() -> bool:
        return await nats.last(streams.LOGS, subject) is not None

    await until(ended, within=60)
    last = (await messages(nats, container.uuid))[-1]
    assert isinstance(last, ContainerEnd)
    return last


async def test_container_can_not_write_the_log_of_another(
    stack: Stack, nats: Nats, container: Record, tmp_path: Path
) -> None:
    """The command fails and says why; the bytes stay on the node."""
    cluster = stack.sandbox.cluster
    user = await cluster.user("bob")
    other = await cluster.run(await cluster.container_request("other", owner=user))
    actor = await cluster.container_token(container)
    async with push_log(stack, actor, other.uuid, tmp_path) as process:
        await write(process, b"forged\n")
        assert await close(process) == 1
        assert process.stderr is not None
        said = (await process.stderr.read()).decode()
    assert "permissions violation" in said.lower()
    assert actor.token not in said
    assert await messages(nats, other.uuid) == []
    (left,) = tmp_path.rglob("*.part")  # noqa: ASYNC240  (a small local folder)
    assert left.read_bytes() == b"forged\n"


async def test_container_can_not_end_its_log(stack: Stack, nats: Nats, container: Record) -> None:
    """The end marker says what Arvados has saved; only the log publisher knows."""
    actor = await stack.sandbox.cluster.container_token(container)
    async with connected(stack, actor) as own:
        chunk = Chunk(container.uuid, "stdout.txt", 0, 0, b"allowed\n", pushed=True)
        await (await own.nats.publish_stored(chunk.subject, chunk.data, chunk.headers))
        end = ContainerEnd(container.uuid, "Complete", 0, {})
        await own.nats.publish_stored(end.subject, end.payload, end.headers)
        await own.nats.flush()
    assert await messages(nats, container.uuid) == [chunk]


@pytest.mark.parametrize("wrong", ["no token", "bare secret", "container", "file"])
async def test_bad_settings_are_named(stack: Stack, tmp_path: Path, wrong: str) -> None:
    """Exit code 2, and no guess."""
    root = stack.sandbox.cluster.root
    uuid = "zzzzz-dz642-000000000000001"
    actor = None if wrong in ("no token", "bare secret") else root
    options = ("-f", "a\nb") if wrong == "file" else ()
    if wrong == "container":
        uuid = root.uuid
    async with push_log(stack, actor, uuid, tmp_path, *options) as process:
        assert await close(process) == 2
