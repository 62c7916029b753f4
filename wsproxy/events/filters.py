# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which changes of objects a client has asked for: the same for sockets and native clients.

Pure. Nothing here decides who may see an event; that is the rule's business (`principal`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable
from collections.abc import Set as AbstractSet

from arvados_nats.contract.subjects import KIND_OF_NAME, KINDS, is_uuid
from arvados_nats.errors import BadInput
from arvados_nats.permissions.share_points import above
from arvados_nats.protocol_v1.requests import EventsTarget
from wsproxy.events.stored_event import StoredEvent

_ARVADOS_KINDS = {kind.arvados: kind.name for kind in KINDS}
GONE = "older events are not kept any more"
ANEW = "the stream of events was made anew"


class Filters:
    """What a client wants to see; None is everything."""

    def __init__(self, target: EventsTarget) -> None:
        if target.below and not target.owners:
            raise BadInput("below: name the owners below which to look")
        self._owners: AbstractSet[str] | None = _uuids("owners", target.owners)
        self._below = bool(target.below)
        self._objects = _uuids("objects", target.objects)
        self._event_types = _set(target.event_types)
        self._kinds = _kinds(target.kinds) if target.kinds is not None else None
        self._wanted = (self._owners, self._objects, self._event_types, self._kinds)
        self.everything = all(words is None for words in self._wanted)
        """Whether nothing is left out."""

    def form(self, of_client: Hashable) -> Hashable:
        """Equal for those who want the same events, in equal forms: a text, since each socket looks
        it up for each event, and the hash of a tuple would be made anew."""
        if self.everything:
            return of_client
        wanted = [None if words is None else sorted(words) for words in self._wanted]
        told = repr((of_client, wanted, self._below)).encode()
        return hashlib.blake2b(told, digest_size=16).hexdigest()

    def match(self, stored: StoredEvent, shown: Iterable[tuple[str, str]]) -> bool:
        """Whether an event is wanted; `shown`: (owner, request) pairs that count for it."""
        event = stored.event
        kind = stored.kind.name if stored.kind else None
        return (
            (self._event_types is None or event.event_type in self._event_types)
            and (self._kinds is None or kind in self._kinds)
            and _names(self._objects, event.object_uuid, (request for _, request in shown))
            and self._owned(stored, (owner for owner, _ in shown))
        )

    def _owned(self, stored: StoredEvent, shown: Iterable[str]) -> bool:
        if self._owners is None:
            return True
        owners, facts = {stored.event.object_owner_uuid or "", *shown}, stored.facts
        if self._below and facts is not None:
            owners.add(facts.owner_uuid)
            owners.update(*(above(facts, owner) for owner in tuple(owners)))
        return not owners.isdisjoint(self._owners)

    @property
    def kinds(self) -> frozenset[str] | None:
        """Names of the kinds that are wanted."""
        return self._kinds

    @property
    def by_request(self) -> bool:
        """Whether it matters which requests show a container."""
        return self._owners is not None or self._objects is not None


def _set(words: list[str] | None) -> frozenset[str] | None:
    return None if words is None else frozenset(words)


def _uuids(field: str, words: list[str] | None) -> frozenset[str] | None:
    """BadInput names one that is none, such as a name: it would be heard of in vain."""
    for word in words or ():
        if not is_uuid(word):
            raise BadInput(f"{field}: not a uuid: {word[:40]!r}")
    return _set(words)


def _kinds(words: list[str]) -> frozenset[str]:
    """Kinds by their subject token or as `arvados#…`; BadInput names one that is none."""
    found = {_ARVADOS_KINDS.get(word, word) for word in words}
    if unknown := found - KIND_OF_NAME.keys():
        raise BadInput(f"no kinds of objects: {', '.join(sorted(unknown))}")
    return frozenset(found)


def _names(wanted: AbstractSet[str] | None, own: str | None, others: Iterable[str]) -> bool:
    return wanted is None or own in wanted or any(other in wanted for other in others)
