# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""JetStream over an open connection: messages into streams, and what streams hold.

History is read by batched direct get, which leaves no consumer on the server (docs/facts/nats.md);
live messages are plain subscriptions to what the streams republish (`client`).
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

import nats.aio.msg
import nats.aio.subscription
import nats.errors
from nats.nuid import NUID

from arvados_nats.errors import ArvadosNatsError, Unavailable
from arvados_nats.nats import acks as nats_acks
from arvados_nats.nats import history as nats_history
from arvados_nats.nats import inbox as nats_inbox
from arvados_nats.nats.acks import Ack, JetStreamError
from arvados_nats.nats.connection_state import Standing
from arvados_nats.nats.errors import cancellable, require_sendable, translated
from arvados_nats.nats.history import StoredMessage
from arvados_nats.nats.parser import Client, parse_headers

REQUEST_TIMEOUT = 5.0
_AGAIN = 0.5
"""Seconds after which JetStream is asked once more: a server says nothing at all about a stream
that is being made, or has no leader just now (docs/facts/nats.md)."""
_REPEATABLE = ("INFO", "STREAM.INFO.", "STREAM.CREATE.", "STREAM.UPDATE.", "STREAM.MSG.GET.")
"""What may be asked twice: nothing more comes of it."""
_STREAM_NOT_FOUND, _NO_MESSAGE_FOUND = 10059, 10037
_LATE_PAUSES = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Seconds to wait for a copy of a stream that lacks what its leader has."""


class JetStream:
    """The streams that a connection reaches; it is a `client.Nats`."""

    def __init__(self, client: Client, inbox_prefix: str, standing: Standing) -> None:
        self._client = client
        self.until_connected = standing.until_connected
        self._acks = nats_acks.Acks(f"{inbox_prefix}.{NUID().next().decode()}")
        self._ack_subscription: nats.aio.subscription.Subscription | None = None

    async def publish_stored(
        self, subject: str, data: bytes, headers: dict[str, str] | None = None
    ) -> asyncio.Future[Ack]:
        """Publish to a stream without waiting; the future gives the server's acknowledgement.

        A refusal (for example a failed expectation of the last sequence) sets `JetStreamError`.
        The future has no deadline: the caller waits for it with one and cancels it, which frees
        its place.
        """
        if self._ack_subscription is None:
            with translated():
                self._ack_subscription = await self._client.subscribe(self._acks.pattern)
                self._client.taken[self._ack_subscription._id] = self._acknowledge
        reply, future = self._acks.expect()
        try:
            await self._send(subject, data, reply, headers)
        except ArvadosNatsError:
            future.cancel()
            raise
        return future

    async def _send(
        self, subject: str, data: bytes, reply: str, headers: dict[str, str] | None
    ) -> None:
        require_sendable(subject, reply, data, headers, self._client.max_payload)
        with translated():
            await self._client.publish(subject, data, reply=reply, headers=headers)

    def _acknowledge(self, raw: nats.aio.msg.Msg) -> None:
        self._acks.arrived(raw.subject, raw.headers or {}, raw.data)

    async def js_api(
        self, name: str, body: Any = None, *, api_level: int | None = None
    ) -> dict[str, Any]:
        """Call the JetStream API `$JS.API.<name>`; JetStreamError if it refuses."""
        headers = {"Nats-Required-Api-Level": str(api_level)} if api_level else None
        payload = b"" if body is None else json.dumps(body).encode()
        again = _AGAIN if name.startswith(_REPEATABLE) else None
        answer = await self._ask(f"$JS.API.{name}", payload, headers, again=again)
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

        It is named in the request's subject, since only that form can be permitted to a client that
        is not trusted (docs/facts/nats-callout.md 3, row 15).
        """
        answer = await self._ask(f"$JS.API.DIRECT.GET.{stream}.{subject}", again=_AGAIN)
        return nats_history.parse(answer.headers or {}, answer.data)

    async def next(self, stream: str, subject: str, first: int) -> StoredMessage | None:
        """The first stored message of `subject` (wildcards allowed) from sequence `first` on."""
        body = json.dumps({"seq": max(first, 1), "next_by_subj": subject})
        answer = await self._ask(f"$JS.API.DIRECT.GET.{stream}", body.encode(), again=_AGAIN)
        return nats_history.parse(answer.headers or {}, answer.data)

    def history(
        self,
        stream: str,
        subject: str,
        *,
        first: int = 1,
        until: int | None = None,
        batch: int = 1000,
    ) -> AsyncIterator[StoredMessage]:
        """Stored messages of `subject` (wildcards allowed) in order, until none is left now.

        From sequence `first` on. Read in pages of at most `batch` messages. With `until`: up to
        there nothing is missing, however late a copy of the stream is (`whole_page`).
        """
        page = functools.partial(self.page, stream)
        if until is not None:
            page = functools.partial(self.whole_page, stream, until=until)
        return nats_history.read(
            page,
            first,
            {"next_by_subj": subject, "batch": batch, "max_bytes": nats_history.BATCH_BYTES},
        )

    async def page(self, stream: str, body: dict[str, Any]) -> nats_history.Page:
        """One batched direct get: `{"seq", "next_by_subj", "batch"}` or `{"multi_last", …}`."""
        page: list[StoredMessage] = []
        question = json.dumps(body).encode()
        with translated():
            async with nats_inbox.opened(self._client) as inbox:
                with cancellable():
                    await self._client.publish(
                        f"$JS.API.DIRECT.GET.{stream}", question, reply=inbox.subject
                    )
                while True:
                    raw = await inbox.next(REQUEST_TIMEOUT)
                    headers = raw.headers or {}
                    stored = nats_history.parse(headers, raw.data)
                    if stored is None:
                        return page, nats_history.pending(headers)
                    page.append(stored)

    async def whole_page(self, stream: str, body: dict[str, Any], until: int) -> nats_history.Page:
        """A page (`seq`, `next_by_subj`) that lacks nothing which the stream has up to `until`.

        Any server with a copy of the stream answers a direct get, and a copy may be late; that
        something is not there is its leader's word alone. Raises Unavailable where it stays late.
        """
        for pause in (*_LATE_PAUSES, 0.0):
            messages, left = await self.page(stream, body)
            reached = messages[-1].sequence if messages else body["seq"] - 1
            if left or reached >= until:
                return messages, left
            question = {"seq": reached + 1, "next_by_subj": body["next_by_subj"]}
            following = await self._of_leader(stream, question)
            if following is None or following.sequence > until:
                return messages, left
            await asyncio.sleep(pause)
        raise _late(stream)

    async def last_of_each(self, stream: str, subjects: Iterable[str]) -> list[StoredMessage]:
        """The last stored message of each of these subjects that has one, however late a copy is:
        one that has the last of all has these. Raises Unavailable where it stays late."""
        wanted = set(subjects)
        newest = await self.last_of_leader(stream, ">")
        if newest is None:
            return []
        asked = [*wanted, *({newest.subject} - wanted)]
        for pause in (*_LATE_PAUSES, 0.0):
            messages, _ = await self.page(stream, {"multi_last": asked, "batch": len(asked)})
            if any(found.sequence >= newest.sequence for found in messages):
                return [found for found in messages if found.subject in wanted]
            await asyncio.sleep(pause)
        raise _late(stream)

    async def last_of_leader(self, stream: str, subject: str) -> StoredMessage | None:
        """The last stored message of a subject (wildcards allowed), by the leader's word."""
        return await self._of_leader(stream, {"last_by_subj": subject})

    async def at(self, stream: str, sequence: int) -> StoredMessage | None:
        """The message with this sequence, by the leader's word; None: it is gone, or never was."""
        return await self._of_leader(stream, {"seq": sequence})

    async def first_since(self, stream: str, subject: str, moment: str) -> int | None:
        """Sequence of the first message stored since a time (RFC 3339), by the leader's word."""
        found = await self._of_leader(stream, {"start_time": moment, "next_by_subj": subject})
        return None if found is None else found.sequence

    async def _of_leader(self, stream: str, question: dict[str, Any]) -> StoredMessage | None:
        """All ask the one server that leads the stream: only what no copy can tell."""
        try:
            found = (await self.js_api(f"STREAM.MSG.GET.{stream}", question))["message"]
        except JetStreamError as error:
            if error.code == _NO_MESSAGE_FOUND:
                return None
            raise
        headers = parse_headers(base64.b64decode(found.get("hdrs", "")))
        data = base64.b64decode(found.get("data", ""))
        return StoredMessage(int(found["seq"]), found["subject"], found["time"], headers, data)

    async def _ask(
        self,
        subject: str,
        data: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        timeout: float = REQUEST_TIMEOUT,
        again: float | None = None,
    ) -> nats.aio.msg.Msg:
        """Nothing is asked while the connection is away: the library would keep the questions,
        and ask all of an outage at once when it is over."""
        with translated():
            async with asyncio.timeout(timeout):
                if self._client.is_reconnecting:
                    await self.until_connected()
                return await nats_inbox.ask(self._client, subject, data, headers, again=again)


def _late(stream: str) -> Unavailable:
    return Unavailable(f"a copy of the stream {stream} is behind its leader")
