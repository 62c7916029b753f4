# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A connection to NATS: the one place that knows the client library and its exceptions.

Everything here either works or raises one of the four kinds of `errors`. History is read by batched
direct get, which leaves no consumer on the server (facts/nats.md); live messages are plain
subscriptions to what the streams republish.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import nats
import nats.aio.client
import nats.aio.msg
import nats.aio.subscription
import nats.errors
from nats.nuid import NUID

from arvados_nats import nats_acks, nats_history, streams
from arvados_nats.errors import ArvadosNatsError, BadInput, Refused, Unavailable
from arvados_nats.nats_acks import Ack, JetStreamError
from arvados_nats.nats_history import StoredMessage

logger = logging.getLogger(__name__)

Handler = Callable[["Message"], Awaitable[None]]

_REQUEST_TIMEOUT = 5.0
_PENDING_MESSAGES = 1_000_000
_PENDING_BYTES = 256 * 1024 * 1024
_OUTGOING_BYTES = 64 * 1024 * 1024
_STREAM_NOT_FOUND = 10059
_PING = b"PING\r\n"


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it came: `headers` is empty where there are none."""

    subject: str
    data: bytes
    headers: Mapping[str, str]
    reply: str


@contextlib.contextmanager
def _translate() -> Iterator[None]:
    try:
        yield
    except nats.errors.MaxPayloadError as error:
        raise BadInput("the message is larger than the server's max_payload") from error
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise Unavailable(f"NATS: {error or type(error).__name__}") from error


class Nats:
    """An open connection; get one from `connect`."""

    def __init__(self, client: nats.aio.client.Client, inbox_prefix: str) -> None:
        self._client = client
        self._acks = nats_acks.Acks(f"{inbox_prefix}.{NUID().next().decode()}")
        self._ack_subscription: nats.aio.subscription.Subscription | None = None
        self._closed = asyncio.Event()
        self._standing = asyncio.Event()
        self._listeners: list[Callable[[bool], None]] = []

    def on_change(self, listener: Callable[[bool], None]) -> Callable[[], None]:
        """Call `listener(connected)` when the connection is lost and when it is back.

        Gives a function that ends it.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def until_closed(self) -> None:
        """Wait until the server has shut us out for good, then raise Unavailable."""
        await self._closed.wait()
        raise Unavailable("the NATS server has ended the connection for good")

    async def until_connected(self) -> None:
        """Return when the connection stands; at once if it does."""
        await self._standing.wait()

    async def _lost(self) -> None:
        self._standing.clear()
        self._tell(False)

    async def _regained(self) -> None:
        self._standing.set()
        self._tell(True)

    async def _ended(self) -> None:
        self._closed.set()

    def _tell(self, connected: bool) -> None:
        logger.warning(
            "NATS connection changed", extra={"action": "nats.connection", "connected": connected}
        )
        for listener in self._listeners:
            listener(connected)

    @property
    def connected(self) -> bool:
        return self._client.is_connected

    @property
    def max_payload(self) -> int:
        return self._client.max_payload

    async def publish(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: dict[str, str] | None = None,
        reply: str = "",
    ) -> None:
        with _translate():
            await self._client.publish(subject, data, reply=reply, headers=headers)

    async def request(
        self,
        subject: str,
        data: bytes = b"",
        *,
        timeout: float = _REQUEST_TIMEOUT,
        headers: dict[str, str] | None = None,
    ) -> Message:
        with _translate():
            return _message(
                await self._client.request(subject, data, timeout=timeout, headers=headers)
            )

    async def request_all(
        self, subject: str, data: bytes = b"", *, window: float = 0.5
    ) -> AsyncIterator[Message]:
        """Every answer to one request that comes within `window` seconds of the one before."""
        inbox = self._client.new_inbox()
        with _translate():
            subscription = await self._client.subscribe(inbox)
            try:
                await self._client.publish(subject, data, reply=inbox)
                while True:
                    try:
                        raw = await subscription.next_msg(timeout=window)
                    except nats.errors.TimeoutError:
                        return
                    yield _message(raw)
            finally:
                with contextlib.suppress(nats.errors.Error):
                    await subscription.unsubscribe()

    async def flush(self, timeout: float = _REQUEST_TIMEOUT) -> None:
        """Return when the server has handled all that was sent before: subscriptions are active.

        The library's own flush, cancelled or too late, lets the late answer end its read loop; and
        its ping overtakes commands that wait to be written, so here it is one of them.
        """
        if not self.connected:
            raise Unavailable("NATS is not connected")
        pong: asyncio.Future[bool] = asyncio.Future()
        with _translate():
            async with asyncio.timeout(timeout):
                self._client._pongs.append(pong)
                await self._client._send_command(_PING)
                await self._client._flush_pending()
                await asyncio.shield(pong)

    async def subscribe(self, subject: str, handler: Handler, *, queue: str = "") -> Subscription:
        """Call `handler` for each message, one after the other; BadInput it raises is counted out.

        `handler` must not wait for long: messages queue behind it, to at most 256 MiB.
        """

        async def call(raw: nats.aio.msg.Msg) -> None:
            try:
                await handler(_message(raw))
            except ArvadosNatsError as error:
                logger.warning(
                    "message skipped",
                    extra={"action": "nats.skip", "subject": raw.subject, "error": str(error)},
                )

        with _translate():
            raw = await self._client.subscribe(
                subject,
                queue=queue,
                cb=call,
                pending_msgs_limit=_PENDING_MESSAGES,
                pending_bytes_limit=_PENDING_BYTES,
            )
        return Subscription(raw)

    async def publish_stored(
        self, subject: str, data: bytes, headers: dict[str, str] | None = None
    ) -> asyncio.Future[Ack]:
        """Publish to a stream without waiting; the future gives the server's acknowledgement.

        A refusal (for example a failed expectation of the last sequence) sets `JetStreamError`.
        The future has no deadline: the caller waits for it with one and cancels it, which frees
        its place.
        """
        if self._ack_subscription is None:
            with _translate():
                self._ack_subscription = await self._client.subscribe(
                    self._acks.pattern, cb=self._acknowledge
                )
        reply, future = self._acks.expect()
        try:
            await self.publish(subject, data, headers=headers, reply=reply)
        except ArvadosNatsError:
            future.cancel()
            raise
        return future

    async def _acknowledge(self, raw: nats.aio.msg.Msg) -> None:
        self._acks.arrived(raw.subject, raw.headers or {}, raw.data)

    async def js_api(
        self, name: str, body: Any = None, *, api_level: int | None = None
    ) -> dict[str, Any]:
        """Call the JetStream API `$JS.API.<name>`; JetStreamError if it refuses."""
        headers = {"Nats-Required-Api-Level": str(api_level)} if api_level else None
        payload = b"" if body is None else json.dumps(body).encode()
        answer = await self.request(f"$JS.API.{name}", payload, headers=headers)
        decoded: dict[str, Any] = json.loads(answer.data)
        if error := decoded.get("error"):
            raise nats_acks.error_of(error)
        return decoded

    async def stream_info(self, name: str) -> dict[str, Any] | None:
        """STREAM.INFO: `config`, `state`, `created`; None if there is no such stream."""
        try:
            return await self.js_api(f"STREAM.INFO.{name}")
        except JetStreamError as error:
            if error.code == _STREAM_NOT_FOUND:
                return None
            raise

    async def stream_config(self, name: str) -> dict[str, Any] | None:
        info = await self.stream_info(name)
        return info["config"] if info else None

    async def last(self, stream: str, subject: str) -> StoredMessage | None:
        """The last stored message of one subject (wildcards allowed), or None.

        A plain subject is asked for by its name in the request, since only that form can be
        permitted to a client that is not trusted (facts/nats-callout.md 3, row 15).
        """
        call = f"$JS.API.DIRECT.GET.{stream}"
        if "*" in subject or ">" in subject:
            answer = await self.request(call, json.dumps({"last_by_subj": subject}).encode())
        else:
            answer = await self.request(f"{call}.{subject}")
        return nats_history.parse(answer.headers, answer.data)

    async def next(self, stream: str, subject: str, first: int) -> StoredMessage | None:
        """The first stored message of `subject` (wildcards allowed) from sequence `first` on."""
        body = json.dumps({"seq": max(first, 1), "next_by_subj": subject})
        answer = await self.request(f"$JS.API.DIRECT.GET.{stream}", body.encode())
        return nats_history.parse(answer.headers, answer.data)

    def history(
        self,
        stream: str,
        subject: str,
        *,
        first: int = 1,
        since: str | None = None,
        batch: int = 1000,
        max_bytes: int = nats_history.BATCH_BYTES,
    ) -> AsyncIterator[StoredMessage]:
        """Stored messages of `subject` (wildcards allowed) in order, until none is left now.

        From sequence `first`, or from the time `since` (RFC 3339). Read in pages of at most `batch`
        messages and `max_bytes` bytes.
        """
        return nats_history.read(
            functools.partial(self.page, stream),
            {"start_time": since} if since else {"seq": first},
            {"next_by_subj": subject, "batch": batch, "max_bytes": max_bytes},
        )

    async def page(self, stream: str, body: dict[str, Any]) -> nats_history.Page:
        """One batched direct get: `{"seq", "next_by_subj", "batch"}` or `{"multi_last", …}`."""
        inbox = self._client.new_inbox()
        page: list[StoredMessage] = []
        with _translate():
            subscription = await self._client.subscribe(
                inbox,
                pending_msgs_limit=_PENDING_MESSAGES,
                pending_bytes_limit=_PENDING_BYTES,
            )
            try:
                await self._client.publish(
                    f"$JS.API.DIRECT.GET.{stream}", json.dumps(body).encode(), reply=inbox
                )
                while True:
                    raw = await subscription.next_msg(timeout=_REQUEST_TIMEOUT)
                    headers = raw.headers or {}
                    stored = nats_history.parse(headers, raw.data)
                    if stored is None:
                        return page, nats_history.pending(headers)
                    page.append(stored)
            finally:
                with contextlib.suppress(nats.errors.Error):
                    await subscription.unsubscribe()

    async def _close(self) -> None:
        """Everything sent is delivered if a server is there, then the connection is closed."""
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            await self._client.flush(timeout=1)
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            await self._client.close()


@dataclass(frozen=True, slots=True)
class Subscription:
    """An active subscription."""

    _raw: nats.aio.subscription.Subscription

    async def unsubscribe(self) -> None:
        with contextlib.suppress(nats.errors.Error):
            await self._raw.unsubscribe()


def _message(raw: nats.aio.msg.Msg) -> Message:
    return Message(raw.subject, raw.data, raw.headers or {}, raw.reply)


@asynccontextmanager
async def connect(
    servers: list[str],
    *,
    name: str,
    seed: str | None = None,
    token: str | None = None,
    inbox_prefix: str = "_INBOX",
    timeout: float | None = None,
) -> AsyncIterator[Nats]:
    """Connect as a service (`seed`, an nkey) or as a user (`token`); reconnects for ever.

    Waits until a server answers, at most `timeout` seconds. Raises Refused if the server refuses
    the credentials, Unavailable if none answers in time, ConfigError if the server is older than
    `streams.MIN_SERVER_VERSION`.
    """
    client = nats.aio.client.Client()
    connection = Nats(client, inbox_prefix)
    refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def failed(error: Exception) -> None:
        logger.warning(
            "NATS reports a failure",
            extra={"action": "nats.error", "client": name, "error": str(error)},
        )
        if "authorization" in str(error).lower() and not refused.done():
            refused.set_result(None)

    options: dict[str, Any] = {
        "name": name,
        "token": token,
        "inbox_prefix": inbox_prefix.encode(),
        "max_reconnect_attempts": -1,
        "connect_timeout": 5,  # the server itself says no after 2 s: let it be heard
        "reconnect_time_wait": 0.25,
        "ping_interval": 20,
        "pending_size": _OUTGOING_BYTES,
        "error_cb": failed,
        "disconnected_cb": connection._lost,
        "reconnected_cb": connection._regained,
        "closed_cb": connection._ended,
    }
    if seed:
        options["nkeys_seed_str"] = seed
    connecting = asyncio.ensure_future(client.connect(servers, **options))
    await asyncio.wait((connecting, refused), timeout=timeout, return_when="FIRST_COMPLETED")
    try:
        if not connecting.done():
            raise (Refused if refused.done() else Unavailable)("no NATS server lets us in")
        with _translate():
            await connecting
        streams.require_version(client.connected_server_version)
        connection._standing.set()
        yield connection
    finally:
        connecting.cancel()
        refused.cancel()
        await connection._close()
