# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Container logs arrive in the stream byte for byte, whatever the container and its node do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from arvados_nats.contract import streams, subjects
from arvados_nats.contract.log_chunks import FileEnd
from arvados_nats.service.ops import Health
from publishers.container_logs import metrics
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import Database
from tests.support.waiting import until
from tests.support.worlds.logs import World, open_world, until_calls


@pytest.fixture
async def world(
    nats_server: NatsServer, keys_folder: Path, database: Database
) -> AsyncIterator[World]:
    """A cluster without containers."""
    async with open_world(nats_server, keys_folder, database) as opened:
        yield opened


async def test_bytes_written_while_it_runs_and_at_its_end_arrive(world: World) -> None:
    """Every byte of every file is in the stream once, and the end is confirmed."""
    async with world.replica():
        job = await world.job()
        job.write("stderr.txt", b"one\ntwo\n")
        job.write("crunch-run.txt", b"2026-01-01T00:00:00.000000000Z begun\n")
        await world.until_stored(job, "stderr.txt")
        job.write("stderr.txt", b"three\n")
        await job.finish(exit_code=3)
        end = await world.until_end(job.uuid)
    assert await world.content(job.uuid) == job.written
    assert (end.state, end.exit_code) == ("Complete", 3)
    assert end.files == {
        name: FileEnd(0, len(data), confirmed=True) for name, data in job.written.items()
    }


async def test_container_that_prints_one_line_and_exits_at_once(world: World) -> None:
    """A container of 10 ms, which no poll ever saw alive, shows its line, with its end confirmed
    (docs/facts/arvados-demand.md A33, G1)."""
    async with world.replica():
        job = await world.job()
        job.write("stdout.txt", b"last\n")
        await asyncio.sleep(0.01)
        await job.finish()
        end = await world.until_end(job.uuid)
    assert await world.content(job.uuid) == {"stdout.txt": b"last\n"}
    assert end.files == {"stdout.txt": FileEnd(0, 5, confirmed=True)}


async def test_container_that_ran_while_no_publisher_did(world: World) -> None:
    """What ended within the window before the start is published like the rest."""
    job = await world.job()
    job.write("stdout.txt", b"nobody was there\n")
    await job.finish()
    async with world.replica():
        await world.until_end(job.uuid)
    assert await world.content(job.uuid) == job.written


async def test_container_without_output_ends(world: World) -> None:
    """Empty files are told with size 0, so that nobody waits for more (A35, G9)."""
    async with world.replica():
        job = await world.job()
        job.write("stdout.txt", b"")
        await job.finish()
        end = await world.until_end(job.uuid)
    assert await world.chunks(job.uuid) == []
    assert end.files == {"stdout.txt": FileEnd(0, 0, confirmed=True)}


async def test_container_cancelled_before_it_ran(world: World) -> None:
    """It ends at once, without a call to the log API."""
    async with world.replica():
        job = await world.job(start=False)
        await job.set(state="Cancelled")
        end = await world.until_end(job.uuid)
    assert (end.state, end.files) == ("Cancelled", {})
    assert world.backend.faults.count("PROPFIND") == 0


async def test_half_line_is_sent_when_no_line_end_follows(world: World) -> None:
    """A prompt or `--end--` without newline is seen while the container runs on."""
    async with world.replica():
        job = await world.job()
        job.write("stderr.txt", b"line\n--end--")
        await world.until_stored(job, "stderr.txt")
        job.write("stderr.txt", b" of line\n")
        await world.until_stored(job, "stderr.txt")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"a\0b\n", id="NUL"),
        pytest.param(b"\xff\xfe\n\xc3\n", id="invalid UTF-8"),
        pytest.param(b"x" * 130_000 + b"\n", id="130 kB line"),
        pytest.param("\N{GRINNING FACE}".encode() * 40_000, id="160 kB of emoji without line end"),
        pytest.param(b"\n" * 100_000, id="100,000 line ends"),
        pytest.param(b"progress\r" * 20_000, id="carriage returns"),
        pytest.param(bytes(range(256)) * 8192, id="2 MiB of every byte"),
    ],
)
async def test_hostile_bytes_arrive_as_they_are(world: World, data: bytes) -> None:
    """Nothing is decoded, stamped or reordered on the way (G14 to G16, A38)."""
    async with world.replica():
        job = await world.job()
        job.write("stdout.txt", data)
        await world.until_stored(job, "stdout.txt")
        await job.finish()
        await world.until_end(job.uuid)
    assert await world.content(job.uuid) == job.written


async def test_twenty_files_at_once(world: World) -> None:
    """Each file has its own subject and offsets, also when two names make the same subject."""
    names = [*(f"file-{n}.txt" for n in range(18)), "a.b.txt", "a_b.txt"]
    async with world.replica():
        job = await world.job()
        for turn in range(3):
            for name in names:
                job.write(name, f"{name} line {turn}\n".encode())
            for name in names:
                await world.until_stored(job, name)
        await job.finish()
        end = await world.until_end(job.uuid)
    assert await world.content(job.uuid) == job.written
    assert all(file.confirmed for file in end.files.values())
    assert len(end.files) == 20


async def test_unusual_names_of_files(world: World) -> None:
    """They are published under their own names; one that no header can hold is left out, and one
    that has the subject of the end marker."""
    names = ["a:b.txt", "100%.txt", "käse.txt", "two words.txt", "q?x=1#y.txt", "a&b<c>.txt"]
    async with world.replica():
        job = await world.job()
        for name in names:
            job.write(name, f"this is {name}\n".encode())
        for name in ("bad\nname.txt", "end"):
            world.logs.append(job.uuid, name, b"left out\n")
        for name in names:
            await world.until_stored(job, name)
        await job.finish()
        end = await world.until_end(job.uuid)
    assert await world.content(job.uuid) == job.written
    assert {name for name, file in end.files.items() if file.confirmed} == set(names)


async def test_log_folder_that_is_not_there_yet(world: World) -> None:
    """404 for the folder before anything is in it is no error (A35)."""
    world.logs.empty_folder = False
    health = Health()
    async with world.replica(health):
        job = await world.job(start=False)
        await world.cluster.lock(job.uuid, world.cluster.root)
        await job.set(state="Running")
        await until_calls(world, "PROPFIND", 3)
        world.logs.start(job.uuid)
        await job.set(gateway_address="gateway.example:4567")
        job.write("stdout.txt", b"at last\n")
        await world.until_stored(job, "stdout.txt")
    assert health.error is None


async def test_tunnel_that_is_down_for_a_while(world: World) -> None:
    """503 of the tunnel is waited out; what was written meanwhile arrives (docs/facts/arvados.md
    4)."""
    async with world.replica():
        job = await world.job()
        job.write("stdout.txt", b"before\n")
        await world.until_stored(job, "stdout.txt")
        world.logs.set_tunnel(job.uuid, up=False)
        job.write("stdout.txt", b"meanwhile\n")
        await until_calls(world, "PROPFIND", 3)
        world.logs.set_tunnel(job.uuid, up=True)
        await world.until_stored(job, "stdout.txt")
        world.logs.set_tunnel(job.uuid, up=False)
        job.write("stdout.txt", b"unseen\n")
        await job.finish()
        end = await world.until_end(job.uuid)
    assert await world.content(job.uuid) == job.written
    assert end.files["stdout.txt"].confirmed


async def test_api_server_away_in_the_middle(world: World) -> None:
    """Refused connections are waited out like everything else."""
    async with world.replica():
        job = await world.job()
        job.write("stdout.txt", b"before\n")
        await world.until_stored(job, "stdout.txt")
        await world.api.stop()
        job.write("stdout.txt", b"meanwhile\n")
        await job.finish()
        await asyncio.sleep(0.3)
        await world.api.start()
        await world.until_end(job.uuid)
    assert await world.content(job.uuid) == job.written


async def test_token_that_arvados_refuses_is_a_fault(world: World) -> None:
    """401 is never taken for an empty log: the container does not end, and health says why."""
    health = Health()
    job = await world.job()
    job.write("stdout.txt", b"secret\n")
    with world.backend.faults.failing("PROPFIND", 401):
        async with world.replica(health):
            await until_calls(world, "PROPFIND", 2)
            await job.finish()
            await until_calls(world, "PROPFIND", 3)
            assert "401" in (health.error or "")
            assert await world.messages(job.uuid) == []
    async with world.replica(health):
        await world.until_end(job.uuid)
    assert health.error is None
    assert await world.content(job.uuid) == job.written


async def test_file_that_shrinks_begins_a_new_epoch(world: World) -> None:
    """After it was cut to nothing its bytes count from 0 again, in the next epoch (G10)."""
    async with world.replica():
        job = await world.job()
        job.write("stdout.txt", b"old and long\n")
        await world.until_stored(job, "stdout.txt")
        job.shrink("stdout.txt")
        job.write("stdout.txt", b"new\n")
        await world.until_stored(job, "stdout.txt")
        await job.finish()
        end = await world.until_end(job.uuid)
    assert [(c.epoch, c.offset, c.data) for c in await world.chunks(job.uuid)] == [
        (0, 0, b"old and long\n"),
        (1, 0, b"new\n"),
    ]
    assert end.files == {"stdout.txt": FileEnd(1, 4, confirmed=True)}


async def test_file_that_shrinks_and_grows_past_its_old_size_unseen(world: World) -> None:
    """The bytes before the cursor are no longer the same: the file is read from its start (G10)."""
    async with world.replica():
        job = await world.job()
        job.write("stdout.txt", b"old\n")
        await world.until_stored(job, "stdout.txt")
        job.shrink("stdout.txt")
        job.write("stdout.txt", b"new and longer than before\n")
        await world.until_stored(job, "stdout.txt")
    assert [chunk.epoch for chunk in await world.chunks(job.uuid)] == [0, 1]


async def test_container_ends_between_probe_and_read(world: World) -> None:
    """The read that was meant for the gateway is answered by Keep, at the same offset (A36)."""
    route = "GET /arvados/v1/container_requests/{uuid}/log"
    async with world.replica():
        job = await world.job()
        job.write("stdout.txt", b"seen by the probe\n")
        with world.backend.faults.hanging(route):
            await until_calls(world, route, 1)
            job.write("stdout.txt", b"and the last words\n")
            await job.finish()
        end = await world.until_end(job.uuid)
    assert await world.content(job.uuid) == job.written
    assert end.files["stdout.txt"].confirmed
    assert [chunk.epoch for chunk in await world.chunks(job.uuid)] == [0] * len(
        await world.chunks(job.uuid)
    )


async def test_old_checkpoint_in_place_of_the_gateway_is_no_new_epoch(world: World) -> None:
    """A container ends between two looks: Keep's listing, shorter than what was streamed, is not
    a file that began anew."""
    world.scan_seconds = 3600  # the tailer does not hear of the end but by asking
    async with world.replica():
        job = await world.job()
        job.write("stdout.txt", b"saved\n")
        await job.checkpoint()
        job.write("stdout.txt", b"streamed only\n")
        async with world.replica():  # a new replica makes both look at once
            await world.until_stored(job, "stdout.txt")
            await job.die()
            end = await world.until_end(job.uuid)
    assert await world.content(job.uuid) == {"stdout.txt": b"saved\nstreamed only\n"}
    assert end.files == {"stdout.txt": FileEnd(0, 20, confirmed=False)}


async def test_node_dies_before_its_first_checkpoint(world: World) -> None:
    """What was streamed is kept, and the end is marked as not confirmed (A34)."""
    async with world.replica():
        job = await world.job()
        job.write("stdout.txt", b"streamed\n")
        job.write("stderr.txt", b"too\n")
        await world.until_stored(job, "stdout.txt")
        await world.until_stored(job, "stderr.txt")
        await job.die()
        end = await world.until_end(job.uuid)
    assert await world.content(job.uuid) == job.written
    assert end.state == "Cancelled"
    assert end.files == {"stdout.txt": FileEnd(0, 9, False), "stderr.txt": FileEnd(0, 4, False)}


async def test_publisher_started_after_the_node_has_died(world: World) -> None:
    """The end marker lists what is in the stream, though no log shows the files any more."""
    async with world.replica():
        job = await world.job()
        job.write("stdout.txt", b"streamed\n")
        await world.until_stored(job, "stdout.txt")
    await job.die()
    async with world.replica():
        end = await world.until_end(job.uuid)
    assert end.files == {"stdout.txt": FileEnd(0, 9, confirmed=False)}


async def test_checkpoint_that_is_ahead_of_the_stream_is_read(world: World) -> None:
    """Of a dead node's log at least what was saved is shown, at the same offsets."""
    job = await world.job()
    job.write("stdout.txt", b"saved\n")
    await job.checkpoint()
    job.write("stdout.txt", b"lost\n")
    await job.die()
    async with world.replica():
        end = await world.until_end(job.uuid)
    assert await world.content(job.uuid) == {"stdout.txt": b"saved\n"}
    assert end.files == {"stdout.txt": FileEnd(0, 6, confirmed=True)}


async def test_a_saved_log_that_is_not_found_is_no_empty_one(world: World) -> None:
    """404 for the folder of a log that was saved: no end marker says that nothing was logged."""
    job = await world.job()
    job.write("stdout.txt", b"saved\n")
    before = metrics.ENDS._value.get()

    async def given_up() -> bool:
        return bool(metrics.ENDS._value.get() > before)

    with world.backend.faults.failing("PROPFIND", 404):
        async with world.replica():
            await job.finish()
            await until(given_up)
            assert await world.messages(job.uuid) == []
    async with world.replica():
        end = await world.until_end(job.uuid)
    assert end.files == {"stdout.txt": FileEnd(0, 6, confirmed=True)}


async def test_retry_gives_each_attempt_its_own_log(world: World) -> None:
    """The old container ends, though its request shows the new one already (A37, W2)."""
    async with world.replica():
        first = await world.job(attempts=2)
        first.write("stdout.txt", b"first attempt, with more words\n")
        await first.checkpoint()
        await world.until_stored(first, "stdout.txt")
        await first.die()
        second = await world.next_attempt(first)
        second.write("stdout.txt", b"second\n")
        await world.until_stored(second, "stdout.txt")
        await second.finish()
        ends = [await world.until_end(job.uuid) for job in (first, second)]
    assert await world.content(first.uuid) == first.written
    assert await world.content(second.uuid) == second.written
    assert [end.files["stdout.txt"].confirmed for end in ends] == [True, True]


async def test_retried_container_whose_request_moved_on_unseen(world: World) -> None:
    """Its saved log is found through the row that the API server logged on the retry."""
    first = await world.job(attempts=2)
    first.write("stdout.txt", b"first attempt\n")
    await first.checkpoint()
    await first.die()
    async with world.replica():
        await world.until_end(first.uuid)
    assert await world.content(first.uuid) == first.written


async def test_second_run_adds_nothing(world: World) -> None:
    """A log that has its end marker is not read again."""
    job = await world.job()
    job.write("stdout.txt", b"once\n")
    async with world.replica():
        await job.finish()
        await world.until_end(job.uuid)
    before = await world.messages(job.uuid)
    calls = world.backend.faults.count("PROPFIND")
    async with world.replica():
        other = await world.job()
        await other.finish()
        await world.until_end(other.uuid)
    assert await world.messages(job.uuid) == before
    assert world.backend.faults.count("PROPFIND") - calls <= 3


async def test_rubbish_that_a_container_published_is_passed_over(world: World) -> None:
    """A container may publish anything as its own log: the file goes on in a new epoch."""
    job = await world.job()
    subject = subjects.log(job.uuid, "stdout.txt")
    await (await world.nats.publish_stored(subject, b"rubbish", {"Arvados-Offset": "x"}))
    async with world.replica():
        job.write("stdout.txt", b"true\n")
        await job.finish()
        end = await world.until_end(job.uuid)
    stored = [m async for m in world.nats.history(streams.LOGS, subject)]
    assert [m.data for m in stored] == [b"rubbish", b"true\n"]
    assert end.files["stdout.txt"].epoch == stored[0].sequence
    assert end.files["stdout.txt"].confirmed


async def test_saved_file_that_can_not_be_read(world: World) -> None:
    """A lost block in Keep: after some time the end is marked, with what was streamed, and not
    confirmed; files that can be read are whole."""
    async with world.replica():
        job = await world.job()
        job.write("stderr.txt", b"streamed\n")
        await world.until_stored(job, "stderr.txt")
        with world.backend.faults.failing("GET /arvados/v1/container_requests/{uuid}/log", 502):
            job.write("stdout.txt", b"unreadable\n")
            await job.finish()
            end = await world.until_end(job.uuid)
    assert await world.content(job.uuid) == {"stderr.txt": b"streamed\n"}
    assert end.files == {"stderr.txt": FileEnd(0, 9, True), "stdout.txt": FileEnd(0, 0, False)}


async def test_database_away_in_the_middle(world: World) -> None:
    """Bytes go on arriving, and the end is found when the database is back."""
    health = Health()
    async with world.replica(health):
        job = await world.job()
        job.write("stdout.txt", b"before\n")
        await world.until_stored(job, "stdout.txt")
        async with world.no_database():
            await until(lambda: _has_fault(health))
            job.write("stdout.txt", b"meanwhile\n")
            await world.until_stored(job, "stdout.txt")
        await job.finish()
        await world.until_end(job.uuid)
    assert health.error is None
    assert await world.content(job.uuid) == job.written


async def _has_fault(health: Health) -> bool:
    return health.error is not None
