# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Readers in a storm: they hold on to their places, come back whenever they are cut off, as any
client does, and tell `took` what they got."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
from collections.abc import Callable
from typing import Any

import nats.errors
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from arvados_nats.protocol_v1.messages import SUBPROTOCOL
from sandbox.model.actors import Actor
from sandbox.model.records import Record
from tests.support.clients.documented import arvados_live

EVENTS, PROJECT, LOG = "events", "project", "log"
"""What alice does at home, what she does in a project, and one log of hers."""
FILE = "stdout.txt"

Take = Callable[..., None]


class Reader:
    """A client of protocol v1 that never gives up, and forgets no place."""

    def __init__(self, name: str, base: str, who: Actor, request: Record, took: Take) -> None:
        self.name = name
        self._base = base
        self._who = who
        self._request = request
        self._took = took
        self._cursor: str | None = None
        self._place: dict[str, int] = {}
        self._line = b""

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            with contextlib.suppress(OSError, WebSocketException, TimeoutError):
                await self._session()
            await asyncio.sleep(0.2)

    async def _session(self) -> None:
        async with connect(
            f"{self._base}/v1/stream",
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            max_size=None,
            open_timeout=5,
            ping_interval=5,
            ping_timeout=10,
        ) as socket:
            await socket.send(json.dumps({"auth": {"token": self._who.token}}))
            async for frame in socket:
                ((key, body),) = json.loads(frame).items()
                if key == "hello":
                    for wanted in self._subscriptions():
                        await socket.send(json.dumps({"subscribe": wanted}))
                elif key == "ping":
                    await socket.send('{"pong":{}}')
                elif key == "error" and body.get("temporary"):
                    return
                else:
                    self._handle(key, body)

    def _subscriptions(self) -> list[dict[str, Any]]:
        events = {"cursor": self._cursor} if self._cursor else {"begin": "now"}
        log: dict[str, Any] = {"uuid": self._request.uuid}
        if self._place:
            log["from"] = {FILE: self._place}
        return [{"id": EVENTS, "events": events}, {"id": LOG, "log": log}]

    def _handle(self, key: str, body: dict[str, Any]) -> None:
        self._cursor = body.get("cursor", self._cursor)
        if key == "event" and body["event_type"] == "create":
            self._took("read", reader=self.name, uuid=body["object_uuid"])
        elif key == "gap":
            if body.get("file"):
                self._place, self._line = {}, b""
            self._took("gap", reader=self.name)
        elif key == "log" and body["file"] == FILE:
            self._bytes(body)

    def _bytes(self, body: dict[str, Any]) -> None:
        data = base64.b64decode(body["base64"]) if "base64" in body else body["text"].encode()
        at = body["offset"]
        if self._place and at != self._place["offset"]:
            self._line = b""
        self._place = {"epoch": body["epoch"], "offset": body["next"]}
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            number = line.rpartition(b" ")[2]
            if number.isdigit():
                self._took("read", reader=self.name, stream=LOG, n=int(number))


class NativeReader:
    """The Python program of docs/clients, of what alice has at home."""

    def __init__(self, name: str, url: str, who: Actor, took: Take) -> None:
        self.name = name
        self._url = url
        self._who = who
        self._took = took

    async def run(self) -> None:
        """Read until cancelled."""
        arvados_live.say = self._said
        arvados_live.token_now = lambda: self._who.token
        arvados_live.RECONCILE_SECONDS = 6.0
        events = arvados_live.Events(self._who.uuid)
        while True:
            connection = arvados_live.Connection(self._url)
            with contextlib.suppress(OSError, nats.errors.Error, TimeoutError):
                await connection.open()
                async for event in events.follow(connection):
                    if event["event_type"] == "create":
                        self._took("read", reader=self.name, uuid=event["object_uuid"])
                await connection.close()
            await asyncio.sleep(random.uniform(0.5, 1))

    def _said(self, text: str) -> None:
        if text.startswith("gap"):
            self._took("gap", reader=self.name)
