# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One v0 connection: the session, the token's login, and the consumer between them.

As in arvados-ws any token connects, and one that Arvados does not accept gets no events; that is
counted. Commands are answered at once, also while Arvados does not answer: a subscription notes its
place in the stream, and the consumer begins there when the login is known. When the token dies the
connection is closed; what may not be shown any more is left out in silence (docs/facts/arvados.md
6).
"""

from __future__ import annotations

import asyncio
import logging

from arvados_nats.arvados.tokens import Token
from arvados_nats.errors import BadInput, Refused, Unavailable
from arvados_nats.permissions.grant_subjects import Change
from wsproxy import metrics
from wsproxy.events.batch import Batch
from wsproxy.events.consumer import EventConsumer
from wsproxy.events.row_positions import Place as RowPlace
from wsproxy.logins.logins import Login
from wsproxy.services import Services
from wsproxy.transport.close_codes import CloseCode
from wsproxy.transport.failures import Tasks
from wsproxy.transport.incoming import Incoming
from wsproxy.transport.limits import UNKNOWN_SECONDS, Place, TooMany
from wsproxy.transport.pings import Pings
from wsproxy.transport.send_buffer import SendBuffer
from wsproxy.v0 import messages as messages_v0
from wsproxy.v0.messages import Subscribe, Unsubscribe
from wsproxy.v0.session import SessionV0, Subscription

logger = logging.getLogger(__name__)

MAX_MESSAGE = 64 * 1024
"""arvados-ws understands no command over 4 KiB (services/ws/handler.go)."""
BEFORE_ADMISSION = 64 * 1024
"""Bytes of commands that are read of a peer before it is known who it is."""

_GOING_AWAY, _POLICY_VIOLATION = 1001, 1008
_RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)


async def serve(services: Services, incoming: Incoming, place: Place) -> None:
    """Talk v0 until either side ends it."""
    token = Token(incoming.query.get("api_token", ""))
    send_buffer = incoming.accept(services.transport.limits.pace)
    connection = ConnectionV0(services, incoming, send_buffer, place, token)
    with services.transport.connections.opened(connection, "0"):
        await connection.run()


class ConnectionV0:
    """To `Logins` a session, to `Connections` a connection."""

    def __init__(
        self,
        services: Services,
        incoming: Incoming,
        send_buffer: SendBuffer,
        place: Place,
        token: Token,
    ) -> None:
        self._services = services
        self._incoming = incoming
        self.send_buffer = send_buffer
        self.place = place
        place.evict = send_buffer.abort
        self._token = token
        limits = services.transport.limits
        self._session = SessionV0(limits.subscriptions, limits.subscription_bytes)
        self._login: Login | None = None
        self._consumer: EventConsumer | None = None
        self._msg_id = 0
        self._counted = 0
        self._heard = 0
        self._quiet_since = asyncio.get_running_loop().time()
        self._opened_at = self._quiet_since
        self._pings = Pings(
            incoming.socket, send_buffer, self._opened_at, services.transport.silent_seconds
        )
        self._tasks = Tasks(send_buffer, "v0")
        self._admitted = asyncio.Event()
        self._replays: dict[Subscription, asyncio.Task[None]] = {}
        """Whose place is being looked for."""
        services.events.source.on_reset.add(self._stream_reset)

    async def run(self) -> None:
        """Handle what the client sends until the connection is over."""
        self._tasks.spawn(self._admit())
        while (data := await self._incoming.receive()) is not None:
            if data and self._may_say(data):  # arvados-ws does not see empty frames
                self._handle(data)
            if self.send_buffer.lagging:
                await self.send_buffer.writable()

    def end(self) -> None:
        self._services.events.source.on_reset.discard(self._stream_reset)
        self._tasks.end()
        if self._consumer:
            self._consumer.stop()
        if self._login:
            self._services.logins.release(self._login, self)
        self._session.end()
        self._count()
        self.send_buffer.gone()

    # Commands.

    def _may_say(self, data: str | bytes) -> bool:
        self._heard += len(data)
        if self._login is not None or self._heard <= BEFORE_ADMISSION:
            return True
        self._cut(_POLICY_VIOLATION, "too many commands before the token was accepted", "unknown")
        return False

    def _handle(self, data: str | bytes) -> None:
        try:
            wanted = messages_v0.command(data)
            done = (
                self._unsubscribe(wanted)
                if isinstance(wanted, Unsubscribe)
                else self._subscribe(wanted)
            )
        except BadInput:
            done = False
        if not done:
            metrics.bad_commands.inc()
            self.send_buffer.write(messages_v0.BAD)

    def _unsubscribe(self, wanted: Unsubscribe) -> bool:
        over = self._session.unsubscribe(wanted.filters)
        if over is None:
            return False
        if replay := self._replays.pop(over, None):
            replay.cancel()
        self.send_buffer.write(messages_v0.OK)
        if not len(self._session) and self._consumer:
            self._consumer.halt()
        return True

    def _subscribe(self, wanted: Subscribe) -> bool:
        position = self._services.events.source.position
        subscription = self._session.subscribe(wanted, position)
        if subscription is None:
            return False
        self.send_buffer.write(messages_v0.OK)
        if wanted.last_log_id:
            self._tasks.keep(self._replays, subscription, self._replay(subscription))
        elif self._consumer and not self._consumer.running:
            self._consumer.start(position)
        return True

    async def _replay(self, subscription: Subscription) -> None:
        await self._admitted.wait()  # nothing is looked for that nobody may read
        place = await self._found(subscription.wanted)
        consumer = self._consumer
        shown = consumer.position if consumer and consumer.running else place.sequence
        after_id = None if place.exact else subscription.wanted.last_log_id
        self._session.begin_replay(subscription, place.sequence, after_id, shown)
        if consumer and not (consumer.running and consumer.position <= place.sequence):
            consumer.start(place.sequence)

    async def _found(self, wanted: Subscribe) -> RowPlace:
        """Where to read on, in the stream that there is now."""
        source, places = self._services.events.source, self._services.events.places
        reader = self._login.identity.user_uuid if self._login else ""
        while True:
            resets = source.resets
            try:
                place = await places.after_row(wanted.last_log_id, wanted.created_since, reader)
            except Unavailable:
                await asyncio.sleep(_RETRY_SECONDS[-1])
                continue
            if resets == source.resets:
                return place

    # Who it is.

    async def _admit(self) -> None:
        attempt = 0
        while self._login is None:
            try:
                self._login = await self._services.logins.admit(self._token, self)
            except TooMany as error:
                self._cut(CloseCode.LIMIT, str(error), "user")
                return
            except Refused as error:
                metrics.refused_tokens.inc()
                logger.info(
                    "connected with a token that gets no events",
                    extra={"action": "v0.refused", "error": str(error)},
                )
                return
            except Unavailable:
                await asyncio.sleep(_RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)])
                attempt += 1
        if not self._session.admitted(self._login.kept):
            self._cut(CloseCode.LIMIT, "too many subscriptions of this user", "user")
            return
        await self._services.events.source.ready.wait()
        self._consumer = EventConsumer(
            self._services.events.source, self._login.principal, self.send_buffer, self._accept
        )
        first = self._session.first_place
        if first is not None:
            self._consumer.start(first)
        self._admitted.set()

    def ended(self, reason: str) -> None:
        if self._consumer:
            self._consumer.stop()
        self._cut(CloseCode.TOKEN_INVALID, f"token {reason}", "token")

    def narrowed(self, change: Change) -> None:
        """v0 has no word for it but to those who ask for one."""
        if self._session.wants_narrowed:
            self.send_buffer.write(messages_v0.NARROWED)

    # Events.

    def _accept(self, batch: Batch) -> None:
        if self._session.lets_all_through(batch.first):
            first = self._msg_id + 1
            self._msg_id += len(batch)
            made = batch.made.get(first)
            if made is None:
                numbered = enumerate(batch.events, first)
                frames = [messages_v0.numbered(stored).frame(number) for number, stored in numbered]
                made = batch.keep(first, frames)
            self.send_buffer.put(made[0])
            return
        for stored in batch.events:
            if self._session.lets_through(stored):
                self._msg_id += 1
                self.send_buffer.put(messages_v0.numbered(stored).frame(self._msg_id))

    def _stream_reset(self) -> None:
        self._session.forget_places()
        if self._consumer and self._consumer.running:
            self._consumer.start(0)

    # Time.

    def tick(self, now: float) -> None:
        if self._login is None and now - self._opened_at > UNKNOWN_SECONDS:
            self._cut(CloseCode.AUTH_TIMEOUT, "no token was accepted in time", "unknown")
            return
        if self._count():
            self._quiet_since = now
        elif now - self._quiet_since >= self._services.transport.send_timeout:
            self._quiet_since = now
            if not self.send_buffer.pending:
                self.send_buffer.write(messages_v0.IDLE)
        self._pings.tick(now)

    def _count(self) -> int:
        sent = self._msg_id - self._counted
        if sent:
            metrics.events_out.inc(sent)
            self._counted = self._msg_id
        return sent

    def drain(self) -> None:
        self._cut(_GOING_AWAY, "the server is going away", "drain")

    def _cut(self, code: int, reason: str, cause: str) -> None:
        if not self.send_buffer.closed:
            metrics.cut_sockets.labels(cause).inc()
        self.send_buffer.close(code, reason)
