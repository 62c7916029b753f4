# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whether the parts of a running installation find each other: what `helm test` runs.

A message goes to NATS and comes back as one of our identities; the publishers answer, both streams
are there, and the server has the right time; wsproxy answers like arvados-ws, and sends away a
token that nobody has.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import ssl
import time

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

from arvados_nats import trust, urls
from arvados_nats.admin import clocks
from arvados_nats.arvados.tokens import NOBODY
from arvados_nats.contract import streams
from arvados_nats.errors import ArvadosNatsError, ConfigError, Unavailable, said
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Message, Nats
from arvados_nats.permissions import object_facts
from arvados_nats.service import publisher_health

_WITHIN_SECONDS = 10.0
_CLOCK = "clock of NATS"
_PROTOCOL = Subprotocol("arvados.events.v1.json")
_TOKEN_INVALID = 4501

Findings = dict[str, str | None]
"""What was looked at -> what is wrong with it, or None; a `Note` is nothing wrong."""


class Note(str):
    """What is worth saying of something that is well."""

    __slots__ = ()


async def nats(
    servers: list[str], seed: str, *, logs: bool = True, ca_file: str | None = None
) -> Findings:
    """Whether `wsproxy` can log in to NATS, hears itself, is answered, and finds the streams.

    `logs`: whether container logs are to be there; without a log token nobody reads them.
    """
    found: Findings = dict.fromkeys(("NATS", "publishers", streams.EVENTS, streams.LOGS))
    try:
        async with nats_client.connect(
            servers,
            name="arvados-nats check",
            seed=seed,
            timeout=_WITHIN_SECONDS,
            ca_file=ca_file,
        ) as connection:
            await _round_trip(connection)
            found["publishers"] = await publisher_health.unanswered(connection)
            for stream in (streams.EVENTS, streams.LOGS):
                asked = time.time()  # noqa: TID251  (clocks are compared)
                info = await connection.stream_info(stream)
                if info is None and stream == streams.LOGS and not logs:
                    found[stream] = Note("not looked at, since no log token is set")
                elif info is None:
                    found[stream] = "does not exist yet: do the publishers run?"
                elif theirs := object_facts.timestamp(info.get("ts")):
                    answered = time.time()  # noqa: TID251
                    found[_CLOCK] = clocks.wrong(clocks.ahead(asked, theirs, answered))
    except ArvadosNatsError as error:
        return {"NATS": str(error)}
    return found


async def _round_trip(connection: Nats) -> None:
    subject, came = f"arvados.check.{secrets.token_hex(8)}", asyncio.Event()

    async def heard(_: Message) -> None:
        came.set()

    await connection.subscribe(subject, heard)
    await connection.publish(subject)
    try:
        async with asyncio.timeout(_WITHIN_SECONDS):
            await came.wait()
    except TimeoutError as error:
        raise Unavailable("a message that was published did not come back") from error


async def proxy(url: str, *, ca_file: str | None = None) -> Findings:
    """Whether wsproxy at `ws[s]://host[:port]` answers, and refuses a false token."""
    base = place(url)
    try:
        trusted = trust.authority(ca_file) if base.startswith("s:") else None
    except ConfigError as error:
        return {"wsproxy": str(error)}
    return {
        "wsproxy over HTTP": await _plain_request(f"http{base}/websocket", trusted),
        "wsproxy over WebSocket": await _false_token(f"ws{base}/v1/stream", trusted),
    }


def place(url: str) -> str:
    """From `ws://host/…` to `://host`, from `wss://…` to `s://host`; ConfigError for others."""
    parts = urls.split(url)
    if parts.scheme not in ("ws", "wss") or not parts.netloc:
        raise ConfigError(f"--proxy: {url!r} is no ws:// or wss:// address")
    return f"{parts.scheme.removeprefix('ws')}://{parts.netloc}"


async def _plain_request(url: str, trusted: ssl.SSLContext | None) -> str | None:
    try:
        async with httpx.AsyncClient(timeout=_WITHIN_SECONDS, verify=trusted or True) as client:
            answer = await client.get(url)
    except httpx.HTTPError as error:
        return f"{url} does not answer: {said(error)}"
    if "not websocket protocol" not in answer.text:
        return f"{url} is answered by something else, with status {answer.status_code}"
    return None


async def _false_token(url: str, trusted: ssl.SSLContext | None) -> str | None:
    try:
        async with asyncio.timeout(_WITHIN_SECONDS):
            accepted, code = await _try_token(url, trusted)
    except TimeoutError:
        return f"{url} gave no answer to a false token: does it reach Arvados?"
    except (OSError, WebSocketException) as error:
        return f"{url} takes no WebSocket: {said(error)}"
    if accepted:
        return f"{url} accepts a token that nobody has"
    if code != _TOKEN_INVALID:
        return f"{url} closed with {code} instead of refusing a false token"
    return None


async def _try_token(url: str, trusted: ssl.SSLContext | None) -> tuple[bool, int | None]:
    """Whether a false token is welcomed, and the code that the connection is closed with."""
    async with connect(url, subprotocols=[_PROTOCOL], ssl=trusted) as socket:
        await socket.send(json.dumps({"auth": {"token": NOBODY.secret}}))
        with contextlib.suppress(ConnectionClosed):
            async for text in socket:
                if "hello" in json.loads(text):
                    return True, None
        return False, socket.close_code
