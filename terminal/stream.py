# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A client of protocol v1: logs, object states and events of a cluster, live, over one WebSocket.

Usable by other programs; of this project it needs `messages`, `subscriptions` and the kernel's
errors, otherwise msgspec and websockets::

    async with stream.connect("wss://ws.example.com/v1/stream", lambda: token) as events:
        log = await events.log("zzzzz-dz642-0123456789abcde", files=["stderr.txt"])
        async for message in log:
            if isinstance(message, messages.Log):
                sys.stdout.buffer.write(message.data)

A lost connection costs nothing: the client comes back with full jitter, asks for the token anew and
resumes every subscription where it was. What can not be had again ends the iteration with Refused.
A subscription that nobody reads holds up the others of its connection: read it, or close it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl as tls
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
    NegotiationError,
)
from websockets.typing import Subprotocol

from arvados_nats.errors import BadInput, ConfigError, Refused, Unavailable
from terminal import messages
from terminal.messages import SUBPROTOCOL, Goodbye, Hello, Message, Ping, Revoked
from terminal.subscriptions import (
    EventsSubscription,
    LogSubscription,
    ObjectSubscription,
    Subscription,
)

_FIRST_DELAY = 0.5
_LONGEST_DELAY = 30.0
_SILENCE_FACTOR = 2.5
_HANDSHAKE_SECONDS = 10.0
_STEADY_SECONDS = 5.0
"""A connection that lasted longer was a good one: the next delay begins small again."""
_WAITING_MESSAGES = 64
_TOKEN_INVALID = 4501
_FINAL = range(4500, 5000)
"""Close codes after which the same attempt would fail again."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The connection stands, and its subscriptions are being resumed."""

    hello: Hello


@dataclass(frozen=True, slots=True)
class Waiting:
    """There is no connection; the next attempt comes after `delay` seconds."""

    delay: float
    reason: str


State = Connected | Waiting


@dataclass(frozen=True, slots=True)
class Options:
    """Seconds for which a connection is tried, None for ever: `patience` for the first one, `again`
    for one that was lost. `told` hears of each change of the connection."""

    ssl: tls.SSLContext | None = None
    patience: float | None = 10.0
    again: float | None = None
    told: Callable[[State], None] = lambda _: None


class TokenRefused(Refused):
    """The token is not valid."""


class Reading:
    """What one subscription brings, in order; iterate over it, or `get` with a time limit."""

    def __init__(self, stream: Stream, id: str, subscription: Subscription) -> None:
        self.id = id
        self.subscription = subscription
        self._stream = stream
        self._queue: asyncio.Queue[Message | None] = asyncio.Queue(_WAITING_MESSAGES)
        self._end: BaseException | None = None

    def __aiter__(self) -> Reading:
        return self

    async def __anext__(self) -> Message:
        message = None if self.done else await self._queue.get()
        if message is None:
            raise self._end or StopAsyncIteration
        return message

    async def get(self, within: float | None) -> Message | None:
        """The next message; None if none comes in time or the subscription has ended (`done`)."""
        with contextlib.suppress(TimeoutError, StopAsyncIteration):
            async with asyncio.timeout(within):
                return await anext(self)
        return None

    @property
    def done(self) -> bool:
        """Whether all has been read that there will be."""
        return self._end is not None and self._queue.empty()

    async def close(self) -> None:
        """Unsubscribe; what is still under way is dropped."""
        self.finish(None)
        while not self._queue.empty():
            self._queue.get_nowait()
        await self._stream.drop(self)

    async def put(self, message: Message) -> None:
        """Hand over to the one who reads, and wait while too much waits for him already."""
        if self._end is None:
            await self._queue.put(message)

    def finish(self, error: BaseException | None) -> None:
        """Nothing comes any more; whoever has read the rest gets the error, or a plain end."""
        if self._end is None:
            self._end = error or StopAsyncIteration()
            if self._queue.empty():
                self._queue.put_nowait(None)


class Stream:
    """One connection with its subscriptions; get one from `connect`."""

    def __init__(self, url: str, token: Callable[[], str], options: Options) -> None:
        self._url = url
        self._token = token
        self._options = options
        self._readings: dict[str, Reading] = {}
        self._count = 0
        self._socket: ClientConnection | None = None
        self._silence = _HANDSHAKE_SECONDS
        self._pause = (0.0, 0.0)
        self._greeted = self._stood = False
        self._failure: BaseException | None = None
        self._revoked = ""

    async def log(
        self, uuid: str, *, files: Sequence[str] | None = None, tail: int | None = None
    ) -> Reading:
        """Log files of a container, or of a container request and all its attempts."""
        return await self._add(LogSubscription(uuid, files, tail))

    async def object(self, uuid: str, *, etag: str | None = None) -> Reading:
        """The state of one object, and every later state."""
        return await self._add(ObjectSubscription(uuid, etag))

    async def events(self, *, cursor: str | None = None, **filters: Any) -> Reading:
        """Changes of objects; a connection carries one of these.

        `owners`, `objects`, `kinds` and `event_types` are lists; `begin` is "now" or "oldest".
        """
        subscriptions = (reading.subscription for reading in self._readings.values())
        if any(isinstance(one, EventsSubscription) for one in subscriptions):
            raise BadInput("a connection carries one subscription to events")
        return await self._add(EventsSubscription(filters, cursor))

    async def _add(self, subscription: Subscription) -> Reading:
        self._count += 1
        reading = Reading(self, str(self._count), subscription)
        self._readings[reading.id] = reading
        if self._failure is not None:
            reading.finish(self._failure)
        elif self._socket is not None:
            await self._subscribe(self._socket, reading)
        return reading

    async def drop(self, reading: Reading) -> None:
        """End a subscription."""
        if self._readings.pop(reading.id, None) and self._socket is not None:
            await self._say(self._socket, "unsubscribe", {"id": reading.id})

    def ended(self, running: asyncio.Task[None]) -> None:
        """`run` has ended: so does every reading, with the reason."""
        self._failure = None if running.cancelled() else running.exception()
        for reading in tuple(self._readings.values()):
            reading.finish(self._failure)

    async def run(self) -> None:
        """Stay connected until cancelled, or raise why there is no use in it."""
        failures, refused = 0, ""
        lost = time.monotonic()
        while True:
            opened, token, self._stood = time.monotonic(), self._token(), False
            if token == refused:
                raise TokenRefused(self._revoked)
            try:
                await self._connection(token)
                reason = "the connection was lost"
            except ConnectionClosed as error:
                refused = token if _code(error) == _TOKEN_INVALID else ""
                reason = _why_closed(error)
            except (OSError, InvalidHandshake, BadInput) as error:
                reason = _why_not_open(error, first=not self._greeted)
            now = time.monotonic()
            lost = now if self._stood else lost
            self._require_patience(now - lost, reason)
            failures = 0 if self._stood and now - opened > _STEADY_SECONDS else failures + 1
            delay = 0.0 if refused else self._delay(failures)
            self._options.told(Waiting(delay, reason))
            await asyncio.sleep(delay)

    def _require_patience(self, waited: float, reason: str) -> None:
        patience = self._options.again if self._greeted else self._options.patience
        if patience is not None and waited > patience:
            raise Unavailable(reason)

    def _delay(self, failures: int) -> float:
        """Full jitter, so that clients that lost one server do not come back all at once."""
        least, most = self._pause
        self._pause = (0.0, 0.0)
        if most:
            return random.uniform(least, most) / 1000
        return random.random() * min(_LONGEST_DELAY, _FIRST_DELAY * 2.0**failures)

    async def _connection(self, token: str) -> None:
        """One connection from its beginning to its end."""
        secure = {"ssl": self._options.ssl} if self._url.startswith("wss:") else {}
        async with open_socket(
            self._url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            open_timeout=_HANDSHAKE_SECONDS,
            close_timeout=1,
            ping_interval=None,  # the server sends pings, and silence is watched
            max_size=None,
            **secure,  # type: ignore[arg-type]
        ) as socket:
            if socket.subprotocol != SUBPROTOCOL:
                raise BadInput("the server does not speak protocol v1")
            self._silence = _HANDSHAKE_SECONDS
            try:
                await self._say(socket, "auth", {"token": token})
                while True:
                    await self._receive(socket)
            finally:
                self._socket = None

    async def _receive(self, socket: ClientConnection) -> None:
        try:
            async with asyncio.timeout(self._silence):
                frame = await socket.recv()
        except TimeoutError as error:
            socket.transport.abort()  # no closing handshake with a dead line
            raise OSError("the server fell silent") from error
        message = messages.decode(frame)
        match message:
            case Hello():
                await self._welcomed(socket, message)
            case Ping():
                await self._say(socket, "pong", {})
            case Goodbye():
                self._pause = message.reconnect_after_ms
            case Revoked(id=None):
                self._revoked = f"the token is not valid any more ({message.reason})"
            case None:
                pass
            case _:
                await self._dispatch(message)

    async def _welcomed(self, socket: ClientConnection, hello: Hello) -> None:
        self._silence = hello.ping_seconds * _SILENCE_FACTOR
        if self._socket is not None:
            return
        self._socket = socket
        self._greeted = self._stood = True
        self._options.told(Connected(hello))
        for reading in tuple(self._readings.values()):
            await self._subscribe(socket, reading)

    async def _dispatch(self, message: Message) -> None:
        id = getattr(message, "id", None) if not isinstance(message, messages.Event) else None
        if id is not None:
            reading = self._readings.get(id)
            if reading is not None:
                await self._hand_over(reading, message)
            return
        for reading in tuple(self._readings.values()):
            await self._hand_over(reading, message)

    async def _hand_over(self, reading: Reading, message: Message) -> None:
        subscription = reading.subscription
        fresh = subscription.take(message)
        if fresh is None:
            return
        await reading.put(fresh)
        over = _over(message)
        if subscription.ended or over:
            self._readings.pop(reading.id, None)
            reading.finish(over)

    async def _subscribe(self, socket: ClientConnection, reading: Reading) -> None:
        await self._say(socket, "subscribe", {"id": reading.id, **reading.subscription.request()})

    async def _say(self, socket: ClientConnection, key: str, body: Mapping[str, Any]) -> None:
        with contextlib.suppress(ConnectionClosed):  # whoever receives learns of it
            await socket.send(messages.encode(key, dict(body)))


def _over(message: Message) -> Exception | None:
    """Why a subscription can not go on after this message."""
    match message:
        case Revoked():
            return Refused(f"the permission to read this is gone ({message.reason})")
        case messages.Error(temporary=False):
            return Refused(message.message)
    return None


def _code(error: ConnectionClosed) -> int:
    return error.rcvd.code if error.rcvd else 1006


def _why_closed(error: ConnectionClosed) -> str:
    """Why the connection is gone; raises Refused if there is no use in coming back."""
    code = _code(error)
    reason = error.rcvd.reason if error.rcvd else ""
    if code in _FINAL and code != _TOKEN_INVALID:
        raise Refused(reason or f"the server closed with code {code}") from error
    return reason or "the connection was lost"


def _why_not_open(error: Exception, *, first: bool) -> str:
    """Why there is no connection; raises ConfigError if the address can not be right."""
    match error:
        case tls.SSLCertVerificationError():
            reason = f"the server's certificate is not trusted: {error.verify_message}"
        case InvalidStatus():
            status = error.response.status_code
            if status >= 500 or status == 429:
                return f"the server answers {status}"
            reason = f"the server answers {status} instead of opening a WebSocket"
        case InvalidURI() | NegotiationError() | BadInput():
            reason = str(error)
        case _:
            return _words(error)
    if first:
        raise ConfigError(reason) from error
    return reason


def _words(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text)


@asynccontextmanager
async def connect(
    url: str, token: Callable[[], str], options: Options | None = None
) -> AsyncIterator[Stream]:
    """A stream that stays connected as long as the block lasts.

    `token` is asked at every connect. What goes wrong is raised where a subscription is read:
    Refused for good, ConfigError for an address that can not be right, Unavailable if the first
    connection takes longer than `options.patience`.
    """
    stream = Stream(url, token, options or Options())
    running = asyncio.create_task(stream.run(), name="arvados stream")
    running.add_done_callback(stream.ended)
    try:
        yield stream
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
