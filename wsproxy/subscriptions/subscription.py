# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a subscription and the connection it belongs to know of each other.

Connections: those of `v1`, its server-sent events, and of `wamp`. Subscriptions:
`log_subscription`, `object_subscription`, `event_subscription`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import ClassVar, Protocol

from arvados_nats.errors import Unavailable
from arvados_nats.protocol_v1.messages import ServerMessage
from wsproxy.events.stored_event import StoredEvent
from wsproxy.logins.logins import Login
from wsproxy.transport.failures import Tasks
from wsproxy.transport.frames import Message
from wsproxy.transport.send_buffer import SendBuffer

_KEEP_SECONDS = 300.0
"""How long what was allowed before goes on while nobody can tell whether it still is."""
_PAUSE_SECONDS = 2.0


class Client(Protocol):
    """One connection, to its subscriptions."""

    send_buffer: SendBuffer
    tasks: Tasks

    @property
    def login(self) -> Login:
        """Who reads, by the token sent last."""

    def send(self, message: Message) -> None:
        """Write a message that others may get as well."""

    def tell(self, message: ServerMessage) -> None:
        """Write a message for this connection alone."""

    def revoke(self, id: str, reason: str) -> None:
        """End the subscription and say why."""

    def finished(self, id: str) -> None:
        """The subscription has told all it ever will."""


class EventClient(Client, Protocol):
    """A connection to which events can go in bytes that it shares with others."""

    def form(self, id: str) -> Hashable:
        """Equal for all subscriptions to which the same events go as the same bytes."""

    def encode(self, stored: StoredEvent, message: Message, id: str) -> bytes:
        """An event for a subscription in the form of this connection; `message`: in protocol v1."""


class Subscription(Protocol):
    """One subscription of a connection."""

    asks_arvados: ClassVar[bool]
    """Whether `start` may ask Arvados, and so takes a turn; who asks NATS alone waits for nobody
    while Arvados hangs."""

    async def start(self) -> None:
        """Check the permission, say `subscribed`, and begin.

        Raises Refused if it may not be read or is not there, BadInput if it makes no sense,
        Unavailable when nobody can tell now.
        """

    def stop(self) -> None:
        """Send nothing more. May be called twice, and before `start` has returned."""

    def recheck(self) -> None:
        """See soon whether it may still be read, and end it if not. Never waits."""

    def renew(self) -> None:
        """The client has sent a new token of the same user."""


class Rechecks:
    """Looks at one subscription's permission: one at a time, and one more for all that was told
    meanwhile. Anybody may post rows about a group, and each is a reason to look for all below."""

    __slots__ = ("_due", "_looking")

    def __init__(self) -> None:
        self._due = self._looking = False

    def soon(self, tasks: Tasks, look: Callable[[], Awaitable[None]]) -> None:
        """There is a reason to look."""
        self._due = True
        if not self._looking:
            self._looking = True
            tasks.spawn(self._work(look))

    async def _work(self, look: Callable[[], Awaitable[None]]) -> None:
        try:
            while self._due:
                self._due = False
                await look()
        finally:
            self._looking = False


async def still_allowed(ask: Callable[[], Awaitable[bool]]) -> bool:
    """The answer of `ask`, asked again while nobody can tell; after five minutes it is no."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _KEEP_SECONDS
    while loop.time() < deadline:
        try:
            return await ask()
        except Unavailable:
            await asyncio.sleep(_PAUSE_SECONDS)
    return False
