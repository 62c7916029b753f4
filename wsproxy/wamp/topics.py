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
from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec

from arvados_nats.contract import subjects
from arvados_nats.contract.events import Event
from arvados_nats.errors import MALFORMED, BadInput
from arvados_nats.protocol_v1.requests import EventsTarget, LogTarget, ObjectTarget, Target
from wsproxy.wamp.messages import Subscribe

EVENT = "arvados.event"
_LOG = ("arvados", "log")
_OBJECT = ("arvados", "object")


class BadTopic(BadInput):
    """There is no such topic."""


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
        owners, kinds, types = ([word] if word else None for word in found)
        target = _target(EventsTarget, given, owners=owners, kinds=kinds, event_types=types)
        pattern = None if match == "exact" else found
        return Topic(number, uri, target, False, pattern)
    if match == "exact" and len(words) == 3 and subjects.is_uuid(words[2]):
        if words[:2] == _LOG:
            return Topic(number, uri, _target(LogTarget, given, uuid=words[2]), False)
        if words[:2] == _OBJECT:
            state = _target(ObjectTarget, given, uuid=words[2])
            return Topic(number, uri, state, options.get_retained)
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


def _query(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(unquote(text, errors="strict"), type=dict[str, Any])
    except MALFORMED as error:
        raise BadInput("behind ? in a topic stands JSON, percent-encoded") from error


_T = TypeVar("_T", LogTarget, ObjectTarget, EventsTarget)


def _target(kind: type[_T], given: dict[str, Any], **named: Any) -> _T:
    """What the topic names, and where to begin as of a v1 subscription to the same."""
    if twice := sorted(named.keys() & given.keys()):
        raise BadInput(f"x_arvados: {twice[0]} stands in the topic")
    try:
        return msgspec.convert({**given, **named}, kind)
    except msgspec.ValidationError as error:
        raise BadInput(f"x_arvados: {error}") from error


def _id(match: str, uri: str) -> int:
    digest = hashlib.blake2b(f"{match} {uri}".encode(), digest_size=8).digest()
    return 1 + int.from_bytes(digest) % 2**53


def _word(uuid: str | None) -> str:
    return uuid if uuid is not None and subjects.is_uuid(uuid) else subjects.NONE
