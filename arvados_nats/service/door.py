# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The door of an HTTP server: who comes in says what they want, in time, and takes the answer.

uvicorn waits for the head of a request for ever, and for a peer that does not read. Here a
connection has a time for each; while it has sent no whole request it holds one of few places
(`peers`). A door stands before uvicorn's own protocol and knows
nothing of it but that it is an `asyncio.Protocol`: the application, which runs in the context in
which the request came, tells its door what happens.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

from arvados_nats.peers import FewPlaces

HEAD_BYTES = 16 * 1024
"""Of a request's head."""
HEAD_SECONDS = 10.0
"""Time for the head of a request, also of the next one on the same connection."""
ANSWER_SECONDS = 60.0
"""Time in which a peer has its answer, unless that `stays`."""
WAITING = 1000
"""Connections of one server that have sent no whole request."""
ANSWERING = 2000
"""Those that have, and wait for their answer or are taking it."""

_door: ContextVar[Door | None] = ContextVar("door", default=None)


class Doors:
    """The doors of one server; `open` is what uvicorn takes for a class of protocols."""

    def __init__(self, waiting: int = WAITING, answering: int = ANSWERING) -> None:
        self._waiting = FewPlaces[Door](waiting)
        self._answering = FewPlaces[Door](answering)

    def open(self, **given: Any) -> Door:
        """A door for a new connection, before a protocol made of what uvicorn gives."""
        return Door(self, H11Protocol(**given))

    def waits(self, door: Door) -> None:
        """It has sent no whole request yet; somebody has to go where there are too many."""
        self._move(door, self._answering, self._waiting)

    def answers(self, door: Door) -> None:
        """It has; somebody has to go where too many are being answered."""
        self._move(door, self._waiting, self._answering)

    def leaves(self, door: Door) -> None:
        """It has gone, or is no HTTP any more."""
        self._waiting.leave(door)
        self._answering.leave(door)

    def _move(self, door: Door, before: FewPlaces[Door], now: FewPlaces[Door]) -> None:
        before.leave(door)
        loser = now.take(door, door.address)
        if loser is not None:
            loser.shut()

    def __len__(self) -> int:
        return len(self._waiting)


class Door(asyncio.Protocol):
    """One connection until it becomes something else than HTTP."""

    def __init__(self, doors: Doors, inner: asyncio.Protocol) -> None:
        self._doors = doors
        self._inner = inner
        self._transport: asyncio.Transport
        self.address = ""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if isinstance(peer, tuple) else ""
        self._wait()
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        token = _door.set(self)
        try:
            self._inner.data_received(data)
        finally:
            _door.reset(token)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.leave()
        self._inner.connection_lost(exc)

    def shut(self) -> None:
        """Drop the connection."""
        self.leave()
        self._transport.abort()

    def leave(self) -> None:
        """Whatever becomes of the connection is no business of the door any more."""
        self._doors.leaves(self)
        self._within(None)

    def answer(self) -> None:
        """A whole request has come."""
        self._doors.answers(self)
        self._within(ANSWER_SECONDS)

    def goes_on(self) -> None:
        """A part of the answer was taken: the next one has a time of its own."""
        self._within(ANSWER_SECONDS)

    def answered(self) -> None:
        """The next request may come."""
        if not self._transport.is_closing():
            self._wait()

    def _wait(self) -> None:
        self._doors.waits(self)
        self._within(HEAD_SECONDS)

    def _within(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = None if seconds is None else loop.call_later(seconds, self.shut)


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """While the application answers a request."""
    door = _door.get()
    if door is not None:
        door.answer()
    try:
        yield
    finally:
        if door is not None:
            door.answered()


def goes_on() -> None:
    """The peer takes a long answer, part by part."""
    door = _door.get()
    if door is not None:
        door.goes_on()


def stays() -> None:
    """This connection has a life of its own from now on: somebody else looks after it."""
    door = _door.get()
    if door is not None:
        door.leave()
