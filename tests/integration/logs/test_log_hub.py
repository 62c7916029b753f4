# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Container logs from the real stream and the sandbox's log API to readers, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from arvados_nats.arvados import client as arvados_client
from arvados_nats.arvados.tokens import Token
from arvados_nats.contract import streams, subjects
from arvados_nats.contract.log_chunks import ContainerEnd, FileEnd
from arvados_nats.errors import Unavailable
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Message, Nats
from arvados_nats.service import keys
from arvados_nats.service.ops import Health
from publishers.container_logs import interest as log_interest
from publishers.container_logs.interest import Interest
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import Database
from tests.support.background import background
from tests.support.log_readers import LossyHub, chunks, join, publish
from tests.support.worlds import logs as log_world
from wsproxy.logs.consumer import Selection
from wsproxy.logs.history import LogHistory, Stretch
from wsproxy.logs.hubs import LogHubs
from wsproxy.logs.pieces import Piece
from wsproxy.logs.place import LogPlace
from wsproxy.logs.recent_bytes import RecentBytes
from wsproxy.logs.saved import Access, SavedLogs
from wsproxy.logs.stored import StoredLogs


def _end(container: str, **sizes: int) -> ContainerEnd:
    files = {f"{name}.txt": FileEnd(0, size, True) for name, size in sizes.items()}
    return ContainerEnd(container, "Complete", 0, files)


async def test_history_then_live_without_seam(
    hubs: LogHubs, world: log_world.World, access: Access
) -> None:
    """What was stored comes first, then `caught_up`, then what is stored from now on; no event is
    published here, so a mute one does not stop logs (docs/facts/arvados-demand.md W4)."""
    job = await world.job()
    await publish(world.nats, *chunks(job.uuid, "stdout.txt", [b"one\n", b"two\n"]))
    peer = join(hubs.open(job.uuid), access=access)
    await peer.received.until(lambda: peer.received.of("caught_up"))
    assert peer.received.content("stdout.txt") == b"one\ntwo\n"
    await publish(world.nats, *chunks(job.uuid, "stdout.txt", [b"three\n"], offset=8))
    await peer.received.until_content({"stdout.txt": b"one\ntwo\nthree\n"})
    await publish(world.nats, *chunks(job.uuid, "stderr.txt", [b"oh\n"]))
    await peer.received.until_content({"stdout.txt": b"one\ntwo\nthree\n", "stderr.txt": b"oh\n"})
    await publish(world.nats, _end(job.uuid, stdout=14, stderr=3))
    await peer.received.until(lambda: peer.received.done)
    assert [end.get("file") for end in peer.received.of("end")] == [
        "stderr.txt",
        "stdout.txt",
        None,
    ]
    assert peer.received.of("end")[-1] == {
        "id": "s",
        "container": job.uuid,
        "state": "Complete",
        "exit_code": 0,
        "confirmed": True,
    }
    assert not peer.received.of("gap") and not peer.received.of("error")


async def test_a_character_is_never_cut(
    hubs: LogHubs, world: log_world.World, access: Access
) -> None:
    """Whatever the chunks, live and from history, every frame but broken bytes is text."""
    job = await world.job()
    text = "aé€😀\n".encode() * 3
    peer = join(hubs.open(job.uuid), access=access)
    await peer.received.until(lambda: peer.received.of("caught_up"))
    await publish(world.nats, *chunks(job.uuid, "stdout.txt", [bytes([b]) for b in text]))
    await peer.received.until_content({"stdout.txt": text})
    late = join(hubs.open(job.uuid), access=access)
    await late.received.until_content({"stdout.txt": text})
    for received in (peer.received, late.received):
        assert all("text" in log for log in received.of("log"))


async def test_a_hub_that_begins_inside_a_character_waits_for_its_rest(
    hubs: LogHubs, world: log_world.World, access: Access
) -> None:
    """The last stored message may hold only the middle of a character."""
    job = await world.job()
    parts = [b"x\xf0", b"\x9f", b"\x98", b"\x80\n"]
    made = chunks(job.uuid, "stdout.txt", parts)
    await publish(world.nats, *made[:3])
    peer = join(hubs.open(job.uuid), access=access)
    await peer.received.until(lambda: peer.received.of("caught_up"))
    assert peer.received.content("stdout.txt") == b"x"
    await publish(world.nats, made[3])
    await peer.received.until_content({"stdout.txt": b"".join(parts)})
    assert all("text" in log for log in peer.received.of("log"))


async def test_bytes_that_are_no_text_travel_as_base64(
    hubs: LogHubs, world: log_world.World, access: Access
) -> None:
    """Broken UTF-8, NUL and an open character at the end arrive as they are."""
    job = await world.job()
    data = b"a\0b\n\xff\xfe\xed\xa0\x80\n" + b"end \xe2\x82"
    await publish(world.nats, *chunks(job.uuid, "stdout.txt", [data]), _end(job.uuid, stdout=16))
    assert len(data) == 16
    peer = join(hubs.open(job.uuid), access=access)
    await peer.received.until(lambda: peer.received.done)
    assert peer.received.content("stdout.txt") == data


async def test_only_the_chosen_files_from_the_chosen_places(
    hubs: LogHubs, world: log_world.World, access: Access
) -> None:
    """`files`, `from` and `tail` each say where to begin; the rest is not sent."""
    job = await world.job()
    lines = [b"line %d\n" % n for n in range(100)]
    for file in ("stdout.txt", "stderr.txt", "node.json"):
        await publish(world.nats, *chunks(job.uuid, file, lines))
    content = b"".join(lines)
    chosen = frozenset({"stdout.txt", "stderr.txt"})
    peer = join(
        hubs.open(job.uuid),
        Selection(files=chosen, places={"stdout.txt": (0, 300)}, tail=3),
        access,
    )
    await peer.received.until(lambda: peer.received.of("caught_up"))
    assert peer.received.content("stdout.txt") == content[300:]
    assert peer.received.content("stderr.txt") == b"line 97\nline 98\nline 99\n"
    assert peer.received.first["stdout.txt", 0] == 300
    assert set(peer.received.bytes_of) == {("stdout.txt", 0), ("stderr.txt", 0)}


async def test_last_lines_are_those_of_the_log_not_of_the_stream(
    hubs: LogHubs, world: log_world.World, access: Access
) -> None:
    """A file that the publisher has not read yet, or not all of: what comes of it later is not new.
    Arvados is asked once for all readers."""
    job = await world.job()
    lines = [b"line %d\n" % number for number in range(1000)]
    for name in ("stdout.txt", "stderr.txt"):
        job.write(name, b"".join(lines))
    await publish(world.nats, *chunks(job.uuid, "stderr.txt", lines[:5]))
    peers = [join(hubs.open(job.uuid), Selection(tail=2), access) for _ in range(3)]
    for peer in peers:
        await peer.received.until_told("caught_up")
    out = chunks(job.uuid, "stdout.txt", [*lines, b"new\n"])
    err = chunks(job.uuid, "stderr.txt", [*lines, b"new\n"])[5:]
    await publish(world.nats, *out, *err)
    last = b"line 998\nline 999\nnew\n"
    for peer in peers:
        await peer.received.until_content({"stdout.txt": last, "stderr.txt": last})
    assert world.backend.faults.count("PROPFIND") == 1


async def test_a_place_that_is_not_there_yet_is_waited_for(
    hubs: LogHubs, world: log_world.World, access: Access
) -> None:
    """A reader from offset 10 of a file of 4 bytes gets byte 10 first, when it comes."""
    job = await world.job()
    await publish(world.nats, *chunks(job.uuid, "stdout.txt", [b"abcd"]))
    peer = join(hubs.open(job.uuid), Selection(places={"stdout.txt": (0, 10)}), access)
    await peer.received.until(lambda: peer.received.of("caught_up"))
    await publish(world.nats, *chunks(job.uuid, "stdout.txt", [b"efgh", b"ijkl"], offset=4))
    await peer.received.until(lambda: peer.received.of("log"))
    assert peer.received.first["stdout.txt", 0] == 10
    assert peer.received.content("stdout.txt") == b"kl"


async def test_bytes_that_were_not_heard_come_without_more_of_their_file(
    nats: Nats, world: log_world.World, access: Access
) -> None:
    """Though another file of the container was heard after them."""
    job = await world.job()
    await publish(world.nats, *chunks(job.uuid, "stdout.txt", [b"one\n"]))
    async with arvados_client.connect(world.api.url) as arvados:
        stored, saved = StoredLogs(nats), SavedLogs(arvados)
        hub = LossyHub(job.uuid, nats, stored, saved, LogHistory(stored, saved), RecentBytes())
        async with background(hub.run()):
            peer = join(hub, access=access)
            await peer.received.until_told("caught_up")
            hub.deaf = True
            await publish(world.nats, *chunks(job.uuid, "stdout.txt", [b"two\n"], offset=4))
            async with asyncio.timeout(60):
                while not hub.lost:  # noqa: ASYNC110  (looked at from outside)
                    await asyncio.sleep(0.01)
            hub.deaf = False
            await publish(world.nats, *chunks(job.uuid, "stderr.txt", [b"oh\n"]))
            await peer.received.until_at("stderr.txt", 3)
            hub.check_now.set()
            await peer.received.until_at("stdout.txt", 8)
            peer.reader.stop()
    assert not peer.received.of("gap") and not peer.received.of("error")


async def test_a_slow_reader_goes_back_to_history_and_holds_nobody_up(
    hubs: LogHubs, world: log_world.World, access: Access
) -> None:
    """A stalled peer costs a bounded number of bytes, the other sees all meanwhile."""
    job = await world.job()
    slow, fast = (
        join(hubs.open(job.uuid), access=access),
        join(hubs.open(job.uuid), access=access),
    )
    await slow.received.until(lambda: slow.received.of("caught_up"))
    await fast.received.until(lambda: fast.received.of("caught_up"))
    made = chunks(job.uuid, "stdout.txt", [b"%08d\n" % n * 1000 for n in range(300)])
    slow.wire.stall()
    await publish(world.nats, *made)
    content = {"stdout.txt": b"".join(chunk.data for chunk in made)}
    await fast.received.until_content(content)
    assert slow.wire.most < 2 * 64 * 1024
    slow.wire.drain()
    await slow.received.until_content(content)
    await publish(world.nats, *chunks(job.uuid, "stdout.txt", [b"bye\n"], offset=made[-1].end))
    await slow.received.until(lambda: slow.received.content("stdout.txt").endswith(b"bye\n"))


async def test_many_that_never_read_cost_a_bounded_number_of_bytes(
    hubs: LogHubs, world: log_world.World, access: Access
) -> None:
    """300 stalled peers and 6 MB: none holds more than its share, and the one that reads has all
    of it meanwhile (docs/facts/arvados-demand.md G25)."""
    job = await world.job()
    reader = join(hubs.open(job.uuid), access=access)
    stalled = [join(hubs.open(job.uuid), access=access) for _ in range(300)]
    for peer in (reader, *stalled):
        await peer.received.until_told("caught_up")
    for peer in stalled:
        peer.wire.stall()
    made = chunks(job.uuid, "stdout.txt", [b"%08d\n" % n * 2000 for n in range(350)])
    await publish(world.nats, *made)
    await reader.received.until_content({"stdout.txt": b"".join(chunk.data for chunk in made)})
    assert max(peer.wire.most for peer in stalled) < 2 * 64 * 1024


async def test_bytes_after_the_end_change_nothing(
    hubs: LogHubs, world: log_world.World, access: Access
) -> None:
    """A chunk that comes after "complete", to who was there and to who comes later: the log is
    what the end says it is (docs/facts/arvados-demand.md G29)."""
    job = await world.job()
    (said,) = chunks(job.uuid, "stdout.txt", [b"all\n"])
    (late,) = chunks(job.uuid, "stdout.txt", [b"too late\n"], offset=4)
    (other,) = chunks(job.uuid, "stderr.txt", [b"too late\n"])
    early = join(hubs.open(job.uuid), access=access)
    await early.received.until(lambda: early.received.of("caught_up"))
    await publish(world.nats, said, _end(job.uuid, stdout=4), late, other)
    await early.received.until(lambda: early.received.done)
    fresh = LogHubs(world.nats, hubs._saved._arvados, Health())
    async with background(fresh.run()):
        await asyncio.sleep(0)
        after = join(fresh.open(job.uuid), access=access)
        await after.received.until(lambda: after.received.done)
    for peer in (early, after):
        assert peer.received.content("stdout.txt") == b"all\n"
        assert not peer.received.content("stderr.txt")
        assert [end.get("size") for end in peer.received.of("end")] == [4, None]


async def test_a_file_that_shrinks_begins_a_new_epoch(
    hubs: LogHubs, world: log_world.World, access: Access
) -> None:
    """Live readers see the end of the old epoch and the new one; late ones the file as it is."""
    job = await world.job()
    peer = join(hubs.open(job.uuid), access=access)
    await peer.received.until(lambda: peer.received.of("caught_up"))
    await publish(world.nats, *chunks(job.uuid, "stdout.txt", [b"old old\n", b"\xe2\x82"]))
    await publish(world.nats, *chunks(job.uuid, "stdout.txt", [b"new\n"], epoch=1))
    await peer.received.until(lambda: peer.received.content("stdout.txt", 1) == b"new\n")
    assert peer.received.content("stdout.txt", 0) == b"old old\n\xe2\x82"
    late = join(hubs.open(job.uuid), access=access)
    back = join(hubs.open(job.uuid), Selection(places={"stdout.txt": (0, 4)}), access)
    await late.received.until(lambda: late.received.content("stdout.txt", 1) == b"new\n")
    await back.received.until(lambda: back.received.content("stdout.txt", 1) == b"new\n")
    assert not late.received.content("stdout.txt", 0)
    assert back.received.content("stdout.txt", 0) == b"old\n\xe2\x82"
    assert not back.received.of("gap")


async def test_what_left_the_stream_is_read_from_arvados(
    hubs: LogHubs, world: log_world.World, access: Access
) -> None:
    """The beginning comes from the log API at the same offsets, the rest from the stream."""
    job = await world.job()
    content = b"".join(b"line %d\n" % n for n in range(20_000))
    job.write("stdout.txt", content)
    await publish(world.nats, *chunks(job.uuid, "stdout.txt", [content[150_000:]], offset=150_000))
    faults, route = world.backend.faults, "GET /arvados/v1/container_requests"
    before = faults.count(route)
    peers = [join(hubs.open(job.uuid), access=access) for _ in range(20)]
    for peer in peers:
        await peer.received.until_content({"stdout.txt": content})
        assert not peer.received.of("gap")
    assert 1 <= faults.count(route) - before <= 3


async def test_one_read_is_under_way_while_the_last_is_sent(
    nats: Nats, world: log_world.World, access: Access
) -> None:
    """A long log is read one portion ahead of its reader, not more, and each portion once."""
    job = await world.job()
    content = b"".join(b"%09d\n" % n for n in range(200_000))
    job.write("stdout.txt", content)
    faults, route = world.backend.faults, "GET /arvados/v1/container_requests/{uuid}/log"
    async with arvados_client.connect(world.api.url) as arvados:
        stored, saved = StoredLogs(nats), SavedLogs(arvados)
        history = LogHistory(stored, saved)
        place, read, reads = LogPlace(0, 0), b"", []
        while len(read) < len(content):
            wanted = Stretch(job.uuid, "stdout.txt", place, LogPlace(0, len(content)))
            piece = await history.read(wanted, access)
            assert isinstance(piece, Piece)
            read, place = read + piece.data, piece.next
            await asyncio.gather(*history._flights)
            reads.append(faults.count(route))
    assert read == content
    assert reads[0] == 2
    assert reads[-1] == -(-len(content) // (512 * 1024))


async def test_what_is_read_while_the_stream_is_made_anew_is_not_kept(
    nats: Nats, world: log_world.World, access: Access
) -> None:
    """Epochs are counted anew in another stream: the same place may have other bytes there."""
    job = await world.job()
    await publish(world.nats, *chunks(job.uuid, "stdout.txt", [b"before"]))
    wanted = Stretch(job.uuid, "stdout.txt", LogPlace(0, 0), LogPlace(0, 6))
    async with arvados_client.connect(world.api.url) as arvados:
        stored = StoredLogs(nats)
        history, read = LogHistory(stored, SavedLogs(arvados)), stored.page

        async def made_anew(*asked: Any) -> Any:
            page = await read(*asked)
            stored.page = read  # type: ignore[method-assign]
            stored.forget()
            history.forget()
            await world.nats.js_api(f"STREAM.DELETE.{streams.LOGS}")
            await streams.ensure(world.nats, streams.log_stream())
            await publish(world.nats, *chunks(job.uuid, "stdout.txt", [b"after!"]))
            return page

        stored.page = made_anew  # type: ignore[method-assign,assignment]
        with pytest.raises(Unavailable, match="made anew"):
            await history.read(wanted, access)
        piece = await history.read(wanted, access)
    assert isinstance(piece, Piece)
    assert piece.data == b"after!"


async def test_bytes_that_nobody_has_are_a_gap_with_exact_borders(
    hubs: LogHubs, world: log_world.World, access: Access
) -> None:
    """Lost with the node and never stored: told, then the reader goes on behind it."""
    job = await world.job()
    await publish(world.nats, *chunks(job.uuid, "stdout.txt", [b"start\n"]))
    peer = join(hubs.open(job.uuid), access=access)
    await peer.received.until(lambda: peer.received.of("caught_up"))
    await publish(world.nats, *chunks(job.uuid, "stdout.txt", [b"later\n"], offset=1000))
    await peer.received.until(lambda: peer.received.content("stdout.txt") == b"start\nlater\n")
    (gap,) = peer.received.of("gap")
    assert (gap["file"], gap["epoch"], gap["from"], gap["to"]) == ("stdout.txt", 0, 6, 1000)


async def test_a_container_that_ended_long_ago_comes_from_its_saved_log(
    hubs: LogHubs, world: log_world.World, access: Access
) -> None:
    """Nothing of it is in the stream: files and end come from Arvados, confirmed."""
    job = await world.job()
    content = {"stdout.txt": b"hello\n" * 50_000, "empty.txt": b"", "crunch-run.txt": b"done\n"}
    for file, data in content.items():
        job.write(file, data)
    await job.finish(exit_code=3)
    await job.ended_long_ago()
    peer = join(hubs.open(job.uuid), access=access)
    await peer.received.until(lambda: peer.received.done)
    for file, data in content.items():
        assert peer.received.content(file) == data
    ends = peer.received.of("end")
    assert all(end["confirmed"] for end in ends)
    assert {end["file"]: end["size"] for end in ends[:-1]} == {
        file: len(data) for file, data in content.items()
    }
    assert (ends[-1]["state"], ends[-1]["exit_code"]) == ("Complete", 3)


async def test_a_queued_container_is_waited_for_and_its_cancellation_told(
    hubs: LogHubs, world: log_world.World, access: Access
) -> None:
    """No log yet is no error; a container that never ran ends without files."""
    job = await world.job(start=False)
    hub = hubs.open(job.uuid)
    peer = join(hub, access=access)
    await peer.received.until(lambda: peer.received.of("caught_up"))
    await publish(world.nats, ContainerEnd(job.uuid, "Cancelled", None, {}))
    await peer.received.until(lambda: peer.received.done)
    (end,) = peer.received.of("end")
    assert (end["state"], end["exit_code"], end["confirmed"]) == ("Cancelled", None, True)


async def test_interest_is_announced_while_somebody_reads(
    hubs: LogHubs, nats: Nats, world: log_world.World, access: Access
) -> None:
    """The publisher hears at once that a container is watched."""
    job = await world.job()
    heard = asyncio.Event()

    async def hear(_: Message) -> None:
        heard.set()

    await world.nats.subscribe(subjects.log_interest(job.uuid), hear)
    await world.nats.flush()
    hubs.open(job.uuid)
    async with asyncio.timeout(60):
        await heard.wait()


async def test_a_publisher_that_has_just_begun_hears_at_once_what_is_watched(
    hubs: LogHubs, world: log_world.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks; else it would look seldom until the next announcement, long after a take-over."""
    monkeypatch.setattr("wsproxy.logs.hubs.INTEREST_SECONDS", 3600.0)
    job = await world.job()
    announced = asyncio.Event()

    async def hear(_: Message) -> None:
        announced.set()

    subscription = await world.nats.subscribe(subjects.log_interest(job.uuid), hear)
    await world.nats.flush()
    hubs.open(job.uuid)
    await asyncio.wait_for(announced.wait(), 60)
    await subscription.unsubscribe()
    begun, interest = asyncio.Event(), Interest()
    interest.on_begin(lambda uuid: begun.set() if uuid == job.uuid else None)
    async with background(log_interest.listen(world.nats, interest)):
        await asyncio.wait_for(begun.wait(), 60)


async def test_reads_are_shared_by_all_readers_of_a_container(
    hubs: LogHubs, nats: Nats, world: log_world.World, access: Access
) -> None:
    """Fifty readers that begin together ask the stream as often as one."""
    job = await world.job()
    content = b"x" * 79 + b"\n"
    await publish(world.nats, *chunks(job.uuid, "stdout.txt", [content * 800] * 20))
    asked: list[str] = []

    async def count(message: Message) -> None:
        asked.append(message.subject)

    await world.nats.subscribe(f"$JS.API.DIRECT.GET.{streams.LOGS}", count)
    await world.nats.flush()
    peers = [join(hubs.open(job.uuid), access=access) for _ in range(50)]
    for peer in peers:
        await peer.received.until_content({"stdout.txt": content * 800 * 20})
    await world.nats.flush()
    assert 3 < len(asked) < 40


async def test_a_saved_log_that_is_gone_is_told(
    hubs: LogHubs, world: log_world.World, access: Access
) -> None:
    """Gone is neither empty nor an error of the reader: the end comes, not confirmed
    (docs/facts/arvados-demand.md A38)."""
    job = await world.job()
    job.write("stdout.txt", b"hello\n")
    await job.finish()
    await job.ended_long_ago()
    request = await world.cluster.reload(job.request_uuid)
    await world.backend.rows("DELETE FROM collections WHERE uuid = $1", request["log_uuid"])
    world.logs.empty_folder = False
    peer = join(hubs.open(job.uuid), access=access)
    await peer.received.until(lambda: peer.received.done)
    assert [error["code"] for error in peer.received.of("error")] == ["log_gone"]
    assert peer.received.of("end")[-1]["confirmed"] is False


async def test_a_nats_server_that_was_away_loses_no_byte(
    fresh_nats: NatsServer, keys_folder: Path, database: Database
) -> None:
    """What was stored while the connection was away is fetched when it is back, unasked."""
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        world = await enter(log_world.open_world(fresh_nats, keys_folder, database))
        seed = keys.load(keys_folder, "wsproxy").text
        nats = await enter(nats_client.connect([fresh_nats.url], name="wsproxy", seed=seed))
        arvados = await enter(arvados_client.connect(world.api.url))
        hubs = LogHubs(nats, arvados, Health())
        await enter(background(hubs.run()))
        await asyncio.sleep(0)
        job = await world.job()
        made = chunks(job.uuid, "stdout.txt", [b"%d\n" % n for n in range(10)])
        await publish(world.nats, *made[:3])
        root = Access(Token(world.cluster.config.system_root_token))
        peer = join(hubs.open(job.uuid), access=root)
        await peer.received.until(lambda: peer.received.of("caught_up"))
        for part in (made[3:5], made[5:]):
            await fresh_nats.kill()
            await fresh_nats.start()
            await world.nats.until_connected()
            await publish(world.nats, *part)
            await peer.received.until_at("stdout.txt", part[-1].end)
        assert peer.received.content("stdout.txt") == b"".join(chunk.data for chunk in made)
