# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""When bytes leave, when a reader is behind, when a peer is stuck."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from wsproxy.transport.frames import Message
from wsproxy.transport.send_buffer import (
    HIGH_WATER,
    NO_PROGRESS_SECONDS,
    STUCK_SECONDS,
    SendBuffer,
)
from wsproxy.transport.send_buffers import SendBuffers


class Pipe:
    """A wire whose other end takes what it is told to take."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.unsent = 0
        self.goodbyes: list[tuple[int, str]] = []
        self.aborted = False

    def encode(self, message: Message) -> bytes:
        return message.text

    def write(self, pieces: Sequence[bytes]) -> None:
        self.writes.append(b"".join(pieces))
        self.unsent += len(self.writes[-1])

    def take(self, count: int) -> None:
        self.unsent -= count

    def close(self, code: int, reason: str) -> None:
        self.goodbyes.append((code, reason))

    def abort(self) -> None:
        self.aborted = True


async def next_tick() -> None:
    await asyncio.sleep(0)


async def test_first_message_leaves_at_once_and_the_rest_of_the_tick_together() -> None:
    """Two writes for any number of messages."""
    wire = Pipe()
    send_buffer = SendBuffers().open(wire)
    for letter in (b"a", b"b", b"c", b"d"):
        send_buffer.write(Message(letter))
    assert wire.writes == [b"a"]
    assert send_buffer.pending == 4
    await next_tick()
    assert wire.writes == [b"a", b"bcd"]
    send_buffer.write(Message(b"e"))
    assert wire.writes == [b"a", b"bcd", b"e"]


async def test_one_flush_serves_all_send_buffers_of_a_tick() -> None:
    """Each gets its own bytes."""
    send_buffers = SendBuffers()
    wires = [Pipe() for _ in range(3)]
    for number, wire in enumerate(wires):
        send_buffer = send_buffers.open(wire)
        send_buffer.write(Message(b"x"))
        send_buffer.write(Message(b"%d" % number))
    await next_tick()
    assert [wire.writes for wire in wires] == [[b"x", b"0"], [b"x", b"1"], [b"x", b"2"]]


async def test_a_paused_wire_is_behind_until_it_resumes() -> None:
    """`writable` returns at the resume, and at once when nothing is in the way."""
    send_buffer = SendBuffers().open(Pipe())
    await asyncio.wait_for(send_buffer.writable(), 1)
    send_buffer.paused()
    assert send_buffer.lagging
    waiting = asyncio.create_task(send_buffer.writable())
    await next_tick()
    assert not waiting.done()
    send_buffer.resumed()
    await asyncio.wait_for(waiting, 1)
    assert not send_buffer.lagging


async def test_too_much_in_one_tick_is_behind_until_the_flush() -> None:
    """Nobody gathers more than the high-water mark before the transport sees it."""
    send_buffer = SendBuffers().open(Pipe())
    send_buffer.write(Message(b"first"))
    send_buffer.write(Message(b"x" * (HIGH_WATER + 1)))
    assert send_buffer.lagging
    await asyncio.wait_for(send_buffer.writable(), 1)
    assert not send_buffer.lagging


async def test_discard_drops_what_the_transport_has_not_got() -> None:
    """The first message of the tick is gone already."""
    wire = Pipe()
    send_buffer = SendBuffers().open(wire)
    for letter in (b"a", b"b", b"c"):
        send_buffer.write(Message(letter))
    assert send_buffer.discard() == 2
    await next_tick()
    assert wire.writes == [b"a"]


async def test_close_sends_what_was_written_before_and_nothing_after() -> None:
    """And wakes whoever waits for room."""
    wire = Pipe()
    send_buffer = SendBuffers().open(wire)
    send_buffer.paused()
    waiting = asyncio.create_task(send_buffer.writable())
    await next_tick()
    send_buffer.write(Message(b"a"))
    send_buffer.write(Message(b"b"))
    send_buffer.close(4000, "bye")
    send_buffer.write(Message(b"c"))
    await asyncio.wait_for(waiting, 1)
    await next_tick()
    assert wire.writes == [b"a", b"b"]
    assert wire.goodbyes == [(4000, "bye")]
    send_buffer.close(4001)
    assert len(wire.goodbyes) == 1


async def test_only_the_peer_that_takes_nothing_is_cut() -> None:
    """A slow one that takes a byte now and then is not; an idle one neither."""
    send_buffers = SendBuffers()
    stuck, slow, idle = Pipe(), Pipe(), Pipe()
    for wire in (stuck, slow):
        send_buffers.open(wire).write(Message(b"x" * 1000))
    send_buffers.open(idle)
    now = 1000.0
    assert send_buffers.sweep(now) == []
    for _ in range(10):
        now += NO_PROGRESS_SECONDS / 8
        slow.take(1)
        send_buffers.sweep(now)
    assert (stuck.aborted, slow.aborted, idle.aborted) == (True, False, False)
    assert len(send_buffers) == 2


async def test_a_ping_in_the_buffer_is_no_progress() -> None:
    """It is written past the send buffer, and makes more wait, not less."""
    send_buffers = SendBuffers()
    wire = Pipe()
    send_buffers.open(wire).write(Message(b"x" * 1000))
    now = 1000.0
    for _ in range(10):
        send_buffers.sweep(now)
        now += NO_PROGRESS_SECONDS / 8
        wire.take(-2)
    assert wire.aborted


async def test_over_budget_the_fullest_without_progress_go_first() -> None:
    """Until the rest fits."""
    send_buffers = SendBuffers(budget=1500)
    big, small, moving = Pipe(), Pipe(), Pipe()
    for wire, size in ((big, 1000), (small, 500), (moving, 2000)):
        send_buffers.open(wire).write(Message(b"x" * size))
    send_buffers.sweep(1.0)
    moving.take(1200)
    send_buffers.sweep(2.0)
    assert (big.aborted, small.aborted, moving.aborted) == (True, False, False)
    assert send_buffers.pending == 2300


@pytest.mark.parametrize("times", [1, 3])
async def test_gone_frees_everything_and_may_be_said_again(times: int) -> None:
    """A lost connection is forgotten."""
    send_buffers = SendBuffers()
    wire = Pipe()
    send_buffer = send_buffers.open(wire)
    for _ in range(times):
        send_buffer.gone()
    send_buffer.write(Message(b"a"))
    assert wire.writes == []
    assert len(send_buffers) == 0


class Leaving(Pipe):
    """A wire whose peer takes nothing, and goes away in the turn after it was looked at again."""

    def __init__(self) -> None:
        super().__init__()
        self.send_buffer: SendBuffer | None = None
        self.looks = 0

    @property
    def unsent(self) -> int:
        self.looks += 1
        if self.send_buffer and self.looks == 2:
            asyncio.get_running_loop().call_soon(self.send_buffer.gone)
        return 1000

    @unsent.setter
    def unsent(self, _: int) -> None:
        pass


async def test_who_leaves_during_a_sweep_is_not_cut() -> None:
    """A sweep takes a second: of two peers over the budget, the one looked at first is gone by
    then, and the other is cut."""
    send_buffers = SendBuffers(budget=0)
    wires = [Leaving(), Leaving()]
    for wire in wires:
        wire.send_buffer = send_buffers.open(wire)
    cut, seen = list[int](), asyncio.Event()

    def count(number: int) -> None:
        cut.append(number)
        seen.set()

    watching = asyncio.create_task(send_buffers.watch(count, interval=0.1))
    await asyncio.wait_for(seen.wait(), 60)
    watching.cancel()
    assert cut == [1]
    assert sorted(wire.aborted for wire in wires) == [False, True]


class Answering(Pipe):
    """Takes nothing; its kernel acknowledges probes, as a proxy's does for a slow reader."""

    silent = 0.0

    def silent_for(self) -> float:
        return self.silent


async def test_a_reader_behind_a_proxy_has_time_while_its_kernel_answers() -> None:
    """A proxy takes megabytes at once, and then nothing for minutes (RT11); who is gone is cut as
    before, and nobody stays for ever."""
    send_buffers = SendBuffers()
    slow, gone = Answering(), Answering()
    for wire in (slow, gone):
        send_buffers.open(wire).write(Message(b"x" * 1000))
    now = began = 1000.0
    gone.silent = 2 * NO_PROGRESS_SECONDS
    while now - began < STUCK_SECONDS - NO_PROGRESS_SECONDS:
        send_buffers.sweep(now)
        now += NO_PROGRESS_SECONDS / 2
    assert (slow.aborted, gone.aborted) == (False, True)
    send_buffers.sweep(began + STUCK_SECONDS + 1)
    assert slow.aborted


async def test_a_ping_behind_what_a_slow_line_carries_has_time() -> None:
    """All that was written is in a proxy; the answer to a ping comes when it was read."""
    send_buffers = SendBuffers()
    wire = Answering()
    send_buffer = send_buffers.open(wire)
    assert send_buffer.owes_an_answer(0.0, 1000.0)
    send_buffer.paused()
    send_buffers.sweep(1000.0)
    send_buffer.resumed()
    assert not send_buffer.owes_an_answer(999.0, 1100.0)
    assert send_buffer.owes_an_answer(1001.0, 1100.0)
    assert send_buffer.owes_an_answer(999.0, 1001.0 + STUCK_SECONDS)
