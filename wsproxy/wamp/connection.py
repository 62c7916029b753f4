# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One WAMP connection: takes the steps of its `session`, and serves its topics and calls."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Any

from arvados_nats.arvados.tokens import Token
from arvados_nats.errors import ArvadosNatsError, BadInput, Refused
from arvados_nats.permissions.grant_subjects import Change
from wsproxy import metrics
from wsproxy.logins.logins import Login
from wsproxy.services import Services
from wsproxy.subscriptions import kinds
from wsproxy.subscriptions.begun import Begun
from wsproxy.transport.close_codes import CloseCode
from wsproxy.transport.failures import Tasks
from wsproxy.transport.frames import Message
from wsproxy.transport.incoming import Incoming
from wsproxy.transport.limits import Place, TooMany
from wsproxy.transport.pings import Pings
from wsproxy.transport.send_buffer import SendBuffer
from wsproxy.wamp import calls, messages
from wsproxy.wamp.messages import SUBPROTOCOL, Call, Code
from wsproxy.wamp.session import Bounds, SessionWamp
from wsproxy.wamp.steps import Admit, Ask, Begin, Close, Drop, Say, Step, Stop
from wsproxy.wamp.subscriber import Subscriber
from wsproxy.wamp.topics import Topic

logger = logging.getLogger(__name__)

CALLS = 8
"""Calls of one connection under way."""
_BREAKS_ON_REVOCATION = "AutobahnPython"
"""It says that it knows an UNSUBSCRIBED that it did not ask for, and then ends the connection for
it, as a violation of the protocol (26.10)."""


async def serve(services: Services, incoming: Incoming, place: Place) -> None:
    """Talk WAMP until either side ends it."""
    offered = incoming.subprotocols
    chosen = SUBPROTOCOL if SUBPROTOCOL in offered else None
    revocable = not (incoming.header("user-agent") or "").startswith(_BREAKS_ON_REVOCATION)
    send_buffer = incoming.accept(services.transport.limits.pace, subprotocol=chosen)
    if offered and chosen is None:
        send_buffer.close(CloseCode.UNSUPPORTED, f"this server speaks {SUBPROTOCOL}")
        send_buffer.gone()
        return
    connection = ConnectionWamp(services, incoming, send_buffer, place, revocable=revocable)
    with services.transport.connections.opened(connection, "wamp"):
        await connection.run()


class ConnectionWamp:
    """To `Logins` a session, to `Connections` a connection."""

    def __init__(
        self,
        services: Services,
        incoming: Incoming,
        send_buffer: SendBuffer,
        place: Place,
        *,
        revocable: bool,
    ) -> None:
        self.send_buffer = send_buffer
        self.place = place
        place.evict = send_buffer.abort
        self._services = services
        self._incoming = incoming
        self._login: Login | None = None
        self._calls: dict[int, asyncio.Task[None]] = {}
        self.tasks = Tasks(send_buffer, "wamp")
        self._begun = Begun[int](services.starts, self.tasks)
        limits, now = services.transport.limits, asyncio.get_running_loop().time()
        age = services.transport.max_age * random.uniform(0.8, 1.2)
        bounds = Bounds(limits.subscriptions, limits.subscription_bytes, age)
        id = random.randint(1, 2**53)
        self._session = SessionWamp(bounds, id, now, revocable=revocable)
        self._pings = Pings(incoming.socket, send_buffer, now, services.transport.silent_seconds)

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
                case Say(message):
                    if message[0] is Code.ERROR:
                        metrics.bad_commands.inc()
                    self.say(message)
                case Begin(request, topic):
                    self._begin(request, topic)
                case Stop(id):
                    self._begun.stop(id)
                case Ask(call):
                    self._ask(call)
                case Drop(request):
                    self._drop(request)
                case Close(code, reason, cause):
                    self._close(code, reason, cause)

    def say(self, message: list[Any]) -> None:
        self.send_buffer.write(Message(messages.encode(message)))

    def _close(self, code: int, reason: str, cause: str) -> None:
        if not self.send_buffer.closed:
            metrics.cut_sockets.labels(cause).inc()
        self._begun.stop_all()
        self.send_buffer.close(code, reason)

    # Topics.

    def _begin(self, request: int, topic: Topic) -> None:
        client = Subscriber(self, topic, request)
        try:
            subscription = kinds.subscription(
                self._services, client, topic.uri, topic.target, present=topic.retained
            )
        except BadInput as error:
            self._take(*self._session.failed(request, topic, error))
            return
        user_uuid = self.login.identity.user_uuid
        self._begun.begin(
            topic.id,
            subscription,
            user_uuid,
            lambda error: self._take(*self._session.failed(request, topic, error)),
        )

    def over(self, topic: Topic, reason: str) -> None:
        self._take(*self._session.over(topic.id, reason))

    def narrowed(self, change: Change) -> None:
        self._begun.recheck()

    # Calls.

    def _ask(self, call: Call) -> None:
        request = call.request
        if request in self._calls or len(self._calls) >= CALLS:
            text = "too many calls are under way: wait for an answer, then call again"
            self.say(messages.error(Code.CALL, request, messages.UNAVAILABLE, text))
            return
        self.tasks.keep(self._calls, request, self._answer(call))

    async def _answer(self, call: Call) -> None:
        named = call.args[0] if call.args else None
        topic = self._session.topic(named) if isinstance(named, int) else None
        self.say(await calls.answer(self._services, self.login, call, topic))

    def _drop(self, request: int) -> None:
        if call := self._calls.pop(request, None):
            call.cancel()
            text = "as you wished"
            self.say(messages.error(Code.CALL, request, messages.CANCELED, text))

    # Who it is.

    async def _admit(self, token: Token) -> None:
        try:
            login = self._login = await self._services.logins.admit(token, self)
        except TooMany as error:
            self._take(*self._session.too_many(str(error)))
            return
        except ArvadosNatsError as error:
            if isinstance(error, Refused):
                metrics.refused_tokens.inc()
            self._take(*self._session.not_admitted(error))
            return
        identity = login.identity
        self._take(*self._session.admitted(identity.user_uuid, identity.token_uuid, login.kept))

    def ended(self, reason: str) -> None:
        self._begun.stop_all()
        self.send_buffer.discard()
        self._take(*self._session.token_ended(reason))

    # Time.

    def tick(self, now: float) -> None:
        if not self.send_buffer.closed:
            self._pings.tick(now)
            self._take(*self._session.tick(now))

    def drain(self) -> None:
        self._take(*self._session.drain())
