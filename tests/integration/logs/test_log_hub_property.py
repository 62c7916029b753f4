# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Any bytes, cut anyhow, lost live anyhow, read by readers that come and stall at any time, arrive
byte-identical: the promise of issue "Container logs, exact to the byte"."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from arvados_nats.arvados import client as arvados_client
from arvados_nats.contract import streams
from arvados_nats.contract.log_chunks import Chunk, ContainerEnd, FileEnd
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Nats
from arvados_nats.service import keys
from sandbox.servers.nats_server import NatsServer
from tests.support.log_readers import LossyHub, Peer, Received, join, publish
from wsproxy.logs.consumer import Selection
from wsproxy.logs.history import LogHistory
from wsproxy.logs.recent_bytes import RecentBytes
from wsproxy.logs.saved import SavedLogs
from wsproxy.logs.stored import StoredLogs

FILES = ("stdout.txt", "stderr.txt")


@dataclass
class Write:
    """Bytes for a file (a number stands for so many `x`), in chunks that end at `cuts`.

    `lost`: not heard live. `anew`: the file shrank before.
    """

    file: str
    runs: list[bytes | int]
    cuts: list[int]
    lost: bool
    anew: bool

    @property
    def pieces(self) -> list[bytes]:
        """The data of each chunk, at most 64 KiB."""
        data = b"".join(run if isinstance(run, bytes) else b"x" * run for run in self.runs)
        borders = [0, *sorted({cut for cut in self.cuts if cut < len(data)}), len(data)]
        parts = [data[a:b] for a, b in itertools.pairwise(borders)]
        return [part[i : i + 65_536] for part in parts for i in range(0, len(part), 65_536)]


@dataclass
class Come:
    """A reader, from an offset of stdout.txt or the beginning, or the last lines."""

    offset: int | None
    tail: int | None


@dataclass
class Stall:
    """Some reader takes nothing for a while, or goes on."""

    which: int


_bytes = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.text(min_size=1, max_size=20).map(str.encode),
    st.sampled_from([b"\n", "é€😀".encode(), b"\xf0\x9f", b"line\n", 70_000]),
)
_steps = st.lists(
    st.one_of(
        st.builds(
            Write,
            st.sampled_from(FILES),
            st.lists(_bytes, min_size=1, max_size=6),
            st.lists(st.integers(1, 120), max_size=8),
            st.booleans(),
            st.integers(0, 7).map(lambda n: n == 0),
        ),
        st.builds(Come, st.none() | st.integers(0, 60), st.none() | st.integers(0, 3)),
        st.builds(Stall, st.integers(0, 5)),
    ),
    min_size=1,
    max_size=14,
)


def _caught_up(received: Received) -> Callable[[], object]:
    return lambda: received.of("caught_up")


def _done(received: Received) -> Callable[[], object]:
    return lambda: received.done


@dataclass
class Run:
    """One container's life: what was written, and who reads."""

    nats: Nats
    hub: LossyHub
    written: dict[str, list[bytearray]] = field(
        default_factory=lambda: {file: [bytearray()] for file in FILES}
    )
    peers: list[tuple[Peer, Come, dict[str, int]]] = field(default_factory=list)

    async def do(self, step: Write | Come | Stall) -> None:
        match step:
            case Write():
                await self._write(step)
            case Come():
                at = {file: len(epochs) - 1 for file, epochs in self.written.items()}
                places = {} if step.offset is None else {FILES[0]: (at[FILES[0]], step.offset)}
                peer = join(self.hub, Selection(places=places, tail=step.tail))
                await peer.received.until(_caught_up(peer.received))
                self.peers.append((peer, step, at))
            case Stall() if self.peers:
                wire = self.peers[step.which % len(self.peers)][0].wire
                wire.drain() if wire.stalled else wire.stall()

    async def _write(self, step: Write) -> None:
        epochs = self.written[step.file]
        if step.anew:
            epochs.append(bytearray())
        self.hub.deaf = step.lost
        for piece in step.pieces:
            chunk = Chunk(self.hub.container, step.file, len(epochs) - 1, len(epochs[-1]), piece)
            await publish(self.nats, chunk)
            epochs[-1] += piece
        await self.nats.flush()
        await asyncio.sleep(0.001)  # the hub's own connection hears it, or not, in this time
        self.hub.deaf = False

    async def end(self) -> None:
        """The container ends, and every reader gets to the end."""
        files = {
            file: FileEnd(len(epochs) - 1, len(epochs[-1]), True)
            for file, epochs in self.written.items()
        }
        await publish(self.nats, ContainerEnd(self.hub.container, "Complete", 0, files))
        for peer, _, _ in self.peers:
            peer.wire.drain()
            await peer.received.until(_done(peer.received))

    def check(self) -> None:
        """Each reader has every byte of the last epoch from its place on, and no epoch halved."""
        for peer, come, at in self.peers:
            received = peer.received
            assert not received.of("error")
            never = come.offset is not None and come.offset > len(
                self.written[FILES[0]][at[FILES[0]]]
            )
            assert never or not received.of("gap")
            for file, epochs in self.written.items():
                for epoch in range(at[file] + 1, len(epochs)):
                    assert received.content(file, epoch) == bytes(epochs[epoch])
                self._check_first(peer, come, file, at[file])

    def _check_first(self, peer: Peer, come: Come, file: str, epoch: int) -> None:
        written, got = bytes(self.written[file][epoch]), peer.received.content(file, epoch)
        first = peer.received.first.get((file, epoch))
        assert written.endswith(got)
        if first is not None:
            assert written[first:] == got
        if come.offset is not None and file == FILES[0]:
            assert got == written[come.offset :]
        elif come.tail is None:
            assert got == written


@pytest.fixture
async def publisher(nats_server: NatsServer, keys_folder: Path) -> AsyncIterator[Nats]:
    """The publisher's connection."""
    seed = keys.load(keys_folder, "publisher").text
    async with nats_client.connect([nats_server.url], name="publisher", seed=seed) as nats:
        await streams.ensure(nats, streams.log_stream())
        yield nats


# The reader names an epoch that another process has heard of and this one has not.
@example(
    steps=[
        Write(FILES[0], [b"1"], [], lost=False, anew=True),
        Write(FILES[0], [b"2"], [], lost=True, anew=True),
        Write(FILES[1], [b"3"], [], lost=False, anew=True),
        Come(0, None),
    ]
)
@given(steps=_steps)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@pytest.mark.timeout(240)
async def test_every_reader_gets_every_byte(
    publisher: Nats, nats: Nats, steps: list[Write | Come | Stall]
) -> None:
    """No gap, no double, no byte changed, for each of them."""
    container = f"zzzzz-dz642-{secrets.token_hex(8)[:15]}"
    async with arvados_client.connect("http://127.0.0.1:9") as arvados:
        stored, saved = StoredLogs(nats), SavedLogs(arvados)
        hub = LossyHub(container, nats, stored, saved, LogHistory(stored, saved), RecentBytes())
        run = Run(publisher, hub)
        await run.do(Write(FILES[0], [b"begun\n"], [], lost=False, anew=False))
        task = asyncio.create_task(hub.run())
        try:
            for step in steps:
                await run.do(step)
            await run.end()
            run.check()
        finally:
            for peer, _, _ in run.peers:
                peer.reader.stop()
            task.cancel()
            await asyncio.wait([task])
