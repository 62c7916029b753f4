# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A client of protocol v1: logs, object states and events of a cluster, live, over one WebSocket.

A lost connection costs nothing: the client comes back with full jitter, asks for the token anew and
resumes every subscription where it was. What cannot be had again ends the iteration with Refused.
A subscription that nobody reads holds up the others of its connection: read it, or close it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl as tls
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from arvados_nats.client import errors as line_errors
from arvados_nats.client.backoff import Backoff
from arvados_nats.client.subscription_handle import SubscriptionHandle
from arvados_nats.client.subscriptions import (
    EventsSubscription,
    LogSubscription,
    ObjectSubscription,
    Subscription,
)
from arvados_nats.errors import BadInput, Refused, said
from arvados_nats.protocol_v1 import messages as messages_v1
from arvados_nats.protocol_v1 import requests as requests_v1
from arvados_nats.protocol_v1.messages import (
    SUBPROTOCOL,
    Error,
    Goodbye,
    Hello,
    Ping,
    Revoked,
    ServerMessage,
    Subscribed,
)
from arvados_nats.protocol_v1.requests import (
    Auth,
    ClientMessage,
    EventsTarget,
    Pong,
    Subscribe,
    Unsubscribe,
)

_SILENCE_FACTOR = 2.5
_HANDSHAKE_SECONDS = 10.0
_AGAIN_SECONDS = 2.0
"""After a subscription that could not be judged now, it is asked for again."""


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


class Stream:
    """One connection with its subscriptions; get one from `connect`."""

    def __init__(
        self,
        url: str,
        token: Callable[[], str],
        backoff: Backoff,
        ssl: tls.SSLContext | None,
        on_state: Callable[[State], None] | None,
    ) -> None:
        self._url = url
        self._token = token
        self._backoff = backoff
        self._ssl = ssl
        self._on_state = on_state
        self._handles: dict[str, SubscriptionHandle] = {}
        self._timers: set[asyncio.Task[None]] = set()
        self._count = 0
        self._line: ClientConnection | None = None
        self._silence = _HANDSHAKE_SECONDS
        self._failure: BaseException | None = None
        self._auth = Auth("")
        self._trouble = ""
        """Why the server took the token's permission away."""

    async def log(
        self,
        uuid: str,
        *,
        files: Sequence[str] | None = None,
        tail: int | None = None,
        container: str | None = None,
    ) -> SubscriptionHandle:
        """Log files of a container, or of a container request and all its attempts.

        `container`: the attempt of the request to begin with, one that `Attempts` names.
        """
        return await self._add(LogSubscription(uuid, files, tail, first=container))

    async def object(self, uuid: str, *, etag: str | None = None) -> SubscriptionHandle:
        """The state of one object, and every later state."""
        return await self._add(ObjectSubscription(uuid, etag))

    async def events(self, *, cursor: str | None = None, **filters: Any) -> SubscriptionHandle:
        """Changes of objects.

        `owners`, `objects`, `kinds` and `event_types` are lists, `below` stands for the projects
        below the owners too; `begin` is "now" or "oldest".
        """
        return await self._add(EventsSubscription(EventsTarget(**filters), cursor))

    async def _add(self, subscription: Subscription) -> SubscriptionHandle:
        self._count += 1
        handle = SubscriptionHandle(str(self._count), subscription, self._drop)
        self._handles[handle.id] = handle
        if self._failure is not None:
            handle.finish(self._failure)
        elif self._line is not None:
            await self._subscribe(self._line, handle)
        return handle

    async def _drop(self, handle: SubscriptionHandle) -> None:
        """End a subscription."""
        if self._handles.pop(handle.id, None) and self._line is not None:
            await self._say(self._line, Unsubscribe(handle.id))

    def ended(self, running: asyncio.Task[None]) -> None:
        """`run` has ended: so does every handle, with the reason."""
        for timer in tuple(self._timers):
            timer.cancel()
        self._failure = None if running.cancelled() else running.exception()
        for handle in tuple(self._handles.values()):
            handle.finish(self._failure)

    async def run(self) -> None:
        """Stay connected until cancelled, or raise why there is no use in it."""
        backoff = self._backoff
        refused: str | None = None
        while True:
            backoff.begin()
            at_once = False
            try:
                token = self._token_now()
                if token == refused:
                    raise line_errors.TokenRefused(self._trouble)
                await self._connection(token)
                reason = "the connection was lost"
            except ConnectionClosed as error:
                at_once = line_errors.code_of(error) == line_errors.TOKEN_INVALID
                refused = token if at_once else None
                reason = line_errors.why_closed(error)
            except (OSError, InvalidHandshake, BadInput) as error:
                reason = line_errors.why_not_open(error, first=not backoff.ever_stood)
            delay = backoff.delay(reason)
            if at_once:
                delay = 0.0
            self._tell(Waiting(delay, reason))
            await asyncio.sleep(delay)

    def _token_now(self) -> str:
        """A file of it may be away for a moment, while it is renewed."""
        try:
            return self._token()
        except OSError as error:
            raise OSError(f"no token: {said(error)}") from error

    def _tell(self, state: State) -> None:
        if self._on_state is not None:
            self._on_state(state)

    async def _connection(self, token: str) -> None:
        """One connection from its beginning to its end."""
        secure = {"ssl": self._ssl} if self._url.startswith("wss:") else {}
        async with open_socket(
            self._url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            open_timeout=_HANDSHAKE_SECONDS,
            close_timeout=1,
            ping_interval=None,  # the server sends pings, and silence is watched
            max_size=None,
            **secure,  # type: ignore[arg-type]
        ) as line:
            if line.subprotocol != SUBPROTOCOL:
                raise BadInput("the server does not speak protocol v1")
            self._silence = _HANDSHAKE_SECONDS
            try:
                self._auth = Auth(token)
                await self._say(line, self._auth)
                while True:
                    await self._receive(line)
            finally:
                self._line = None

    async def _receive(self, line: ClientConnection) -> None:
        try:
            async with asyncio.timeout(self._silence):
                frame = await line.recv()
        except TimeoutError as error:
            line.transport.abort()  # no closing handshake with a dead line
            raise OSError("the server fell silent") from error
        message = messages_v1.decode(frame)
        match message:
            case Hello():
                await self._welcomed(line, message)
            case Ping():
                await self._say(line, Pong())
            case Goodbye():
                self._backoff.pause(message.reconnect_after_ms)
            case Revoked() if not message.id:
                self._trouble = message.reason
            case Error() if not message.id:
                if message.temporary and self._line is None:
                    self._later(_AGAIN_SECONDS, lambda: self._say(line, self._auth))
            case None:
                pass
            case _:
                await self._dispatch(message)

    async def _welcomed(self, line: ClientConnection, hello: Hello) -> None:
        self._silence = hello.ping_seconds * _SILENCE_FACTOR
        if self._line is not None:
            return
        self._line = line
        self._backoff.stands()
        self._tell(Connected(hello))
        for handle in self._handles.values():
            handle.established = False
        for handle in tuple(self._handles.values()):
            await self._subscribe(line, handle)

    async def _dispatch(self, message: ServerMessage) -> None:
        if id := _subscription(message):
            handle = self._handles.get(id)
            if handle is not None:
                await self._hand_over(handle, message)
            return
        # What comes before `subscribed` is of others, such as a former one to the same log.
        for handle in tuple(self._handles.values()):
            if handle.established:
                await self._hand_over(handle, message)

    async def _hand_over(self, handle: SubscriptionHandle, message: ServerMessage) -> None:
        subscription = handle.subscription
        fresh = subscription.take(message)
        if fresh is None:
            return
        await handle.put(fresh)
        over = _over(message)
        match message:
            case Subscribed():
                handle.established = True
            case Error() if handle.established:
                over = None  # it goes on by itself
            case Error(temporary=True):
                line = self._line
                self._later(_AGAIN_SECONDS, lambda: self._again(line, handle))
        if subscription.ended or over:
            self._handles.pop(handle.id, None)
            handle.finish(over)

    def _later(self, seconds: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do something after about so many seconds."""

        async def wait() -> None:
            await asyncio.sleep(seconds * random.uniform(0.5, 1.5))
            await work()

        task = asyncio.create_task(wait())
        self._timers.add(task)
        task.add_done_callback(self._timers.discard)

    async def _again(self, line: ClientConnection | None, handle: SubscriptionHandle) -> None:
        if line is not None and line is self._line and handle.id in self._handles:
            await self._subscribe(line, handle)

    async def _subscribe(self, line: ClientConnection, handle: SubscriptionHandle) -> None:
        await self._say(line, Subscribe.to(handle.id, handle.subscription.request()))

    async def _say(self, line: ClientConnection, message: ClientMessage) -> None:
        with contextlib.suppress(ConnectionClosed):  # whoever receives learns of it
            await line.send(requests_v1.encode(message))


def _subscription(message: ServerMessage) -> str | None:
    """The id of the one subscription that a message is for; that of an event is its row's."""
    if isinstance(message, messages_v1.Event | messages_v1.Gone):
        return message.subscription or None
    return getattr(message, "id", None) or None


def _over(message: ServerMessage) -> Exception | None:
    """Why a subscription cannot go on after this message."""
    match message:
        case Revoked():
            return Refused(f"the permission to read this is gone ({message.reason})")
        case Error(temporary=False):
            return Refused(message.message)
    return None


@asynccontextmanager
async def connect(
    url: str,
    token: Callable[[], str],
    *,
    ssl: tls.SSLContext | None = None,
    open_timeout: float | None = 10.0,
    reconnect_timeout: float | None = None,
    on_state: Callable[[State], None] | None = None,
) -> AsyncIterator[Stream]:
    """A stream that stays connected as long as the block lasts.

    `token` is asked at every connect, and again where it raises OSError. The first connection is
    tried for `open_timeout` seconds, a lost one for `reconnect_timeout`; None is for ever.
    `on_state` hears of each change of the connection. What goes wrong is raised where a
    subscription is read: Refused for good, ConfigError for an address that cannot be right,
    Unavailable when the time is over.
    """
    stream = Stream(url, token, Backoff(open_timeout, reconnect_timeout), ssl, on_state)
    running = asyncio.create_task(stream.run(), name="arvados stream")
    running.add_done_callback(stream.ended)
    try:
        yield stream
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
