# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A connection to NATS: messages out, requests, and live messages in.

Everything here either works or raises one of the four kinds of `errors`; this module, `parser`,
`inbox` and `jetstream` are all that knows the client library, and `errors` of this folder its
exceptions.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import nats.aio.msg
import nats.aio.subscription
import nats.errors

from arvados_nats import trust
from arvados_nats.contract import accounts, streams
from arvados_nats.errors import ArvadosNatsError, Refused, Unavailable, said
from arvados_nats.nats import inbox as nats_inbox
from arvados_nats.nats import parser
from arvados_nats.nats.connection_state import Standing
from arvados_nats.nats.errors import cancellable, translated
from arvados_nats.nats.jetstream import REQUEST_TIMEOUT, JetStream

logger = logging.getLogger(__name__)
logger.addHandler(logging.NullHandler())  # for a person's command its own error is enough

Handler = Callable[["Message"], Awaitable[None]]
Secret = str | Callable[[], str] | None
"""A secret, or what gives it as it is now; asked at each login, so also when a server came back."""

_PENDING_MESSAGES = 1_000_000
_PENDING_BYTES = 256 * 1024 * 1024
_OUTGOING_BYTES = 64 * 1024 * 1024
_PING = b"PING\r\n"
_PING_SECONDS = 5.0
"""Who has not answered two of ours when the next is due is gone, though nothing says so."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it came: `headers` is empty where there are none."""

    subject: str
    data: bytes
    headers: Mapping[str, str]
    reply: str


class Nats(JetStream):
    """An open connection; get one from `connect`."""

    def __init__(self, client: parser.Client, inbox_prefix: str, standing: Standing) -> None:
        super().__init__(client, inbox_prefix, standing)
        self.on_change = standing.on_change
        self.until_closed = standing.until_closed
        self._leave = standing.leave

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
        """BadInput for what the server would not take."""
        await self._send(subject, data, reply, headers)

    async def request(
        self,
        subject: str,
        data: bytes = b"",
        *,
        timeout: float = REQUEST_TIMEOUT,
        headers: dict[str, str] | None = None,
    ) -> Message:
        return _message(await self._ask(subject, data, headers, timeout=timeout))

    async def request_all(
        self, subject: str, data: bytes = b"", *, window: float = 0.5
    ) -> AsyncIterator[Message]:
        """Every answer to one request that comes within `window` seconds of the one before."""
        with translated():
            async with nats_inbox.opened(self._client) as inbox:
                with cancellable():
                    await self._client.publish(subject, data, reply=inbox.subject)
                while True:
                    try:
                        raw = await inbox.next(window)
                    except TimeoutError:
                        return
                    yield _message(raw)

    async def flush(self, timeout: float = REQUEST_TIMEOUT) -> None:
        """Return when the server has handled all that was sent before: subscriptions are active.

        The library's own flush, cancelled or too late, lets the late answer end its read loop; and
        its ping overtakes commands that wait to be written, so here it is one of them.
        """
        if not self.connected:
            raise Unavailable("NATS is not connected")
        pong: asyncio.Future[bool] = asyncio.Future()
        with translated():
            async with asyncio.timeout(timeout):
                self._client._pongs.append(pong)
                with cancellable():
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

        with translated():
            raw = await self._client.subscribe(
                subject,
                queue=queue,
                cb=call,
                pending_msgs_limit=_PENDING_MESSAGES,
                pending_bytes_limit=_PENDING_BYTES,
            )
        return Subscription(raw)

    async def _close(self) -> None:
        """Everything sent is delivered if a server is there, then the connection is closed."""
        self._leave()
        try:
            with translated():
                await self._client.flush(timeout=1)
        except Unavailable:
            self._client.abort()
        with contextlib.suppress(Unavailable), translated():
            await self._client.close()


@dataclass(frozen=True, slots=True)
class Subscription:
    """An active subscription."""

    _raw: nats.aio.subscription.Subscription

    async def unsubscribe(self) -> None:
        await nats_inbox.end(self._raw)


def _message(raw: nats.aio.msg.Msg) -> Message:
    return Message(raw.subject, raw.data, raw.headers or {}, raw.reply)


@asynccontextmanager
async def connect(
    servers: list[str],
    *,
    name: str,
    seed: Secret = None,
    token: Secret = None,
    asks: bool = False,
    inbox_prefix: str = "_INBOX",
    timeout: float | None = None,
    ca_file: str | None = None,
    in_turn: int = 0,
) -> AsyncIterator[Nats]:
    """Connect as a service (`seed`, an nkey) or as a user (`token`); reconnects for ever.

    With a token one listens; to ask (`asks`) takes a connection of its own. `ca_file` names the
    authority of `tls://` servers, if it is a private one. `in_turn`: messages that are read before
    all else in the process has its turn, where anybody may send any number; 0 for all there are.

    Waits until a server answers, at most `timeout` seconds. Raises Refused if the server refuses
    the credentials, Unavailable if none answers in time, ConfigError if the server is older than
    `streams.MIN_SERVER_VERSION`.
    """
    refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    last: list[str] = []

    async def failed(error: Exception) -> None:
        last[:] = [said(error)]
        logger.warning(
            "NATS reports a failure",
            extra={
                "action": "nats.error",
                "client": name,
                "key": _public_key(seed),
                "error": str(error),
            },
        )
        if "authorization" in str(error).lower() and not refused.done():
            refused.set_result(None)

    options: dict[str, Any] = {
        "servers": servers,
        "name": name,
        "inbox_prefix": inbox_prefix.encode(),
        "max_reconnect_attempts": -1,
        "connect_timeout": 5,  # the server itself says no after 2 s: let it be heard
        "reconnect_time_wait": 0.25,
        "ping_interval": _PING_SECONDS,
        "pending_size": _OUTGOING_BYTES,
        "error_cb": failed,
    }
    options |= _credentials(seed, token, asks)
    if ca_file:
        options["tls"] = trust.authority(ca_file)
    entering = asyncio.ensure_future(_enter(options, inbox_prefix, seed, in_turn))
    await asyncio.wait((entering, refused), timeout=timeout, return_when="FIRST_COMPLETED")
    try:
        if not entering.done():
            raise _not_let_in(", ".join(servers), last, _public_key(seed), refused=refused.done())
        yield await entering
    finally:
        refused.cancel()
        entering.cancel()
        with contextlib.suppress(asyncio.CancelledError, ArvadosNatsError):
            await (await entering)._close()


def _public_key(seed: Secret) -> str | None:
    """By which the server knows who has the seed; it is no secret."""
    import nkeys

    text = seed() if callable(seed) else seed
    if not text:
        return None
    try:
        return str(nkeys.from_seed(text.encode()).public_key.decode())
    except nkeys.NkeysError:
        return "of no seed"


def _not_let_in(
    servers: str, last: list[str], key: str | None, *, refused: bool
) -> ArvadosNatsError:
    reason = f": {last[0]}" if last else ""
    if not refused:
        why = last[0] if last else "no answer in time"
        return Unavailable(f"no NATS server answers at {servers}: {why}")
    if key is None:
        return Refused(f"NATS at {servers} refuses this token{reason}")
    return Refused(
        f"NATS at {servers} does not know the key {key}: its nats.conf is of other keys, or it was"
        " not restarted since they were replaced"
    )


def _credentials(seed: Secret, token: Secret, asks: bool) -> dict[str, Any]:
    if seed:  # parser.Client asks for it again before each login
        return {"nkeys_seed_str": seed() if callable(seed) else seed}
    if token and asks:
        return {"user": accounts.ASKING_USER, "password": token}
    return {"token": token} if token else {}


async def _enter(options: dict[str, Any], inbox_prefix: str, seed: Secret, in_turn: int) -> Nats:
    """Connect until a server has let us in."""
    client = parser.Client(seed if callable(seed) else None, in_turn)
    standing = Standing()
    connection = Nats(client, inbox_prefix, standing)
    try:
        with translated():
            await client.connect(
                **options,
                disconnected_cb=standing.lost,
                reconnected_cb=standing.regained,
                closed_cb=standing.ended,
            )
        streams.require_version(client.connected_server_version)
    except BaseException:
        await connection._close()
        raise
    standing.begun()
    return connection
