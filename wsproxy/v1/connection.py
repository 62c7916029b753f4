# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One v1 connection: authentication first and at any time again, then subscriptions.

The token comes as a message, never in the URL. A refusal is an `error` that says whether trying
again may help; what ends the connection has a close code whose band says whether to come back
(`close_codes`). When a permission goes, the subscription is stopped first, then told.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Coroutine
from typing import Any

from arvados_nats.arvados.tokens import Token
from arvados_nats.errors import ArvadosNatsError, BadInput, Refused, Unavailable
from arvados_nats.permissions.grant_subjects import Change
from arvados_nats.protocol_v1 import messages as messages_v1
from arvados_nats.protocol_v1 import requests as requests_v1
from arvados_nats.protocol_v1.requests import (
    Auth,
    EventsTarget,
    LogTarget,
    Pong,
    Subscribe,
    Unsubscribe,
)
from wsproxy import metrics
from wsproxy.logins.logins import Login
from wsproxy.logins.readable import NOT_READABLE
from wsproxy.services import Services
from wsproxy.transport import failures
from wsproxy.transport.close_codes import CloseCode
from wsproxy.transport.frames import Message
from wsproxy.transport.incoming import Incoming
from wsproxy.transport.limits import Place, TooMany
from wsproxy.transport.send_buffer import SendBuffer
from wsproxy.v1.event_subscription import EventSubscription
from wsproxy.v1.log_subscription import LogSubscription
from wsproxy.v1.object_subscription import ObjectSubscription
from wsproxy.v1.subscription import Subscription

logger = logging.getLogger(__name__)

MAX_MESSAGE = 64 * 1024
AUTH_SECONDS = 10.0
PING_SECONDS = 25.0
SILENT_SECONDS = 2.5 * PING_SECONDS
RECONNECT_MS = (0, 5000)
"""Range of random waiting that clients are told when the server's business ends a connection."""

PING = Message(messages_v1.encode(messages_v1.Ping()))


async def serve(services: Services, incoming: Incoming, place: Place) -> None:
    """Talk v1 until either side ends it."""
    offered = incoming.subprotocols
    chosen = messages_v1.SUBPROTOCOL if messages_v1.SUBPROTOCOL in offered else None
    send_buffer = incoming.accept(services.limits.pace, subprotocol=chosen)
    if offered and chosen is None:
        send_buffer.close(CloseCode.UNSUPPORTED, f"this server speaks {messages_v1.SUBPROTOCOL}")
        send_buffer.gone()
        return
    connection = ConnectionV1(services, incoming, send_buffer, place)
    services.connections.add(connection)
    gauge = metrics.sockets.labels("1")
    gauge.inc()
    try:
        await connection.run()
    finally:
        gauge.dec()
        services.connections.remove(connection)
        connection.end()


class ConnectionV1:
    """To `Logins` a session, to `Connections` a connection, to subscriptions their client."""

    def __init__(
        self, services: Services, incoming: Incoming, send_buffer: SendBuffer, place: Place
    ) -> None:
        self.send_buffer = send_buffer
        self.place = place
        place.evict = send_buffer.abort
        self._services = services
        self._incoming = incoming
        self._login: Login | None = None
        self._subscriptions: dict[str, Subscription] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        now = asyncio.get_running_loop().time()
        self._opened_at = self._pinged_at = now
        self._max_age = services.max_age * random.uniform(0.8, 1.2)

    @property
    def login(self) -> Login:
        if self._login is None:
            raise Refused("not authenticated")
        return self._login

    async def run(self) -> None:
        """Handle what the client sends until the connection is over."""
        while (data := await self._incoming.receive()) is not None:
            await self._handle(data)
            if self.send_buffer.lagging:
                await self.send_buffer.writable()

    def end(self) -> None:
        """Free everything; the connection is over."""
        self._stop_all()
        for task in self._tasks:
            task.cancel()
        if self._login:
            self._services.logins.release(self._login, self)
        self.send_buffer.gone()

    # Messages of the client.

    async def _handle(self, data: str | bytes) -> None:
        try:
            if isinstance(data, bytes):
                raise BadInput("messages are text frames")
            message = requests_v1.decode(data)
        except BadInput as error:
            self._error("bad_message", str(error))
            return
        match message:
            case Auth():
                await self._authenticate(Token(message.token))
            case Pong():
                pass
            case _ if self._login is None:
                self._error("not_authenticated", "send auth first")
            case Subscribe():
                self._subscribe(message, len(data))
            case Unsubscribe():
                self._unsubscribe(message.id)

    def _subscribe(self, message: Subscribe, weight: int) -> None:
        limits = self._services.limits
        kept = weight + sum(other.weight for other in self._subscriptions.values())
        if message.id in self._subscriptions:
            self._error("id_in_use", "there is a subscription with this id", id=message.id)
        elif len(self._subscriptions) >= limits.subscriptions or kept > limits.subscription_bytes:
            self._error("too_many", "too many subscriptions on this connection", id=message.id)
        else:
            try:
                subscription = self._made(message)
            except BadInput as error:
                self._error("bad_message", str(error), id=message.id)
                return
            subscription.weight = weight
            self._subscriptions[message.id] = subscription
            self.spawn(self._start(message.id, subscription))

    def _made(self, message: Subscribe) -> Subscription:
        target = message.target
        if isinstance(target, LogTarget):
            return LogSubscription(self._services, self, message.id, target)
        if isinstance(target, EventsTarget):
            return EventSubscription(self._services, self, message.id, target)
        return ObjectSubscription(self._services, self, message.id, target)

    async def _start(self, id: str, subscription: Subscription) -> None:
        try:
            await subscription.start()
        except ArvadosNatsError as error:
            if self._subscriptions.get(id) is subscription:
                del self._subscriptions[id]
                code, text, temporary = _told(error)
                self._error(code, text, id=id, temporary=temporary)
            subscription.stop()

    def _unsubscribe(self, id: str) -> None:
        subscription = self._subscriptions.pop(id, None)
        if subscription is None:
            self._error("no_such_id", "there is no subscription with this id", id=id)
        else:
            subscription.stop()

    # Who it is.

    async def _authenticate(self, token: Token) -> None:
        try:
            login = await self._services.logins.admit(token, self)
        except TooMany as error:
            self._close(CloseCode.LIMIT, str(error), "user")
            return
        except Refused:
            self._refuse("Arvados does not accept this token")
            return
        except (Unavailable, BadInput) as error:
            self._error("unavailable", str(error), temporary=True)
            return
        former = self._login
        if former is not None and former.identity.user_uuid != login.identity.user_uuid:
            self._services.logins.release(login, self)
            self._error("other_user", "a connection stays with the user it began with")
            return
        self._login = login
        if former is not None and former is not login:
            self._services.logins.release(former, self)
            for subscription in self._subscriptions.values():
                subscription.renew()
        self._greet(login)

    def _greet(self, login: Login) -> None:
        limits = messages_v1.Limits(self._services.limits.subscriptions, MAX_MESSAGE)
        identity = login.identity
        self.tell(messages_v1.Hello(identity.user_uuid, identity.token_uuid, PING_SECONDS, limits))

    def _refuse(self, text: str) -> None:
        metrics.refused_tokens.inc()
        self._error("token_invalid", text)
        if self._login is None:
            self._close(CloseCode.TOKEN_INVALID, "token invalid", "token")

    def ended(self, reason: str) -> None:
        self._stop_all()
        self.send_buffer.discard()
        self.tell(messages_v1.Revoked(f"token {reason}"))
        self._close(CloseCode.TOKEN_INVALID, f"token {reason}", "token")

    def narrowed(self, change: Change) -> None:
        for subscription in tuple(self._subscriptions.values()):
            self.spawn(subscription.recheck())

    # What subscriptions ask of their client.

    def send(self, message: Message) -> None:
        self.send_buffer.write(message)

    def tell(self, message: messages_v1.ServerMessage) -> None:
        self.send_buffer.write(Message(messages_v1.encode(message)))

    def revoke(self, id: str, reason: str) -> None:
        subscription = self._subscriptions.pop(id, None)
        if subscription is not None:
            subscription.stop()
            self.tell(messages_v1.Revoked(reason, id))
            logger.info(
                "subscription ended: not readable any more",
                extra={"action": "v1.revoked", "user_uuid": self.login.identity.user_uuid},
            )

    def finished(self, id: str) -> None:
        subscription = self._subscriptions.pop(id, None)
        if subscription is not None:
            subscription.stop()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="v1")
        failures.end_with(self.send_buffer, task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Time.

    def tick(self, now: float) -> None:
        if self.send_buffer.closed:
            return
        heard = self._incoming.socket.heard_at
        if self._login is None and now - self._opened_at > AUTH_SECONDS:
            self._error("auth_timeout", "no token was sent in time")
            self._close(CloseCode.AUTH_TIMEOUT, "auth first", "auth")
        elif now - heard > SILENT_SECONDS and not self.send_buffer.pending:
            self._close(CloseCode.NO_PONG, "no pong", "silent")
        elif 0 < self._max_age < now - self._opened_at:
            self._goodbye(CloseCode.MAX_AGE, "this connection is old")
        elif now - self._pinged_at >= PING_SECONDS:
            self._pinged_at = now
            self.send_buffer.write(PING)

    def drain(self) -> None:
        self._goodbye(CloseCode.DRAIN, "the server is going away")

    def _goodbye(self, code: CloseCode, reason: str) -> None:
        self.tell(messages_v1.Goodbye(reason, RECONNECT_MS))
        self._close(code, reason, "drain" if code is CloseCode.DRAIN else "age")

    def _close(self, code: CloseCode, reason: str, cause: str) -> None:
        if not self.send_buffer.closed:
            metrics.cut_sockets.labels(cause).inc()
        self._stop_all()
        self.send_buffer.close(code, reason)

    def _stop_all(self) -> None:
        subscriptions, self._subscriptions = self._subscriptions, {}
        for subscription in subscriptions.values():
            subscription.stop()

    def _error(
        self, code: str, text: str, *, id: str | None = None, temporary: bool = False
    ) -> None:
        metrics.bad_commands.inc()
        error = messages_v1.Error(code, text, temporary)
        if id is not None:
            error = messages_v1.Error(code, text, temporary, id)
        self.tell(error)


def _told(error: ArvadosNatsError) -> tuple[str, str, bool]:
    """Code and text of an `error` message, and whether trying again may help."""
    if isinstance(error, Refused):
        return "not_found", NOT_READABLE, False
    if isinstance(error, BadInput):
        return "bad_message", str(error), False
    return "unavailable", str(error), True
