# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A tape of what goes over the wire between running services and a right client.

Names, times, cursors and numbers of one run are replaced by others, in the order in which they
come, so that a second recording is equal to the first. What the client says is what a right one
has to say. `situations` brings them about.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

WITHIN = 120.0
ID = "what-the-client-calls-it"
REQUEST = 424_242
_CURSOR = re.compile(r'(?<="cursor": ")[^"]+')
_ROW = re.compile(r'(?<="id": )\d+(?=, "uuid": "[a-z0-9]{5}-57u5n-)')
_TIME = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_UUID = re.compile(r"(?<![a-z0-9])[a-z0-9]{5}-[a-z0-9]{5}-[a-z0-9]{15}(?![a-z0-9])")


class Tape:
    """What went over the wire in one situation."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.steps: list[dict[str, Any]] = []

    @asynccontextmanager
    async def line(self, url: str, subprotocol: str | None = None) -> AsyncIterator[Line]:
        """One connection."""
        chosen = [Subprotocol(subprotocol)] if subprotocol else None
        async with connect(url, subprotocols=chosen, max_size=None) as socket:
            yield Line(self, socket)

    def lines(self, head: dict[str, Any], right: str, **more: Any) -> list[dict[str, Any]]:
        """The lines of a file of frames."""
        text = "\n".join(json.dumps(step) for step in [head, *_placed(self.steps)])
        given = {self.token: "$token", ID: "$id", str(REQUEST): '"$r"'}
        for mine, other in given.items():
            text = text.replace(mine, other)
        first, *steps = [json.loads(line) for line in _tidy(text).split("\n")]
        told = "".join(printed(step["server"]) for step in steps if "server" in step)
        return [first, *steps, {"right": right, "prints": told, **more}]


class Line:
    """A connection that is recorded."""

    def __init__(self, tape: Tape, socket: ClientConnection) -> None:
        self._steps = tape.steps
        self._socket = socket

    async def say(self, message: Any, *, needed: Any = None) -> None:
        """Send a message; `needed`: what of it a right client has to say."""
        self._steps.append({"client": needed or message})
        await self._socket.send(json.dumps(message))

    async def hear(self, wanted: Callable[[Any], Any]) -> Any:
        """Note what comes, up to the message that is wanted."""
        async with asyncio.timeout(WITHIN):
            while True:
                told = json.loads(await self._socket.recv())
                if told == {"ping": {}}:
                    await self._socket.send('{"pong": {}}')
                    continue
                self._steps.append({"server": told})
                if wanted(told):
                    return told

    async def hear_the_end(self) -> None:
        """Note what comes until the server closes."""
        try:
            await self.hear(lambda _: False)
        except ConnectionClosed:
            self._steps.append({"close": self._socket.close_code})

    def cut(self) -> None:
        """The line is lost."""
        self._socket.transport.abort()
        self._steps.append({"cut": True})


def printed(told: Any) -> str:
    """What a right client prints of a message; README.md."""
    if isinstance(told, list):
        told = told[5] if told[0] == 36 else {}
    match told:
        case {"log": {"text": text}}:
            return str(text)
        case {"event": event} | {"event_type": _, **event} if event:
            kind = told.get("event_type") or event["event_type"]
            return f"{kind} {event['object_uuid']}\n"
        case {"gone": {"uuid": uuid}}:
            return f"gone {uuid}\n"
        case {"gap": _}:
            return "gap\n"
        case {"revoked": {"id": _}}:
            return "revoked\n"
    return ""


def _placed(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """WAMP's numbers of a session, a subscription and publications, by place."""
    publications: dict[int, int] = {}
    placed = []
    for step in steps:
        told = step.get("server")
        if isinstance(told, list):
            told = list(told)
            match told[0]:
                case 2:
                    told[1] = 4711
                case 33:
                    told[2] = 77
                case 36:
                    told[1:3] = 77, publications.setdefault(told[2], len(publications) + 1)
            step = {"server": told}
        placed.append(step)
    return placed


def _tidy(text: str) -> str:
    """A text with names that are the same in each recording."""
    for number, cursor in enumerate(dict.fromkeys(_CURSOR.findall(text)), 1):
        text = text.replace(cursor, f"c{number}")
    rows = list(dict.fromkeys(_ROW.findall(text)))
    text = _ROW.sub(lambda found: str(rows.index(found[0]) + 1), text)
    text = re.sub(r'(?<="last_log_id": )\d+', lambda found: str(rows.index(found[0]) + 1), text)
    text = _TIME.sub(lambda found: f"2026-03-01T12:00:00{'.000000' * bool(found[1])}Z", text)
    known: dict[str, str] = {}
    counts: dict[str, int] = {}
    for uuid in _UUID.findall(text):
        if uuid not in known:
            infix = uuid[6:11]
            counts[infix] = counts.get(infix, 0) + 1
            known[uuid] = f"zzzzz-{infix}-{counts[infix]:015d}"
    return _UUID.sub(lambda found: known[found[0]], text)
