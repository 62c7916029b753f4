# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One change of one object, as it travels from a row of Arvados' logs table to every reader.

Pure. The payload of `arvados.events.…` is an `Event` in JSON. A log row is whatever some user
posted (docs/facts/arvados.md 0.3), so nothing in it is trusted but `verified`, `audience` and
`facts`, which the event publisher writes after reading the database.
"""

from __future__ import annotations

from typing import Any

import msgspec

from arvados_nats.contract import serialized
from arvados_nats.contract.serialized import plain
from arvados_nats.errors import MALFORMED, BadInput

V0_ATTRIBUTES = frozenset(
    "is_trashed name owner_uuid portable_data_hash requesting_container_uuid state".split()
)
"""What arvados-ws keeps of old_attributes and new_attributes (services/ws/session_v0.go)."""

COMMON_ATTRIBUTES = V0_ATTRIBUTES | {"modified_at", "trash_at", "delete_at"}
KEPT_ATTRIBUTES: dict[str, frozenset[str]] = {
    kind: COMMON_ATTRIBUTES | frozenset(extra.split())
    for kind, extra in {
        "container": "priority exit_code progress output log locked_by_uuid lock_count started_at"
        " finished_at runtime_status cost gateway_address",
        "container_request": "container_uuid container_count priority log_uuid output_uuid"
        " cumulative_cost",
        "link": "tail_uuid head_uuid link_class",
        "group": "group_class frozen_by_uuid",
        "user": "is_active is_admin username redirect_to_user_uuid",
        "collection": "version current_version_uuid file_count file_size_total",
        "api_client_authorization": "expires_at user_id",
        "workflow": "collection_uuid",
    }.items()
}
"""Attributes kept per kind, a superset of arvados-ws' six; other kinds keep the common ones."""

MAX_EVENT_BYTES = 768 * 1024
"""An event whose JSON is longer loses its properties and says so: `{"truncated": true}`."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One row of Arvados' logs table, checked against the database.

    `verified`: True where the row is Arvados' own word, and then it says nothing else; only such an
    event may drive anybody's state. False where it contradicts the database: a user has posted it.
    None where that is not known. `audience`: pairs (owner uuid, object uuid) of the objects
    whose readers may see the change; for a container these are its container requests, for an
    object that is gone it is its last owner. `facts`: an `object_facts.ObjectFacts` without its
    empty fields, of the object; of its last owner when the object is gone; and in any case where
    the groups are that own it (`places`). Of a project that was put into the trash also `hides`:
    (uuid, owner uuid) of requests in it that were shared by themselves. Times are UTC, RFC 3339, as
    Arvados writes them.
    """

    id: int
    uuid: str
    event_type: str | None
    event_at: str | None
    created_at: str
    object_uuid: str | None
    object_kind: str
    object_owner_uuid: str | None
    verified: bool | None
    audience: list[tuple[str, str]]
    properties: dict[str, Any]
    facts: dict[str, Any] = {}


GRAPH_KINDS = ("group", "link", "user")
"""Kinds of objects that rights follow from."""
GRAPH_FOLLOWS = "Arvados-Graph-Follows"
"""Header of an event behind which, read together with it, one of these kinds was stored: what one
transaction made, and then shared, is to be judged by what it shares."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)


def encode(event: Event) -> bytes:
    """The payload of an event, never longer than `MAX_EVENT_BYTES`."""
    payload = _encoder.encode(event)
    if len(payload) <= MAX_EVENT_BYTES:
        return payload
    return _encoder.encode(msgspec.structs.replace(event, properties={"truncated": True}))


def decode(payload: bytes) -> Event:
    """The event in a payload; BadInput if it is none."""
    try:
        return _decoder.decode(payload)
    except MALFORMED as error:
        raise BadInput(f"not an event: {error}") from error


class _Properties(msgspec.Struct):
    text: msgspec.Raw = msgspec.Raw()
    old_attributes: dict[str, msgspec.Raw] | None = None
    new_attributes: dict[str, msgspec.Raw] | None = None


_properties_decoder = msgspec.json.Decoder(_Properties)


def kept_properties(text: str | bytes | None, kind: str) -> dict[str, Any]:
    """Cut the `properties` column of a row to what travels.

    A row with `text` keeps all it has, as arvados-ws does; any other keeps old_attributes and
    new_attributes, cut to `KEPT_ATTRIBUTES`. NULL and empty give an empty dict; rows of old
    Arvados versions are YAML. What is no mapping raises BadInput (services/ws/event.go skips it).
    """
    if not text or not text.strip():
        return {}
    try:
        try:
            return _attributes(text, kind)
        except msgspec.MsgspecError:
            return _cut(_mapping(text), kind)
    except (RecursionError, UnicodeError) as error:
        raise BadInput("properties are nested too deeply, or no UTF-8") from error


def _attributes(text: str | bytes, kind: str) -> dict[str, Any]:
    """The usual case, without building what is not kept."""
    found = _properties_decoder.decode(text)
    if bytes(found.text):
        return _cut(_mapping(text), kind)
    keep = KEPT_ATTRIBUTES.get(kind, COMMON_ATTRIBUTES)
    return {
        side: {k: _value(v) for k, v in attributes.items() if k in keep}
        for side in ("old_attributes", "new_attributes")
        if (attributes := getattr(found, side)) is not None
    }


def _value(raw: msgspec.Raw) -> Any:
    value = msgspec.json.decode(raw)
    return value if value is None or isinstance(value, str) else plain(value)


def _mapping(text: str | bytes) -> dict[str, Any]:
    """Whatever else Arvados or a user wrote: JSON of another shape, or old YAML."""
    try:
        loaded = msgspec.json.decode(text)
    except msgspec.MsgspecError:
        loaded = serialized.from_yaml(text)
    return _object(loaded)


def _object(loaded: Any) -> dict[str, Any]:
    """As Go reads it: null is an empty mapping."""
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise BadInput("properties are not a mapping")
    return loaded


def _cut(properties: dict[str, Any], kind: str) -> dict[str, Any]:
    if properties.get("text") is not None:
        return {str(key): plain(value) for key, value in properties.items()}
    keep = KEPT_ATTRIBUTES.get(kind, COMMON_ATTRIBUTES)
    return {
        side: plain({k: v for k, v in attributes.items() if k in keep})
        for side in ("old_attributes", "new_attributes")
        if isinstance(attributes := properties.get(side), dict)
    }


def v0_properties(event: Event) -> dict[str, Any]:
    """Properties as arvados-ws sends them.

    `new_attributes` is an object on every create and update, whatever else was posted: Workbench
    reads what is in it.
    """
    changes = event.event_type in ("create", "update")
    if event.properties.get("text") is not None:
        if not changes or isinstance(event.properties.get("new_attributes"), dict):
            return event.properties
        return {**event.properties, "new_attributes": {}}
    cut = {
        side: {k: v for k, v in attributes.items() if k in V0_ATTRIBUTES}
        for side in ("old_attributes", "new_attributes")
        if isinstance(attributes := event.properties.get(side), dict)
    }
    if changes:
        cut.setdefault("new_attributes", {})
    return cut
