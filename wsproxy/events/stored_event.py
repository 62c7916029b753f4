# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One event of the stream on its way to its readers: decoded once, judged by facts, encoded once.

Pure. The facts are the publisher's, read from the database (`Event.facts`, `Event.audience`); what
a user posted in a log row is shown to readers, and never decides who they are
(docs/facts/arvados.md 0.3).
"""

from __future__ import annotations

from copy import copy

import msgspec

from arvados_nats.contract import events, subjects
from arvados_nats.contract.events import Event
from arvados_nats.contract.places import Place
from arvados_nats.contract.subjects import Kind
from arvados_nats.errors import BadInput
from arvados_nats.permissions.object_facts import ObjectFacts
from arvados_nats.permissions.share_points import above, is_placed
from wsproxy.transport.frames import Message

CREATE = "create"
CHANGES = (CREATE, "update")
DELETE = "delete"

_OWN_ONLY = "api_client_authorization"
_LIKE_A_COLLECTION = "collection"
_JUDGED_BY_OWNER = frozenset({"collection", "container_request", "workflow"})
_UNKNOWN_TO_PUBLISHER = frozenset(
    {"authorized_key", "credential", "keep_service", "log", "virtual_machine"}
)
"""Kinds whose tables the publisher does not read: only Arvados can tell who may see them."""


class StoredEvent:
    """An event, its place in the stream, and what all its readers share."""

    __slots__ = (
        *("alike", "departures", "event", "facts", "gone", "keys", "kind", "left_to_arvados"),
        *("moved", "sequence", "size", "v0", "v1"),
    )

    def __init__(self, sequence: int, event: Event, size: int) -> None:
        self.sequence = sequence
        self.event = event
        self.size = size
        """Bytes of the payload."""
        self.kind = subjects.kind_of(event.object_uuid)
        self.facts = facts_of_event(event, self.kind)
        """What the read rule judges; None where nobody could read the object."""
        self.keys = index_keys(self.facts) if self.facts else ()
        """Uuids one of which every possible reader has in its grants; None: anybody may be one."""
        self.alike = alike(self.facts, self.kind)
        """Equal for events that a reader to whom the same keys are open sees or does not see alike;
        None: judge it by itself."""
        self.departures: tuple[StoredEvent, ...] | None = None
        """What those are told who lose an object by it, once asked for (`departures`)."""
        self.gone = False
        """It is such a one."""
        self.moved = False
        """The object has another owner than it had when the event was stored."""
        self.left_to_arvados = False
        """Nobody tells what decides about the object now: no rule may be held to these facts."""
        self.v0: object | None = None
        """Its form in protocol v0, once somebody needed it (`messages_v0`)."""
        self.v1: Message | None = None
        """Its form in protocol v1, once somebody needed it."""

    def judged_by(self, facts: ObjectFacts | None) -> StoredEvent:
        """The same event, judged by other facts than those of the time when it was stored."""
        other = copy(self)
        other.facts = facts
        other.moved = facts is not None and facts.owner_uuid != self.event.facts.get("owner_uuid")
        other.keys = index_keys(facts) if facts else ()
        other.alike = alike(facts, self.kind)
        return other

    def for_arvados(self) -> StoredEvent:
        """The same event, about which only Arvados is to be asked."""
        other = copy(self)
        other.left_to_arvados, other.alike = True, None
        return other

    @property
    def judged_by_arvados(self) -> bool:
        """Whether the facts are too poor for the rule: ask with the reader's token."""
        if self.facts is None:
            return False
        return self.left_to_arvados or self.facts.kind in _UNKNOWN_TO_PUBLISHER

    @property
    def decided_by(self) -> str | None:
        """The object whose facts decide; None where they do not, or nobody here can tell."""
        if self.kind is None or self.judged_by_arvados:
            return None
        return self.event.object_uuid

    @property
    def tells_last_owner(self) -> bool:
        """Whether it was judged as a deletion when it was stored: the object was gone."""
        return self.facts is not None and self.event.facts.get("uuid") != self.facts.uuid

    def __repr__(self) -> str:
        return f"StoredEvent({self.sequence}, {self.event.uuid})"


def decode(sequence: int, payload: bytes) -> StoredEvent:
    """The event in a message of the stream; BadInput if it is none."""
    return StoredEvent(sequence, events.decode(payload), len(payload))


def facts_of_event(event: Event, kind: Kind | None) -> ObjectFacts | None:
    """What the read rule judges: the object as the publisher found it in the database.

    Of a deleted object only its last owner is left; it is judged like a collection there, which
    shows it to those who can see what the owner owns, in the trash too. (arvados-ws shows it to all
    who can see the owner's own record, so also the deletes in a home to whoever may know its user.)
    Raises BadInput when the publisher's facts cannot be read.
    """
    uuid = event.object_uuid
    if kind is None or uuid is None:
        return None
    try:
        if event.facts.get("uuid") == uuid:
            return msgspec.convert(event.facts, ObjectFacts)
        if event.event_type == DELETE and event.audience:
            places = msgspec.convert(event.facts.get("places", ()), tuple[Place, ...])
            return facts_of_gone(uuid, kind, event.audience[0][0], places)
    except msgspec.ValidationError as error:
        raise BadInput(f"facts of event {event.uuid} cannot be read") from error
    if kind.name in _UNKNOWN_TO_PUBLISHER:
        return ObjectFacts(kind.name, uuid, event.object_owner_uuid or "")
    return None


def facts_of_gone(uuid: str, kind: Kind, owner: str, places: tuple[Place, ...]) -> ObjectFacts:
    """How the deletion of an object is judged, by its last owner."""
    judged_as = _OWN_ONLY if kind.name == _OWN_ONLY else _LIKE_A_COLLECTION
    return ObjectFacts(judged_as, uuid, owner, places=places)


def alike(facts: ObjectFacts | None, kind: Kind | None) -> str | None:
    """What decides, beside what is above the object, for a reader whose grants do not name it: its
    kind.

    None where the rule looks at more, as at the trash. Only for tokens of all scopes.
    """
    if facts is None or kind is None or facts.kind != kind.name or facts.trash_at is not None:
        return None
    if not is_placed(facts) or any(place.trash_at is not None for place in facts.places):
        return None
    if facts.kind == "workflow" and facts.collection_uuid != "":
        return None
    return facts.kind if facts.kind in _JUDGED_BY_OWNER else None


def index_keys(facts: ObjectFacts) -> tuple[str, ...] | None:
    """Uuids such that whoever may read the object has one of them in their grants (or is an admin).

    None where the rule does not depend on grants alone, or not enough is known, so that everybody
    must be asked.
    """
    if not is_placed(facts):
        return None
    match facts.kind:
        case "group":
            return _above(facts, facts.uuid, facts.owner_uuid) if facts.is_role is False else None
        case "container":
            return _request_keys(facts)
        case "user":
            return (facts.uuid, facts.owner_uuid, *(facts.seen_by or ()))
        case "link":
            return _link_keys(facts)
        case "workflow" if facts.collection_uuid != "":
            linked, owner = facts.collection_uuid, facts.collection_owner_uuid
            return _above(facts, linked, owner) if linked and owner else None
        case "api_client_authorization":
            return (facts.owner_uuid,)
        case kind if kind in _UNKNOWN_TO_PUBLISHER:
            return None
        case _:
            return _above(facts, facts.uuid, facts.owner_uuid)


def _above(facts: ObjectFacts, uuid: str, owner: str) -> tuple[str, ...]:
    return (uuid, *above(facts, owner))


def _request_keys(facts: ObjectFacts) -> tuple[str, ...] | None:
    if facts.requests is None:
        return None
    found = (_above(facts, uuid, owner) for uuid, owner in facts.requests)
    return tuple(uuid for keys in found for uuid in keys)


def _link_keys(facts: ObjectFacts) -> tuple[str, ...] | None:
    if facts.is_permission is None:
        return None
    if not facts.is_permission:
        keys = _above(facts, facts.uuid, facts.owner_uuid)
        # What is above the head is said of its owner, too, where that is the head.
        same = facts.head_owner_uuid if facts.head_uuid == facts.owner_uuid else None
        return keys + above(facts, same) if same else keys
    if facts.head_owner_uuid is None:
        return None
    ends = (facts.tail_uuid, facts.head_uuid, *above(facts, facts.head_owner_uuid))
    return tuple(filter(None, ends))
