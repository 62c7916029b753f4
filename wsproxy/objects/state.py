# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The state of an object as its readers see it: one read, then every verified change laid over it.

Pure. It holds attributes that are the same for every reader, of kinds whose records are. What
events do not tell (a container's priority is changed by raw SQL, docs/facts/arvados.md 0.1) stays
as it was read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from arvados_nats.contract import subjects
from arvados_nats.contract.events import Event
from arvados_nats.errors import BadInput
from arvados_nats.permissions.object_facts import ObjectFacts, facts_of, timestamp

_TIMES = "uuid owner_uuid created_at modified_at"
_TRASH = "is_trashed trash_at delete_at"
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    kind: (*_TIMES.split(), *names.split())
    for kind, names in {
        "container": "state priority exit_code progress output log locked_by_uuid lock_count"
        " started_at finished_at runtime_status runtime_constraints cost",
        "container_request": "name state priority container_uuid container_count"
        " requesting_container_uuid log_uuid output_uuid cumulative_cost",
        "collection": f"name portable_data_hash version current_version_uuid {_TRASH}",
        "group": f"name group_class frozen_by_uuid {_TRASH}",
        "workflow": "name collection_uuid",
    }.items()
}
"""What a record holds, by kind; other kinds have no state to follow."""

_MAX_EXACT = 2**53
_encoder = msgspec.json.Encoder(order="deterministic")

State = dict[str, Any]


def attributes(uuid: str) -> tuple[str, ...]:
    """Attributes of the record of an object; BadInput for kinds that cannot be followed."""
    kind = subjects.kind_of(uuid)
    names = ATTRIBUTES.get(kind.name) if kind else None
    if names is None:
        raise BadInput(
            "only containers, their requests, collections, groups and workflows have"
            " a state that can be followed"
        )
    return names


def state_of(uuid: str, record: Mapping[str, Any]) -> State:
    """The state in an API record; integers that a browser cannot hold are text."""
    return {name: _plain(record.get(name)) for name in attributes(uuid)}


def changed(state: State, event: Event) -> State | None:
    """The state after an event about the object; None if the event does not tell it.

    An event that is older than the state changes nothing: the record was read after it happened.
    """
    new = event.properties.get("new_attributes")
    if not isinstance(new, dict) or event.properties.get("truncated"):
        return None
    if _older(new.get("modified_at"), state.get("modified_at")):
        return state
    return {name: _plain(new[name]) if name in new else state[name] for name in state}


def etag(record: Mapping[str, Any]) -> str:
    """Stands for a record: the same text for equal ones."""
    return hashlib.blake2b(_encoder.encode(record), digest_size=12).hexdigest()


def facts(state: State) -> ObjectFacts:
    """What the read rule judges."""
    return facts_of(state)


def _older(time: Any, than: Any) -> bool:
    if not isinstance(time, str) or not isinstance(than, str):
        return False
    try:
        first, second = timestamp(time), timestamp(than)
    except BadInput:
        return False
    return first is not None and second is not None and first < second


def _plain(value: Any) -> Any:
    if isinstance(value, int) and abs(value) > _MAX_EXACT:
        return str(value)
    return value
