# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Calls: what native clients ask of `arvados.api`, by the same names, and the history of a topic.

The keyword arguments are the JSON of the request there. The answer has the same messages, each with
its headers, and the headers of the last one as `end`. The judge is the same, and so is the number
of questions that one user may have under way.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import msgspec

from arvados_nats.contract import answers, events, subjects
from arvados_nats.contract.answers import Part
from arvados_nats.errors import ArvadosNatsError, BadInput, Refused, Unavailable
from arvados_nats.permissions.judge import Judge
from arvados_nats.protocol_v1.messages import NOT_READABLE
from arvados_nats.protocol_v1.requests import EventsTarget
from wsproxy.logins.logins import Login
from wsproxy.native_api.answers import OBJECT, SECONDS
from wsproxy.native_api.events import MAX_EVENTS
from wsproxy.native_api.log_parts import OFFSET
from wsproxy.services import Services
from wsproxy.subscriptions.event_subscription import event_of
from wsproxy.wamp import messages
from wsproxy.wamp.messages import Call, Code
from wsproxy.wamp.session import refusal
from wsproxy.wamp.topics import Topic

MAX_BYTES = 256 * 1024
"""Of one answer: it stands in the connection's send buffer as a whole."""
SEARCH_SECONDS = 10.0
"""For the next events of a topic, before the client is to ask again."""
HISTORY = "wamp.subscription.get_events"
"""Named by the specification, "Event History"."""


class _Unknown(BadInput):
    """There is no such procedure."""


class _NotKept(Unavailable):
    """Events after this place are not kept any more."""


class _NotYet(Unavailable):
    """Nothing was found yet: ask again from this cursor."""

    def __init__(self, cursor: str) -> None:
        super().__init__()
        self.cursor = cursor


async def answer(services: Services, login: Login, call: Call, topic: Topic | None) -> list[Any]:
    """RESULT or ERROR; `topic`: of the subscription that the call names first."""
    try:
        result = await _Answer(services, login, call).result(topic)
    except _Unknown as error:
        return messages.error(Code.CALL, call.request, messages.NO_SUCH_PROCEDURE, str(error))
    except _NotKept as error:
        return messages.error(Code.CALL, call.request, messages.NOT_KEPT, str(error))
    except _NotYet as error:
        uri, text = refusal(error)
        return messages.error(Code.CALL, call.request, uri, text, cursor=error.cursor)
    except ArvadosNatsError as error:
        uri, text = refusal(error)
        return messages.error(Code.CALL, call.request, uri, text)
    except TimeoutError:
        text = "the answer takes too long"
        return messages.error(Code.CALL, call.request, messages.UNAVAILABLE, text)
    return [Code.RESULT, call.request, {}, *result]


class _Answer:
    def __init__(self, services: Services, login: Login, call: Call) -> None:
        self._services = services
        self._login = login
        self._call = call
        self._args, self._kwargs = call.args or [], call.kwargs or {}

    async def result(self, topic: Topic | None) -> list[Any]:
        """Arguments and keyword arguments of the RESULT."""
        name, kwargs = self._call.procedure, self._kwargs
        if name == HISTORY:
            return [[await self._history(topic)]]
        if self._args:
            raise BadInput("send keyword arguments, which are those of a native client's request")
        if name == subjects.API_WHOAMI:
            if kwargs:
                raise BadInput("whoami takes no arguments")
            async with self._turn():
                return [[], self._whoami(await self._judge())]
        if name in self._services.answers.by_name:
            return [[], _shown(await self._parts(name, {**kwargs, **_bounded(kwargs)}))]
        if name.startswith(OBJECT):
            return [[], _shown(await self._parts(name, kwargs))]
        raise _Unknown

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """A place among those who are answered, for one page of an answer."""
        user = self._login.identity.user_uuid
        async with self._services.answers.turn(user), asyncio.timeout(SECONDS):
            yield

    async def _judge(self) -> Judge:
        """What the token may read now."""
        grants, identity = self._services.grants, self._login.identity
        await grants.renew([identity.user_uuid])
        held = grants.held(identity.user_uuid)
        if held is None:
            raise Refused(NOT_READABLE)
        return grants.judge(identity, held)

    async def _parts(self, name: str, request: dict[str, Any]) -> list[Part]:
        async with self._turn():
            found = self._services.answers.to(name, msgspec.json.encode(request), self._judge)
            async with aclosing(cast(AsyncGenerator[Part, None], found)) as parts:
                return [part async for part in parts]

    def _whoami(self, judge: Judge) -> dict[str, Any]:
        identity, grants = judge.identity, judge.grants
        return {
            "user_uuid": identity.user_uuid,
            "token_uuid": identity.token_uuid,
            "is_admin": grants.is_admin,
            "is_active": grants.is_active,
            "scopes": identity.scopes,
        }

    async def _history(self, topic: Topic | None) -> list[Any]:
        """Events of a topic of events that are kept, oldest first, each as it was told live."""
        if topic is None:
            raise BadInput("name a subscription of this session, by its id")
        target = topic.target
        if not isinstance(target, EventsTarget) or target.below:
            raise BadInput("this topic has no history here: see arvados.api.logs and .object")
        asked = _asked(self._args, self._kwargs)
        cursor = asked.cursor
        if asked.after_publication:
            begin = self._services.events.source.cursor(asked.after_publication)
            cursor = self._services.cursors.encode(begin)
        request = {
            "owners": target.owners,
            "objects": target.objects,
            "kinds": target.kinds,
            "event_types": target.event_types,
            "limit": asked.limit,
            "max_bytes": MAX_BYTES,
        }
        return [self._told(topic, part) for part in await self._found(request, cursor)]

    async def _found(self, request: dict[str, Any], cursor: str | None) -> list[Part]:
        """The next events after a cursor; none only where there are no more, however rare."""
        deadline = asyncio.get_running_loop().time() + SEARCH_SECONDS
        while True:
            parts = await self._parts(subjects.API_EVENTS, {**request, "cursor": cursor})
            if cursor and any(answers.GAP in part.headers for part in parts):
                raise _NotKept
            found, end = [part for part in parts if part.data], parts[-1].headers
            if found or end[answers.MORE] != "true":
                return found
            cursor = end[answers.END]
            if asyncio.get_running_loop().time() > deadline:
                raise _NotYet(cursor)

    def _told(self, topic: Topic, part: Part) -> dict[str, Any]:
        event = events.decode(part.data)
        return {
            "timestamp": event.created_at,
            "subscription": topic.id,
            "publication": int(part.headers[answers.SEQUENCE]),
            "details": msgspec.Raw(topic.details(event)),
            "args": [],
            "kwargs": {"event": event_of(event, part.headers[answers.CURSOR])},
        }


class _History(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The part of the specification that is served, and a cursor of ours."""

    limit: int = 100
    after_publication: int = 0
    cursor: str | None = None


def _asked(args: list[Any], kwargs: dict[str, Any]) -> _History:
    given = dict(kwargs)
    if len(args) > 1:
        given["limit"] = args[1]
    try:
        asked = msgspec.convert(given, _History)
    except msgspec.ValidationError as error:
        raise BadInput(f"{error}; send limit, and cursor or after_publication") from error
    if not 1 <= asked.limit <= MAX_EVENTS or asked.after_publication < 0:
        raise BadInput(f"limit is 1 to {MAX_EVENTS}, after_publication a publication id")
    if asked.cursor is not None and asked.after_publication:
        raise BadInput("send cursor or after_publication, not both")
    return asked


def _bounded(kwargs: dict[str, Any]) -> dict[str, Any]:
    asked = kwargs.get("max_bytes", MAX_BYTES)
    return {"max_bytes": min(asked, MAX_BYTES) if isinstance(asked, int) else asked}


def _shown(parts: list[Part]) -> dict[str, Any]:
    return {"messages": [_message(part) for part in parts[:-1]], "end": parts[-1].headers}


def _message(part: Part) -> dict[str, Any]:
    """A message: `headers`, and `json`, or of a log `text`, or `base64` if it is not UTF-8."""
    headers, data = {"headers": part.headers}, part.data
    if OFFSET not in part.headers:
        return {**headers, "json": msgspec.Raw(data)} if data else headers
    try:
        return {**headers, "text": data.decode()}
    except UnicodeDecodeError:
        return {**headers, "base64": base64.b64encode(data).decode()}
