# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a topic of WAMP means: a log, an object, or changes of objects, and where to begin.

Pure. `arvados.log.<uuid>`, `arvados.object.<uuid>`, `arvados.event.<owner>.<kind>.<type>`; of the
last a prefix of whole words, or a wildcard with words left empty. A topic has the same subscription
id in all sessions and on all replicas, so that one EVENT is the same bytes for all its readers.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import unquote

import msgspec
from msgspec import Meta, Struct

from arvados_nats.contract import subjects
from arvados_nats.contract.events import Event
from arvados_nats.errors import MALFORMED, BadInput
from arvados_nats.protocol_v1.requests import (
    EventsTarget,
    From,
    LogTarget,
    ObjectTarget,
    Target,
    Text,
    Words,
)
from wsproxy.wamp.messages import Subscribe

EVENT = "arvados.event"
_LOG = ("arvados", "log")
_OBJECT = ("arvados", "object")
_WORDS = ("owner", "kind", "type")


class BadTopic(BadInput):
    """There is no such topic."""


class LogOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """As of a v1 `log` subscription."""

    files: Annotated[list[Text], Meta(max_length=100)] | None = None
    from_: Annotated[dict[Text, From], Meta(max_length=100)] | None = msgspec.field(
        default=None, name="from"
    )
    tail: Annotated[int, Meta(ge=0, le=10_000)] | None = None
    container: Text | None = None
    former: Annotated[dict[Text, dict[Text, From]], Meta(max_length=10)] | None = None


class ObjectOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """As of a v1 `object` subscription."""

    etag: Text | None = None


class EventOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """As of a v1 `events` subscription; owners, kinds and types stand in the topic."""

    cursor: Annotated[str, Meta(max_length=256)] | None = None
    begin: Literal["now", "oldest"] = "now"
    below: bool = False
    objects: Words | None = None


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic, as a session subscribes to it."""

    id: int
    uri: str
    target: Target
    retained: bool
    """What there is comes first: the state of an object."""
    words: tuple[str | None, str | None, str | None] | None = None
    """Owner, kind and type of a pattern of events, as far as it names them; None: no pattern."""

    def details(self, event: Event) -> bytes:
        """Details of an EVENT: which topic it was that matched the pattern."""
        if self.words is None:
            return b"{}"
        kind, _, event_type = subjects.event(event.object_uuid, event.event_type).split(".")[2:]
        owner, named, typed = self.words
        found = (owner or _word(event.object_owner_uuid), named or kind, typed or event_type)
        return msgspec.json.encode({"topic": ".".join((EVENT, *found))})


def topic_of(message: Subscribe) -> Topic:
    """The topic that a client subscribes to. BadTopic where there is none, BadInput where its
    options make no sense."""
    uri, _, query = message.topic.partition("?")
    options = message.options
    given = _query(query) if query else options.x_arvados or {}
    words, match = tuple(uri.split(".")), options.match
    number = _id(match, uri)
    if words[:2] == ("arvados", "event"):
        found = _event_words(words[2:], match)
        target = _events(found, given)
        pattern = None if match == "exact" else found
        return Topic(number, uri, target, False, pattern)
    if match == "exact" and len(words) == 3 and subjects.is_uuid(words[2]):
        if words[:2] == _LOG:
            log = _read(given, LogOptions)
            places = (log.files, log.from_, log.tail, log.container, log.former)
            return Topic(number, uri, LogTarget(words[2], *places), False)
        if words[:2] == _OBJECT:
            etag = _read(given, ObjectOptions).etag
            return Topic(number, uri, ObjectTarget(words[2], etag), options.get_retained)
    raise BadTopic(
        "topics are arvados.log.<uuid>, arvados.object.<uuid>, arvados.event.<owner>.<kind>.<type>"
    )


def _event_words(words: tuple[str, ...], match: str) -> tuple[str | None, str | None, str | None]:
    if match == "prefix" and words and not words[-1]:
        words = words[:-1]
    if len(words) != 3 and (match != "prefix" or len(words) > 3):
        raise BadTopic("events are arvados.event.<owner>.<kind>.<type>: three words, or a prefix")
    if match != "wildcard" and not all(words):
        raise BadTopic("words are left empty where the match is wildcard")
    owner, kind, typed = (*words, *[""] * (3 - len(words)))
    if owner and not subjects.is_uuid(owner):
        raise BadTopic("the owner is a whole uuid, also where the topic is a prefix")
    if kind and kind not in subjects.KIND_OF_NAME:
        raise BadTopic(f"no kind of objects: {kind}")
    return owner or None, kind or None, typed or None


def _events(
    words: tuple[str | None, str | None, str | None], given: dict[str, Any]
) -> EventsTarget:
    options = _read(given, EventOptions)
    owners, kinds, types = ([word] if word else None for word in words)
    return EventsTarget(
        owners=owners,
        below=options.below,
        objects=options.objects,
        kinds=kinds,
        event_types=types,
        cursor=options.cursor,
        begin=options.begin,
    )


def _query(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(unquote(text, errors="strict"), type=dict[str, Any])
    except MALFORMED as error:
        raise BadInput("behind ? in a topic stands JSON, percent-encoded") from error


_T = TypeVar("_T", LogOptions, ObjectOptions, EventOptions)


def _read(given: dict[str, Any], kind: type[_T]) -> _T:
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise BadInput(f"x_arvados: {error}") from error


def _id(match: str, uri: str) -> int:
    digest = hashlib.blake2b(f"{match} {uri}".encode(), digest_size=8).digest()
    return 1 + int.from_bytes(digest) % 2**53


def _word(uuid: str | None) -> str:
    return uuid if uuid is not None and subjects.is_uuid(uuid) else subjects.NONE
