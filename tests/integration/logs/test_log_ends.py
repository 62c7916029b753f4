# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Logs that are read just when they end: what is not known yet is never taken for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from arvados_nats.arvados import client as arvados_client
from arvados_nats.arvados.client import Arvados
from arvados_nats.contract.log_chunks import ContainerEnd, FileEnd
from arvados_nats.errors import Refused, Unavailable
from arvados_nats.nats.client import Nats
from tests.support.background import background
from tests.support.log_readers import LossyHub, Peer, Received, chunks, join, publish
from tests.support.worlds.logs import Job, World
from wsproxy.logs import end as log_end
from wsproxy.logs.consumer import Selection
from wsproxy.logs.history import LogHistory
from wsproxy.logs.hub import LogHub
from wsproxy.logs.hubs import LogHubs
from wsproxy.logs.pieces import StreamPage
from wsproxy.logs.place import LogPlace
from wsproxy.logs.recent_bytes import RecentBytes
from wsproxy.logs.record import ContainerRecord
from wsproxy.logs.saved import Access, SavedLogs
from wsproxy.logs.stored import StoredLogs

FILE = "stdout.txt"
_LISTING, _STATE = "PROPFIND", "GET /arvados/v1/containers"


def _end(job: Job) -> ContainerEnd:
    files = {name: FileEnd(0, len(data), confirmed=True) for name, data in job.written.items()}
    return ContainerEnd(job.uuid, "Complete", 0, files)


def _before(received: Received, key: str) -> bytes:
    """What had come of the file when this was told first."""
    told = [name for name, _ in received.messages].index(key)
    logs = [body for name, body in received.messages[:told] if name == "log"]
    return "".join(body["text"] for body in logs).encode()


async def test_a_log_that_was_saved_a_moment_ago_is_waited_for(
    hubs: LogHubs, world: World, access: Access
) -> None:
    """Keep may still list what was saved before, and the stream has nothing yet: that is neither
    the log nor its end."""
    job = await world.job()
    job.write(FILE, b"first\n")
    await job.checkpoint()
    request = await world.cluster.reload(job.request_uuid)
    old = "SELECT manifest_text FROM collections WHERE uuid = $1"
    manifest = await world.backend.value(old, request["log_uuid"])
    job.write(FILE, b"last\n")
    await job.finish()
    request = await world.cluster.reload(job.request_uuid)
    stale = "UPDATE collections SET manifest_text = $2 WHERE uuid = $1"
    await world.backend.rows(stale, request["log_uuid"], manifest)
    peer = join(hubs.open(job.uuid), access=access)
    await asyncio.sleep(0.5)
    assert not peer.received.messages, "not even that all was sent"
    await publish(world.nats, *chunks(job.uuid, FILE, [b"first\nlast\n"]), _end(job))
    await peer.received.until(lambda: peer.received.done)
    assert _before(peer.received, "caught_up") == b"first\nlast\n"
    assert not peer.received.of("gap") and not peer.received.of("error")


async def test_the_rest_of_a_log_is_waited_for_that_has_come_in_part(
    hubs: LogHubs, world: World, access: Access
) -> None:
    """`caught_up` of a container that is complete means all of it: who does not follow stops."""
    job = await world.job()
    job.write(FILE, b"first\n")
    job.write(FILE, b"last\n")
    await job.finish()
    first, last = chunks(job.uuid, FILE, [b"first\n", b"last\n"])
    await publish(world.nats, first)
    peer = join(hubs.open(job.uuid), access=access)
    await peer.received.until_content({FILE: b"first\n"})
    await publish(world.nats, last, _end(job))
    await peer.received.until(lambda: peer.received.done)
    assert _before(peer.received, "caught_up") == b"first\nlast\n"


@pytest.mark.parametrize("route", [_LISTING, _STATE])
async def test_an_arvados_that_cannot_tell_is_asked_again(
    hubs: LogHubs, world: World, access: Access, route: str
) -> None:
    """Of a log that only it has: who reads is told that it takes time, not that all was sent."""
    job = await world.job()
    job.write(FILE, b"text\n")
    await job.finish()
    await job.ended_long_ago()
    with world.backend.faults.failing(route, 503):
        peer = join(hubs.open(job.uuid), access=access)
        await peer.received.until_told("error")
        calls = world.backend.faults.count(route)
        async with asyncio.timeout(60):
            while world.backend.faults.count(route) < calls + 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert [name for name, _ in peer.received.messages] == ["error"]
    await peer.received.until(lambda: peer.received.done)
    assert _before(peer.received, "caught_up") == b"text\n"
    assert peer.received.of("end")[-1]["confirmed"] is True


async def test_who_is_not_shown_a_log_hides_it_from_nobody(
    hubs: LogHubs, world: World, access: Access
) -> None:
    """Their end is theirs alone; others that come to the same hub have all of it."""
    job = await world.job()
    job.write(FILE, b"text\n")
    await job.finish()
    await job.ended_long_ago()
    hub = hubs.open(job.uuid)
    blind = join(hub, access=Access(access.token, "zzzzz-xvhdp-000000000000000"))
    await blind.received.until(lambda: blind.received.done)
    assert [error["code"] for error in blind.received.of("error")] == ["log_gone"]
    assert blind.received.of("end")[-1]["confirmed"] is False
    seeing = join(hub, access=access)
    await seeing.received.until(lambda: seeing.received.done)
    assert seeing.received.content(FILE) == b"text\n"
    assert seeing.received.of("end")[-1]["confirmed"] is True


async def test_bytes_that_one_is_not_shown_are_shown_to_others(
    hubs: LogHubs, world: World, access: Access
) -> None:
    """What left the stream is a gap to who may not read it in Arvados, at the same time."""
    job = await world.job()
    job.write(FILE, b"first\nlast\n")
    await publish(world.nats, *chunks(job.uuid, FILE, [b"last\n"], offset=6))
    hub = hubs.open(job.uuid)
    blind = join(hub, access=Access(access.token, "zzzzz-xvhdp-000000000000000"))
    await blind.received.until_told("caught_up")
    assert [(gap["from"], gap["to"]) for gap in blind.received.of("gap")] == [(0, 6)]
    assert blind.received.content(FILE) == b"last\n", "the stream has it"
    seeing = join(hub, access=access)
    await seeing.received.until_content({FILE: b"first\nlast\n"})
    assert not seeing.received.of("gap")


class LateReplica(StoredLogs):
    """Knows how far files are, and has not yet what they hold."""

    late = 2

    async def page(self, container: str, file: str, place: LogPlace) -> StreamPage:
        if self.late:
            self.late -= 1
            return StreamPage([], joined=False, more=False, last=0)
        return await super().page(container, file, place)


async def test_a_replica_that_is_late_makes_no_gap_of_the_last_words(
    nats: Nats, world: World, access: Access
) -> None:
    """The node is dead, and the end was heard before a replica of the stream had what it is of."""
    job = await world.job()
    job.write(FILE, b"last words\n")
    await publish(world.nats, *chunks(job.uuid, FILE, [b"last ", b"words\n"]), _end(job))
    await job.die()
    async with arvados_client.connect(world.api.url) as arvados:
        stored, saved = LateReplica(nats), SavedLogs(arvados)
        hub = LogHub(job.uuid, nats, stored, saved, LogHistory(stored, saved), RecentBytes())
        async with background(hub.run()):
            peer = join(hub, access=access)
            await peer.received.until(lambda: peer.received.done)
    assert peer.received.content(FILE) == b"last words\n"
    assert not peer.received.of("gap")


@pytest.fixture
async def arvados(world: World) -> AsyncIterator[Arvados]:
    async with arvados_client.connect(world.api.url) as opened:
        yield opened


async def test_what_was_told_before_a_change_does_not_count(
    world: World, arvados: Arvados, access: Access
) -> None:
    """Arvados is asked every 5 s at most, and at once when the container's record has changed."""
    job = await world.job()
    job.write(FILE, b"text\n")
    record = ContainerRecord(job.uuid, SavedLogs(arvados), dict)
    assert await record.end(access) is None
    await job.finish()
    await job.ended_long_ago()
    assert await record.end(access) is None
    record.changed()
    end = await record.end(access)
    assert end is not None
    assert end.files == {FILE: FileEnd(0, 5, confirmed=True)}


async def test_a_file_that_is_not_found_is_not_one_that_may_not_be_seen(
    world: World, arvados: Arvados, access: Access
) -> None:
    """Arvados says 404 to both; only the first is nothing."""
    job = await world.job()
    job.write(FILE, b"text\n")
    saved = SavedLogs(arvados)
    assert await saved.read(job.uuid, FILE, 0, 10, access) == b"text\n"
    assert await saved.read(job.uuid, "stderr.txt", 0, 10, access) == b""
    hidden = Access(access.token, "zzzzz-xvhdp-000000000000000")
    with pytest.raises(Refused):
        await saved.read(job.uuid, FILE, 0, 10, hidden)
    with (
        world.backend.faults.failing("GET /arvados/v1/container_requests/{uuid}/log", 404),
        pytest.raises(Unavailable),
    ):
        await saved.read(job.uuid, FILE, 0, 10, access)


Step = Literal["write", "heard", "missed", "come", "tail", "save", "unlisted", "untold", "mended"]
_STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.sampled_from(
        ["write", "heard", "missed", "come", "tail", "save", "unlisted", "untold", "mended"]
    ),
    max_size=10,
)


@dataclass
class Life:
    """One container: lines in its log, of which the stream has some; Arvados, which may fail."""

    world: World
    job: Job
    hub: LossyHub
    access: Access
    saved: bool = False
    failed: bool = False
    faults: ExitStack = field(default_factory=ExitStack)
    peers: list[tuple[Peer, Step, bool]] = field(default_factory=list)
    """How each came, and whether the log was saved then."""
    stored: int = 0

    @property
    def log(self) -> bytes:
        return bytes(self.job.written.get(FILE, b""))

    async def do(self, step: Step) -> None:
        """What does not go is left out."""
        match step:
            case "write" if not self.saved:
                self.job.write(FILE, b"line %d\n" % len(self.log))
            case "heard" | "missed":
                await self.do("write")
                await self.store(heard=step == "heard")
            case "come" | "tail":
                selection = Selection(tail=1 if step == "tail" else None)
                self.peers.append((join(self.hub, selection, self.access), step, self.saved))
                await asyncio.sleep(0.001)
            case "save" if not self.saved:
                await self.job.finish()
                self.saved = True
                self.told()
            case "unlisted" | "untold":
                self.failed = True
                route = _LISTING if step == "unlisted" else _STATE
                self.faults.enter_context(self.world.backend.faults.failing(route, 503))
            case "mended":
                self.faults.close()

    def told(self) -> None:
        """As by an event: the container's record has changed."""
        self.hub.record.changed()
        self.hub.check_now.set()

    async def store(self, *, heard: bool) -> None:
        """Let the stream have all that was written."""
        if new := self.log[self.stored :]:
            self.hub.deaf = not heard
            await publish(self.world.nats, *chunks(self.job.uuid, FILE, [new], offset=self.stored))
            self.stored += len(new)
            await asyncio.sleep(0.001)  # it comes to the hub, or not
            self.hub.deaf = False

    async def end(self, *, marker: bool) -> None:
        """The log is saved, and its end is in the stream, or its publishers are away for good."""
        for step in ("mended", "save", "come"):
            await self.do(step)
        if marker:
            await self.store(heard=True)
            await publish(self.world.nats, _end(self.job))
        else:
            await self.job.ended_long_ago()
        async with asyncio.timeout(60):
            while not all(peer.received.done for peer, _, _ in self.peers):
                if not marker:
                    self.told()
                await asyncio.sleep(0.05)

    def check(self, *, marker: bool) -> None:
        """Each has every byte and one end; all that there is comes before `caught_up`."""
        for peer, how, saved in self.peers:
            received = peer.received
            assert not received.of("gap")
            assert {error["code"] for error in received.of("error")} <= {"unavailable"}
            assert [end["confirmed"] for end in received.of("end") if "file" not in end] == [True]
            got = received.content(FILE)
            first = received.first.get((FILE, 0), len(self.log))
            assert got == (self.log if how == "come" else self.log[first:])
            assert bool(got) == bool(self.log) or not saved
            if saved and marker and how == "come" and not self.failed:
                assert _before(received, "caught_up") == self.log


# Told once that it runs, and not again when it had ended a moment later.
@example(steps=["come", "write", "save", "come"], marker=True)
# The listing failed, and when it was asked for again it had been asked a moment ago.
@example(steps=["write", "save", "unlisted", "come"], marker=False)
# Of a complete log one part is in the stream, and it is not followed.
@example(steps=["heard", "write", "save", "come"], marker=True)
@given(steps=_STEPS, marker=st.booleans())
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@pytest.mark.timeout(300)
async def test_whoever_comes_around_the_end_gets_all_of_it(
    nats: Nats,
    world: World,
    arvados: Arvados,
    access: Access,
    monkeypatch: pytest.MonkeyPatch,
    steps: list[Step],
    marker: bool,
) -> None:
    """Before or after the first chunk, the saved log, the end marker; while Arvados fails, what is
    live is lost, or others read at the same hub: no gap, no early end, no empty success."""
    monkeypatch.setattr(log_end, "KEEP_SECONDS", 60.0 if marker else 0.2)
    monkeypatch.setattr("wsproxy.logs.hub._QUIET_SECONDS", 0.0)
    job = await world.job()
    stored, saved = StoredLogs(nats), SavedLogs(arvados)
    hub = LossyHub(job.uuid, nats, stored, saved, LogHistory(stored, saved), RecentBytes())
    life = Life(world, job, hub, access)
    async with background(hub.run()):
        try:
            for step in steps:
                await life.do(step)
            await life.end(marker=marker)
        finally:
            life.faults.close()
            for peer, _, _ in life.peers:
                peer.reader.stop()
    life.check(marker=marker)
