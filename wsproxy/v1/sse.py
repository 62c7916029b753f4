# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Container logs as server-sent events: the `log_events` endpoint that Arvados once planned.

`GET /arvados/v1/container_requests/{uuid}/log_events`, and the same below `containers`, with the
token in the Authorization header. Each event's data is one message of protocol v1, its id the place
of all files, so that `Last-Event-ID` resumes exactly. The hub underneath is the one of v1.
After the last `end` the id says so, and a client that comes back with it gets 204, which ends the
reconnecting of an EventSource. Works with `curl -N`; `X-Accel-Buffering: no` keeps nginx from
holding it back, `no-transform` keeps proxies from compressing it, which holds it back as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from arvados_nats.arvados.tokens import Token
from arvados_nats.errors import ArvadosNatsError, BadInput, Refused, Unavailable
from arvados_nats.permissions.grant_subjects import Change
from arvados_nats.protocol_v1 import messages as messages_v1
from arvados_nats.protocol_v1.requests import From, LogTarget
from wsproxy.logins.logins import Login
from wsproxy.logs.place import LogPlace
from wsproxy.services import Services
from wsproxy.subscriptions.log_subscription import LogSubscription
from wsproxy.transport import query as query_fields
from wsproxy.transport.failures import Tasks
from wsproxy.transport.frames import Message
from wsproxy.transport.incoming import Receive, Send
from wsproxy.transport.limits import UNKNOWN_SECONDS, Place, TooMany
from wsproxy.transport.send_buffer import SendBuffer
from wsproxy.transport.sse import SseWire

HEARTBEAT_SECONDS = 15.0
HEARTBEAT = b": still here\n\n"
RETRY = b"retry: 1000\n\n"
_ID = "log"
_QUERY = ("files", "tail", "from", "last_event_id", "lastEventId")
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class BadToken(ArvadosNatsError):
    """Arvados does not accept this token."""


class LogEvents:
    """One response: to `Logins` a session, to `Connections` a connection."""

    def __init__(self, services: Services, target: LogTarget) -> None:
        self._services = services
        self._login: Login | None = None
        self._subscription = LogSubscription(services, self, _ID, target)
        self._over = asyncio.Event()
        self._done = False
        self._beat_at = asyncio.get_running_loop().time()
        self._wire: SseWire
        self.send_buffer: SendBuffer
        self.tasks: Tasks
        self.place: Place

    @property
    def login(self) -> Login:
        if self._login is None:
            raise Refused
        return self._login

    async def serve(
        self,
        place: Place,
        token: Token,
        receive: Receive,
        send: Send,
        headers: list[tuple[bytes, bytes]],
    ) -> None:
        """Write events until the log has ended, or the client has gone; `headers` are added.

        Raises Refused, BadInput and Unavailable before anything is sent, and BadToken.
        """
        self.place = place
        self._wire = SseWire(send, self._over.set)
        self.send_buffer = self._services.transport.send_buffers.open(self._wire)
        self._wire.attach(self.send_buffer)
        self.tasks = Tasks(self.send_buffer, "sse")
        with self._services.transport.connections.opened(self, "sse"):
            await self._admit(token)
            async with self._services.starts.turn(self.login.identity.user_uuid):
                await self._subscription.start()
            await self._wire.begin(200, _HEADERS + headers)
            self.send_buffer.put(RETRY)
            self.tasks.spawn(self._until_gone(receive))
            await self._over.wait()
            await self._wire.finish()

    async def _admit(self, token: Token) -> None:
        try:
            async with asyncio.timeout(UNKNOWN_SECONDS) as limit:
                self.place.evict = lambda: limit.reschedule(0.0)
                self._login = await self._services.logins.admit(token, self)
        except TimeoutError as error:
            raise Unavailable("it could not be found out in time whose the token is") from error
        except TooMany:
            raise
        except Refused as error:
            raise BadToken from error
        finally:
            self.place.evict = self._over.set

    def end(self) -> None:
        """Free everything."""
        self._subscription.stop()
        self.tasks.end()
        if self._login:
            self._services.logins.release(self._login, self)
        self.send_buffer.gone()

    async def _until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._over.set()

    # What the subscription asks of its client.

    def send(self, message: Message) -> None:
        self.send_buffer.put(self._event_id() + message.sse)

    def tell(self, message: messages_v1.ServerMessage) -> None:
        self.send(Message(messages_v1.encode(message)))

    def _event_id(self) -> bytes:
        """The place of all files after the message that is being written, if it has moved."""
        cursor = self._subscription.cursor(done=self._done)
        if cursor is None:
            return b""
        return b"id: " + self._services.cursors.encode(cursor).encode() + b"\n"

    def revoke(self, id: str, reason: str) -> None:
        self._subscription.stop()
        self.tell(messages_v1.Revoked(reason))
        self._over.set()

    def finished(self, id: str) -> None:
        self._done = True
        self.send_buffer.put(self._event_id() + b"data: {}\n\n")
        self._subscription.stop()
        self._over.set()

    def ended(self, reason: str) -> None:
        self._subscription.stop()
        self.send_buffer.discard()
        self.tell(messages_v1.Revoked(f"token {reason}"))
        self._over.set()

    def narrowed(self, change: Change) -> None:
        self._subscription.recheck()

    def tick(self, now: float) -> None:
        if now - self._beat_at >= HEARTBEAT_SECONDS:
            self._beat_at = now
            if not self.send_buffer.pending:
                self.send_buffer.put(HEARTBEAT)

    def drain(self) -> None:
        self._over.set()


def target_of(
    services: Services, uuid: str, query: Mapping[str, str], last_event_id: str | None
) -> tuple[LogTarget, bool]:
    """What a request asks for, and whether it has had all of it already.

    `files` are names separated by commas, `tail` a number of lines, `from` a place
    (`stdout.txt:4711`, several separated by commas). BadInput names what makes no sense.
    """
    query_fields.only(query, *_QUERY)
    asked = {
        "uuid": uuid,
        "files": query["files"].split(",") if query.get("files") else None,
        "tail": _number(query["tail"]) if query.get("tail") else None,
        "from": _places(query.get("from")),
    }
    try:
        target = msgspec.convert(asked, LogTarget)  # within the bounds of protocol v1
    except msgspec.ValidationError as error:
        raise BadInput(str(error)) from error
    if last_event_id:
        cursor = services.cursors.log(last_event_id)
        target = LogTarget(
            uuid,
            files=target.files,
            from_=_from(cursor.places),
            container=cursor.container,
            former={container: _from(places) for container, places in cursor.former.items()},
        )
        return target, cursor.done
    return target, False


def _from(places: Mapping[str, LogPlace]) -> dict[str, From]:
    return {file: From(place.offset, place.epoch) for file, place in places.items()}


def _places(text: str | None) -> dict[str, dict[str, int]] | None:
    if not text:
        return None
    found = {}
    for part in text.split(","):
        file, _, offset = part.rpartition(":")
        found[file] = {"offset": _number(offset)}
    return found


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 15:
        raise BadInput(f"not a number: {text[:20]!r}")
    return int(text)
