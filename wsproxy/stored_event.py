# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One event of the stream on its way to its readers: decoded once, judged by facts, encoded once.

Pure. The facts are the publisher's, read from the database (`Event.facts`, `Event.audience`); what
a user posted in a log row is shown to readers, and never decides who they are
(facts/arvados.md 0.3).
"""

from __future__ import annotations

from arvados_nats import events, subjects
from arvados_nats.errors import BadInput
from arvados_nats.events import Event
from arvados_nats.object_facts import ObjectFacts, facts_of
from wsproxy.frames import Message

_BY_REQUESTS = ("container", "log")
_NO_RULE = frozenset({"keep_service"})
"""Kinds whose readers only Arvados itself can tell."""


class StoredEvent:
    """An event, its place in the stream, and what all its readers share."""

    __slots__ = ("event", "facts", "keys", "sequence", "size", "v0", "v1")

    def __init__(self, sequence: int, event: Event, size: int) -> None:
        self.sequence = sequence
        self.event = event
        self.size = size
        """Bytes of the payload."""
        self.facts = facts_of_event(event)
        self.keys = index_keys(self.facts) if self.facts else ()
        """Uuids one of which every possible reader has in its grants; None: anybody may be one."""
        self.v0: object | None = None
        """Its form in protocol v0, once somebody needed it (`messages_v0`)."""
        self.v1: Message | None = None
        """Its form in protocol v1, once somebody needed it."""

    def __repr__(self) -> str:
        return f"StoredEvent({self.sequence}, {self.event.uuid})"


def decode(sequence: int, payload: bytes) -> StoredEvent:
    """The event in a message of the stream; BadInput if it is none."""
    return StoredEvent(sequence, events.decode(payload), len(payload))


def facts_of_event(event: Event) -> ObjectFacts | None:
    """The object as the read rule sees it; None where there is no object that anybody could read.

    The audience holds (owner, object) pairs: of a container its requests, else the object itself.
    Raises BadInput when the publisher's facts contradict each other.
    """
    kind = subjects.kind_of(event.object_uuid)
    if kind is None or event.object_uuid is None:
        return None
    if kind.name in _NO_RULE:
        return ObjectFacts(kind.name, event.object_uuid, event.object_owner_uuid or "")
    if not event.facts and not event.audience:
        return None
    requests = None
    if kind.name in _BY_REQUESTS:
        requests = tuple((uuid, owner) for owner, uuid in event.audience)
    owner = event.facts.get("owner_uuid") or next(
        (owner for owner, uuid in event.audience if uuid == event.object_uuid), ""
    )
    try:
        return facts_of(
            {**event.facts, "uuid": event.object_uuid, "owner_uuid": owner},
            requests=requests,
            head_owner_uuid=event.facts.get("head_owner_uuid"),
        )
    except (TypeError, KeyError) as error:
        raise BadInput(f"facts of {event.uuid} can not be read") from error


def index_keys(facts: ObjectFacts) -> tuple[str, ...] | None:
    """Uuids such that whoever may read the object has one of them in his grants (or is an admin).

    None where the rule does not depend on grants alone, so that everybody must be asked.
    """
    match facts.kind:
        case "group":
            return (facts.uuid,) if facts.is_role is False else None
        case "container":
            return _flat(facts.requests)
        case "link":
            return _link_keys(facts)
        case "log":
            named = (facts.object_uuid, facts.owner_uuid, facts.object_owner_uuid)
            rest = _flat(facts.requests)
            return None if rest is None else (*filter(None, named), *rest)
        case "api_client_authorization":
            return (facts.owner_uuid,)
        case kind if kind in _NO_RULE:
            return None
        case _:
            return (facts.uuid, facts.owner_uuid)


def _flat(pairs: tuple[tuple[str, str], ...] | None) -> tuple[str, ...] | None:
    return None if pairs is None else tuple(uuid for pair in pairs for uuid in pair)


def _link_keys(facts: ObjectFacts) -> tuple[str, ...] | None:
    if facts.is_permission is None:
        return None
    if not facts.is_permission:
        return (facts.uuid, facts.owner_uuid)
    if facts.head_owner_uuid is None:
        return None
    return tuple(filter(None, (facts.tail_uuid, facts.head_uuid, facts.head_owner_uuid)))
