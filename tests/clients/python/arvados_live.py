# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Follow an Arvados project, or a container's log file, with a native NATS connection.

Needs nats-py 2.16. Reads NATS_URL and ARVADOS_API_TOKEN; or ARVADOS_API_TOKEN_FILE, anew for each
connection, and ARVADOS_USER_UUID, so that a token is renewed without a new start.

    python arvados_live.py events PROJECT_UUID       one JSON line for each change, each once
    python arvados_live.py log CONTAINER_UUID FILE   the bytes of the file, each once

What happens to the connection is said on standard error.
"""

import asyncio
import json
import os
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

RECONCILE_SECONDS = float(os.environ.get("RECONCILE_SECONDS", "60"))
AGAIN_SECONDS = 2.0
"""Until history is asked again that was not answered."""
WAITING = 10_000
"""Live messages that may wait for a slow handler."""


class NotAnswered(Exception):
    """Arvados-NATS says why a request has no answer, or nobody is there to say it."""

    def __init__(self, text: str, temporary: bool) -> None:
        super().__init__(text)
        self.temporary = temporary


def say(text: str) -> None:
    sys.stderr.write(f"* {text}\n")
    sys.stderr.flush()


def token_now() -> str:
    """The token that holds now: v2/<uuid>/<secret>."""
    file = os.environ.get("ARVADOS_API_TOKEN_FILE")
    return Path(file).read_text().strip() if file else os.environ["ARVADOS_API_TOKEN"]


def inbox_prefix() -> bytes:
    """Where answers come: named by the user, whose name stays, or else by the token."""
    named = os.environ.get("ARVADOS_USER_UUID") or [*token_now().split("/"), ""][1]
    if not named:
        sys.exit("* not a token of the form v2/<uuid>/<secret>")
    return f"_INBOX_{named}".encode()


class Connection:
    """Two connections that come back for as long as the program runs: one listens, one asks.

    Who listens may publish nothing, and who asks hears nothing but answers, so nobody can have
    the services' answers heard as events.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.nats: Client
        self.asking: Client
        self.messages: asyncio.Queue[Msg | None] = asyncio.Queue(WAITING)
        """Live messages in order; None when history has to be read."""
        self.denied = False
        """The server does not let us subscribe: a permission is missing."""

    async def open(self) -> None:
        """Connect; the library asks for the token again whenever it connects anew."""
        inbox = inbox_prefix()
        options: dict[str, Any] = {
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": random.uniform(1, 3),
            "ping_interval": 5,  # a line that fell silent is given up after 15 s
            "closed_cb": self._closed,
        }
        self.nats = await nats.connect(
            self.url,
            token=token_now,
            error_cb=self._failed,
            disconnected_cb=self._lost,
            reconnected_cb=self._back,
            **options,
        )
        self.asking = await nats.connect(
            self.url,
            user="api",
            password=token_now,
            inbox_prefix=inbox,
            error_cb=self._not_asked,
            reconnected_cb=self._asking_back,
            **options,
        )
        say("connected")

    @property
    def is_closed(self) -> bool:
        return self.nats.is_closed or self.asking.is_closed

    async def close(self) -> None:
        await self.nats.close()
        await self.asking.close()

    async def listen(self, subject: str) -> None:
        """Put what comes live into `messages`."""
        await self.nats.subscribe(subject, cb=self._take)
        await self.nats.flush()  # from here on nothing is missed

    async def ask(
        self, subject: str, **request: Any
    ) -> AsyncIterator[tuple[dict[str, str], bytes]]:
        """The messages of one answer, each as (headers, bytes)."""
        inbox = self.asking.new_inbox()
        answers = await self.asking.subscribe(inbox)
        try:
            await self.asking.publish(subject, json.dumps(request).encode(), reply=inbox)
            while True:
                message = await answers.next_msg(timeout=10)
                headers = message.headers or {}
                if headers.get("Status") == "503":
                    raise NotAnswered("nobody answers", temporary=True)
                if "Arvados-Error" in headers:
                    found = json.loads(message.data)
                    raise NotAnswered(found["error"], found["temporary"])
                yield headers, message.data
                if "Arvados-End" in headers:
                    return
        except nats.errors.TimeoutError as error:
            raise NotAnswered("the answer does not come", temporary=True) from error
        finally:
            await answers.unsubscribe()

    async def _take(self, message: Msg | None = None) -> None:
        if self.messages.full():  # history tells what is not taken in time
            while not self.messages.empty():
                self.messages.get_nowait()
            message = None
        self.messages.put_nowait(message)

    async def _failed(self, error: Exception) -> None:
        text = str(error).lower()
        if "permissions violation for subscription" in text:
            self.denied = True
            say("denied")
        elif "authorization" in text:
            say("refused")

    async def _not_asked(self, error: Exception) -> None:
        say(f"asking: {error}")

    async def _asking_back(self) -> None:
        await self._take()  # a question may have been lost

    async def _lost(self) -> None:
        self.denied = False  # subscriptions are sent again with the next connection
        say("disconnected")

    async def _back(self) -> None:
        await self.nats.flush()  # a refusal comes before the answer to this
        say("connected")
        await self._take()

    async def _closed(self) -> None:
        say("closed")  # nats-py gives up on some refusals: end, and let the caller start anew
        await self._take()


class Events:
    """What happens in a project, each event once, over every interruption.

    In order, but for what was lost on its way: history tells that later.
    """

    def __init__(self, project_uuid: str) -> None:
        self.project_uuid = project_uuid
        self.place: dict[str, str] = {"begin": "now"}
        """Where history goes on; {"begin": "oldest"} for all that is kept."""
        self.told = 0
        """History has told everything up to this sequence."""
        self.ahead: set[int] = set()
        """Sequences above it that were told, most of them live."""

    @property
    def subject(self) -> str:
        share = owner = self.project_uuid  # the project itself is what was shared
        return f"arvados.live.{share}.{owner}.*.event.>"

    def new(self, headers: dict[str, str], data: bytes) -> Any:
        """The event in a message; None if it was told before, or is none that we know."""
        try:
            sequence, event = int(headers["Nats-Sequence"]), json.loads(data)
        except (KeyError, ValueError) as error:
            say(f"left out: {error!r}")
            return None
        if sequence <= self.told or sequence in self.ahead:
            return None  # a container in two requests comes twice, and so may all after a restart
        self.ahead.add(sequence)
        return event

    async def history(self, connection: Connection) -> AsyncIterator[Any]:
        """The events that did not come live, up to now."""
        more = True
        while more:
            request = {"owners": [self.project_uuid], "limit": 1000, **self.place}
            async for headers, data in connection.ask("arvados.api.events", **request):
                if "Arvados-Gap" in headers:
                    say(f"gap: {headers['Arvados-Gap']}")
                    self.told, self.ahead = 0, set()
                elif "Arvados-End" in headers:
                    self.place = {"cursor": headers["Arvados-End"]}
                    self.told = int(headers["Nats-Sequence"])
                    self.ahead = {one for one in self.ahead if one > self.told}
                    more = headers["Arvados-More"] == "true"
                elif event := self.new(headers, data):
                    self.place = {"cursor": headers["Arvados-Cursor"]}
                    yield event

    async def follow(self, connection: Connection) -> AsyncIterator[Any]:
        """All events from now on, until the connection is closed for good."""
        await connection.listen(self.subject)
        now = asyncio.get_running_loop().time
        due = now()
        while not connection.is_closed:
            if now() >= due:  # live messages can be lost: ask now and then, however many come
                due = now() + random.uniform(0.8, 1.2) * RECONCILE_SECONDS
                try:
                    if not connection.denied:  # else it is told when we may see it again
                        async for event in self.history(connection):
                            yield event
                        say("caught up")
                except NotAnswered as error:
                    say(f"history: {error}")
                    due = now() + random.uniform(0.5, 1) * AGAIN_SECONDS
            try:
                message = await asyncio.wait_for(connection.messages.get(), max(due - now(), 0))
            except TimeoutError:
                continue
            if message is None:
                due = now()
            elif event := self.new(message.headers or {}, message.data):
                yield event


class Log:
    """The bytes of one log file of a container, each once and in order."""

    def __init__(self, uuid: str, file: str) -> None:
        self.uuid = uuid
        self.file = file
        self.epoch: int | None = None
        """How often the file began anew, once an answer or a live message has said it."""
        self.offset = 0
        self.gap = False
        """What comes next in an answer may begin behind our place."""
        self.ended = False

    def new(self, headers: dict[str, str], data: bytes, *, asked: bool = False) -> bytes | None:
        """The bytes of a message that are new; None if others have to come before them."""
        try:
            epoch, offset = int(headers["Arvados-Epoch"]), int(headers["Arvados-Offset"])
        except (KeyError, ValueError) as error:
            say(f"left out: {error!r}")
            return b""
        place = self.epoch or 0, self.offset
        if (epoch, offset) > place and not (asked and (self.gap or epoch > place[0])):
            return None
        if self.epoch is None or (epoch, offset) > place:
            self.epoch, self.offset = epoch, offset
        new = data[self.offset - offset :] if epoch == self.epoch else b""
        self.offset += len(new)
        self.gap = False
        return new

    async def history(self, connection: Connection) -> AsyncIterator[bytes]:
        """The bytes that the stream has from our place on."""
        more = True
        while more:
            self.gap = False
            place = {"offset": self.offset, "epoch": self.epoch}
            request = {"uuid": self.uuid, "file": self.file, **place}
            async for headers, data in connection.ask("arvados.api.logs", **request):
                if "Arvados-Gap" in headers:  # GET Arvados-Log-Path of Arvados' API with `Range`
                    say(f"gap: bytes {headers['Arvados-Gap']} of {headers.get('Arvados-Log-Path')}")
                    self.gap = True
                    continue
                # The end has no bytes, but the place behind them.
                at = {"Arvados-Offset": end} if (end := headers.get("Arvados-End")) else {}
                new = self.new({**headers, **at}, data, asked=True)
                if new is None:
                    raise NotAnswered("a part of the answer is missing", temporary=True)
                yield new
                more = headers.get("Arvados-More") == "true"
                self.ended = headers.get("Arvados-Ended") == "true"

    def live(self, message: Msg) -> bytes | None:
        """Bytes of a live message that are new; None if history has to tell what is before them."""
        headers, container = message.headers or {}, message.subject.split(".")[-2]
        named = headers.get("Arvados-Container", container)
        if "Nats-Sequence" not in headers or named != container:
            say(f"left out: {message.subject}")
            return b""
        if "Arvados-End" in headers:
            return None  # the container is over: history says when we have all
        return self.new(headers, message.data)

    async def follow(self, connection: Connection) -> AsyncIterator[bytes]:
        """All bytes, until the container has ended."""
        listens, due = False, True
        while not connection.is_closed:
            try:
                if not listens:
                    await self._listen(connection)
                    listens = True
                if due:
                    async for data in self.history(connection):
                        yield data
            except NotAnswered as error:
                if not error.temporary:
                    raise
                say(f"history: {error}")
            if self.ended:
                return
            new = await self._next(connection)
            due = new is None
            if new:
                yield new

    async def _listen(self, connection: Connection) -> None:
        """Hear the file as it grows; the answer says where. `end` tells when it is over."""
        async for headers, _ in connection.ask("arvados.api.logs", uuid=self.uuid, file=self.file):
            if "Arvados-Live" in headers:
                subject = headers["Arvados-Live"]
                await connection.listen(subject)
                await connection.listen(subject.rpartition(".")[0] + ".end")

    async def _next(self, connection: Connection) -> bytes | None:
        try:
            message = await asyncio.wait_for(connection.messages.get(), RECONCILE_SECONDS / 4)
        except TimeoutError:
            return None
        return None if message is None else self.live(message)


async def main(what: str, uuid: str, *rest: str) -> None:
    followed: Any = Events(uuid) if what == "events" else Log(uuid, *rest)
    while not getattr(followed, "ended", False):
        connection = Connection(os.environ["NATS_URL"])
        await connection.open()
        async for found in followed.follow(connection):
            data = found if isinstance(found, bytes) else json.dumps(found).encode() + b"\n"
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        await connection.close()
        await asyncio.sleep(random.uniform(1, 5))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
