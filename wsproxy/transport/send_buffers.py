# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""All send buffers of the process: flushed once a tick, counted together, swept for stuck peers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

from wsproxy.transport.pacing import spread
from wsproxy.transport.send_buffer import NO_PROGRESS_SECONDS, SendBuffer, Tick, Wire


class SendBuffers:
    """All of them."""

    def __init__(self, budget: int = 256 * 1024 * 1024) -> None:
        self.budget = budget
        self.pending = 0
        """Bytes waiting for all peers, as of the last sweep."""
        self._open: set[SendBuffer] = set()
        self._tick = Tick()

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[SendBuffer]:
        return iter(tuple(self._open))

    def open(self, wire: Wire) -> SendBuffer:
        """A new send buffer over `wire`; `SendBuffer.gone` ends it."""
        send_buffer = SendBuffer(self._tick, wire, self._open.discard)
        self._open.add(send_buffer)
        return send_buffer

    def sweep(self, now: float) -> list[SendBuffer]:
        """Look at all peers at once and cut those that are stuck; those that were cut.

        `now` is the loop's time. Over the process' budget, the peers with most bytes waiting and no
        progress since the last sweep are cut as well.
        """
        sweep = _Sweep()
        sweep.look(self._open, now)
        return self._cut(sweep)

    async def watch(
        self,
        cut: Callable[[int], None] = lambda _: None,
        queued: Callable[[int], None] = lambda _: None,
        interval: float = 1.0,
    ) -> None:
        """Sweep until cancelled, each time spread over `interval` seconds.

        Tells how many peers were `cut`, and the bytes `queued`.
        """
        loop = asyncio.get_running_loop()
        while True:
            sweep = _Sweep()
            async for portion in spread(tuple(self._open), interval):
                sweep.look(
                    (send_buffer for send_buffer in portion if send_buffer in self._open),
                    loop.time(),
                )
            if stuck := self._cut(sweep):
                cut(len(stuck))
            queued(self.pending)

    def _cut(self, sweep: _Sweep) -> list[SendBuffer]:
        self.pending = sweep.pending
        cut = [
            send_buffer for send_buffer in sweep.chosen(self.budget) if send_buffer in self._open
        ]
        for send_buffer in cut:
            send_buffer.abort()
        return cut


class _Sweep:
    """What was seen in one look at every send buffer."""

    def __init__(self) -> None:
        self.pending = 0
        self._stuck: list[SendBuffer] = []
        self._idle: list[tuple[int, SendBuffer]] = []

    def look(self, send_buffers: Iterable[SendBuffer], now: float) -> None:
        for send_buffer in send_buffers:
            waiting, still_for = send_buffer.progress(now)
            self.pending += waiting
            if still_for > NO_PROGRESS_SECONDS and not send_buffer.may_live(still_for):
                self._stuck.append(send_buffer)
            elif waiting and still_for:
                self._idle.append((waiting, send_buffer))

    def chosen(self, budget: int) -> list[SendBuffer]:
        """Peers to cut: the stuck ones, and the fullest idle ones while there is too much."""
        excess = self.pending - budget
        chosen = self._stuck
        self._idle.sort(key=lambda item: item[0])
        while excess > 0 and self._idle:
            waiting, send_buffer = self._idle.pop()
            excess -= waiting
            chosen.append(send_buffer)
        return chosen
