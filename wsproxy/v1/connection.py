# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One v1 connection: takes the steps of its `session` and serves its subscriptions.

The token comes as a message, never in the URL.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Hashable

from arvados_nats.arvados.tokens import Token
from arvados_nats.errors import ArvadosNatsError, BadInput, Refused
from arvados_nats.permissions.grant_subjects import Change
from arvados_nats.protocol_v1 import messages as messages_v1
from arvados_nats.protocol_v1.messages import encode
from arvados_nats.protocol_v1.requests import Target
from wsproxy import metrics
from wsproxy.events.stored_event import StoredEvent
from wsproxy.logins.logins import Login
from wsproxy.services import Services
from wsproxy.subscriptions import kinds
from wsproxy.subscriptions.begun import Begun
from wsproxy.transport.close_codes import CloseCode
from wsproxy.transport.failures import Tasks
from wsproxy.transport.frames import Message, text_frame
from wsproxy.transport.incoming import Incoming
from wsproxy.transport.limits import Pace, Place, TooMany
from wsproxy.transport.send_buffer import SendBuffer
from wsproxy.v1.session import (
    TOKENS_AT_FIRST,
    TOKENS_PER_SECOND,
    Admit,
    Begin,
    Bounds,
    Close,
    Say,
    SessionV1,
    Step,
    Stop,
)

logger = logging.getLogger(__name__)

_PING = Message(encode(messages_v1.Ping()))


async def serve(services: Services, incoming: Incoming, place: Place) -> None:
    """Talk v1 until either side ends it."""
    offered = incoming.subprotocols
    chosen = messages_v1.SUBPROTOCOL if messages_v1.SUBPROTOCOL in offered else None
    send_buffer = incoming.accept(services.transport.limits.pace, subprotocol=chosen)
    if offered and chosen is None:
        send_buffer.close(CloseCode.UNSUPPORTED, f"this server speaks {messages_v1.SUBPROTOCOL}")
        send_buffer.gone()
        return
    connection = ConnectionV1(services, incoming, send_buffer, place)
    with services.transport.connections.opened(connection, "1"):
        await connection.run()


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
        self.tasks = Tasks(send_buffer, "v1")
        self._begun = Begun[str](services.starts, self.tasks)
        limits, age = (
            services.transport.limits,
            services.transport.max_age * random.uniform(0.8, 1.2),
        )
        self._tokens = Pace(TOKENS_PER_SECOND, TOKENS_AT_FIRST)
        bounds = Bounds(limits.subscriptions, limits.subscription_bytes, age)
        self._session = SessionV1(bounds, asyncio.get_running_loop().time())

    @property
    def login(self) -> Login:
        if self._login is None:
            raise Refused("not authenticated")
        return self._login

    async def run(self) -> None:
        """Handle what the client sends until the connection is over."""
        while (data := await self._incoming.receive()) is not None:
            for step in self._session.received(data):
                if isinstance(step, Admit):
                    await asyncio.sleep(self._tokens.wait(asyncio.get_running_loop().time()))
                    await self._admit(Token(step.token.strip()))
                else:
                    self._take(step)
            if self.send_buffer.lagging:
                await self.send_buffer.writable()

    def end(self) -> None:
        self._begun.stop_all()
        self._session.end()
        self.tasks.end()
        if self._login:
            self._services.logins.release(self._login, self)
        self.send_buffer.gone()

    # Steps of the session.

    def _take(self, *steps: Step) -> None:
        for step in steps:
            match step:
                case Say(messages_v1.Ping()):
                    self.send_buffer.write(_PING)
                case Say(message):
                    if isinstance(message, messages_v1.Error):
                        metrics.bad_commands.inc()
                    self.tell(message)
                case Begin(id, target):
                    self._begin(id, target)
                case Stop(id):
                    self._begun.stop(id)
                case Close(code, reason, cause):
                    self._close(code, reason, cause)

    def _close(self, code: CloseCode, reason: str, cause: str) -> None:
        if not self.send_buffer.closed:
            metrics.cut_sockets.labels(cause).inc()
        self._begun.stop_all()
        self.send_buffer.close(code, reason)

    def _begin(self, id: str, target: Target) -> None:
        try:
            subscription = kinds.subscription(self._services, self, id, target)
        except BadInput as error:
            self._take(*self._session.failed(id, error))
            return
        user_uuid = self.login.identity.user_uuid
        self._begun.begin(
            id,
            subscription,
            user_uuid,
            lambda error: self._take(*self._session.failed(id, error)),
        )

    # Who it is.

    async def _admit(self, token: Token) -> None:
        try:
            login = await self._services.logins.admit(token, self)
        except TooMany as error:
            self._take(*self._session.too_many(str(error)))
            return
        except ArvadosNatsError as error:
            if isinstance(error, Refused):
                metrics.refused_tokens.inc()
            self._take(*self._session.not_admitted(error))
            return
        identity = login.identity
        if not self._session.stays_with(identity.user_uuid):
            self._services.logins.release(login, self)
        else:
            self._go_on_with(login)
        self._take(*self._session.admitted(identity.user_uuid, identity.token_uuid, login.kept))

    def _go_on_with(self, login: Login) -> None:
        former, self._login = self._login, login
        if former is not None and former is not login:
            self._services.logins.release(former, self)
            for subscription in self._begun:
                subscription.renew()

    def ended(self, reason: str) -> None:
        self._begun.stop_all()
        self.send_buffer.discard()
        self._take(*self._session.token_ended(reason))

    def narrowed(self, change: Change) -> None:
        self._begun.recheck()

    # What subscriptions ask of their client.

    def send(self, message: Message) -> None:
        self.send_buffer.write(message)

    def form(self, id: str) -> Hashable:
        return id

    def encode(self, stored: StoredEvent, message: Message, id: str) -> bytes:
        return message.form(id, lambda text: text_frame(messages_v1.told_to(id, text)))

    def tell(self, message: messages_v1.ServerMessage) -> None:
        self.send_buffer.write(Message(encode(message)))

    def revoke(self, id: str, reason: str) -> None:
        if steps := self._session.revoked(id, reason):
            self._take(*steps)
            logger.info(
                "subscription ended: not readable any more",
                extra={"action": "v1.revoked", "user_uuid": self.login.identity.user_uuid},
            )

    def finished(self, id: str) -> None:
        if self._session.forget(id):
            self._take(Stop(id))

    # Time.

    def tick(self, now: float) -> None:
        if not self.send_buffer.closed:
            heard = self._incoming.socket.heard_at
            pending = not self.send_buffer.owes_an_answer(heard, now)
            self._take(*self._session.tick(now, heard, pending=pending))

    def drain(self) -> None:
        self._take(*self._session.drain())
