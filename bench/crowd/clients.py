# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A crowd of clients in a process of its own, told what to do over a pipe.

Not a thread: with the sandbox's API, the writer of rows and the clients in one interpreter each
would wait for the others, and be measured as delay.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
from array import array
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvloop

from bench.crowd.crowd_process import Address, Crowd, Heard

_AT_ONCE = 32
_LOOK_SECONDS = 0.1
_GLANCE_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Tally:
    """What came with counted frames; `last` is in time.monotonic()."""

    bytes: int
    last: float


class Far:
    """The near end of a process."""

    def __init__(self, pipe: Connection, pid: int) -> None:
        self._pipe = pipe
        self._lock = asyncio.Lock()
        self.pid = pid

    async def tell(self, verb: str, *arguments: Any) -> Any:
        """Have it done; what it answers."""
        async with self._lock:
            self._pipe.send((verb, arguments))
            return await asyncio.to_thread(self._pipe.recv)


class Clients(Far):
    """The near end. Clients are numbered from 0 in the order in which they were opened."""

    def __init__(self, pipe: Connection, pid: int) -> None:
        super().__init__(pipe, pid)
        self.count = 0

    async def trust(self, authority: Path) -> None:
        """Connect by TLS from now on, to whom this authority knows."""
        await self.tell("trust", str(authority))

    async def open(
        self,
        address: Address,
        paths: Sequence[str],
        at_once: int = _AT_ONCE,
        protocol: str = "",
    ) -> array[float]:
        """A WebSocket for each path, so many handshakes at once; how long each took.

        ConnectionError if the server refused any.
        """
        took: array[float] = await self.tell("open", address, list(paths), at_once, protocol)
        self.count += len(paths)
        if refused := sum(seconds < 0 for seconds in took):
            raise ConnectionError(f"{refused} of {len(paths)} handshakes were refused")
        return took

    async def login(
        self, address: Address, hellos: Sequence[bytes], at_once: int = _AT_ONCE
    ) -> array[float]:
        """A NATS client for each hello; seconds that each login took, negative if refused."""
        took: array[float] = await self.tell("login", address, list(hellos), at_once)
        self.count += len(hellos)
        return took

    async def again(self, address: Address, at_once: int) -> array[float]:
        """Connect those that were cut until all are in; the moments at which they were."""
        moments: array[float] = await self.tell("again", address, at_once)
        return moments

    async def send(self, texts: Sequence[bytes], numbers: Iterable[int] | None = None) -> None:
        """Send texts from these WebSockets, or from all."""
        chosen = range(self.count) if numbers is None else list(numbers)
        await self.tell("send", list(texts), chosen)

    async def pause(self, numbers: Iterable[int]) -> None:
        """These clients read no more."""
        await self.tell("pause", list(numbers))

    async def take(self, pattern: bytes = b"") -> Heard:
        """Frames that came since the last time."""
        heard: Heard = await self.tell("take", pattern)
        return heard

    async def tally(
        self, marker: bytes, frames: int = 0, within: float = 30.0
    ) -> tuple[int, Tally]:
        """Count frames by what each has once, until there are so many or the time is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        found, size, last = await self.tell("tally", marker)
        while found < frames and loop.time() < deadline:
            await asyncio.sleep(_GLANCE_SECONDS)
            more, bytes_, moment = await self.tell("tally", marker)
            found, size, last = found + more, size + bytes_, moment or last
        return found, Tally(size, last)

    async def closed(self) -> array[float]:
        """When each client's connection ended; 0 while it lives."""
        moments: array[float] = await self.tell("closed")
        return moments

    async def close(self) -> None:
        """Drop all connections; the process can open new ones."""
        await self.tell("close")
        self.count = 0

    async def until(self, frames: int, pattern: bytes = b"", within: float = 30.0) -> Heard:
        """Take frames until there are so many, or until the time is over.

        Clients hear nothing while frames are taken apart, so what is on its way comes in before.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        await asyncio.sleep(_LOOK_SECONDS)
        heard = await self.take(pattern)
        while len(heard.times) < frames and loop.time() < deadline:
            await asyncio.sleep(_LOOK_SECONDS)
            heard.add(await self.take(pattern))
        return heard


@asynccontextmanager
async def clients() -> AsyncIterator[Clients]:
    """A process that holds clients; they and it go with the block."""
    async with process(Crowd) as (pipe, pid):
        yield Clients(pipe, pid)


@asynccontextmanager
async def process(make: Callable[[], object]) -> AsyncIterator[tuple[Connection, int]]:
    """A process that does what it is told over a pipe by what is made in it; its id."""
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    started = context.Process(target=serve, args=(far, make), daemon=True)
    started.start()
    far.close()
    try:
        yield near, started.pid or 0
    finally:
        near.close()
        await asyncio.to_thread(started.join, 10)
        started.kill()


def serve(pipe: Connection, make: Callable[[], object]) -> None:
    """The far end: obey until the pipe is closed."""
    gc.disable()  # it would go through all that was heard, and be measured as delay
    uvloop.run(_serve(pipe, make))


async def _serve(pipe: Connection, make: Callable[[], object]) -> None:
    made = make()
    while True:
        try:
            verb, arguments = await asyncio.to_thread(pipe.recv)
        except EOFError:
            return
        answer = getattr(made, verb)(*arguments)
        pipe.send(await answer if asyncio.iscoroutine(answer) else answer)
