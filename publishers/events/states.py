# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""States of an object in a form that can be compared: as a row names them, as the database has it.

Pure. A state is every attribute that is compared (`object_tables.ATTRIBUTES`), none left out: a
claim that is silent about one says that it is null.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from arvados_nats.errors import BadInput
from arvados_nats.permissions import object_facts
from publishers.postgres.object_tables import ATTRIBUTES

_MODIFIED = "modified_at"
_TIMES = frozenset("trash_at delete_at started_at finished_at expires_at modified_at".split())
_TOLERANCE = 2e-6
"""Ruby knows nanoseconds, PostgreSQL microseconds."""
_COMMON = ("owner_uuid", _MODIFIED)
_TOKEN = "api_client_authorization"
_NAMES: dict[str, tuple[str, ...]] = {
    kind: (*_COMMON, *names) for kind, names in ATTRIBUTES.items()
} | {_TOKEN: ("user_id", "expires_at")}
_PARTS = {
    kind: (
        tuple(name for name in names if name in _TIMES),
        tuple(name for name in names if name not in _TIMES),
    )
    for kind, names in _NAMES.items()
}
"""Of each kind, what is a time, and the rest."""
_encoder = msgspec.json.Encoder(order="deterministic")


class State(NamedTuple):
    """What an object is, in as few bytes as two of them can be compared by."""

    times: tuple[float | None, ...]
    rest: bytes


def state_of(kind: str, values: object) -> State | None:
    """The state in a record or in one side of a row; None where that is none."""
    parts = _PARTS.get(kind)
    if parts is None or not isinstance(values, Mapping) or not values:
        return None
    try:
        times = tuple([_seconds(values.get(name)) for name in parts[0]])
    except BadInput:
        return None
    rest = [_plain(values.get(name)) for name in parts[1]]
    return State(times, hashlib.blake2b(_encoder.encode(rest), digest_size=16).digest())


def modified_at(kind: str, state: State) -> float | None:
    """Seconds since 1970; None of a kind whose time of change is not read."""
    return state.times[0] if _MODIFIED in _NAMES[kind] else None


def agree(one: State | None, other: State | None) -> bool:
    """Whether both are there and the same."""
    if one is None or other is None or one.rest != other.rest:
        return False
    return all(_same(a, b) for a, b in zip(one.times, other.times, strict=True))


Key = tuple[bytes, int | None]


def key(state: State) -> Key:
    """Where a state is to be found among many, by all that `agree` with it."""
    first = state.times[0] if state.times else None
    return state.rest, None if first is None else int(first * 1000)


def keys(state: State) -> set[Key]:
    """The keys of all states that may agree with this one."""
    first = state.times[0] if state.times else None
    if first is None:
        return {(state.rest, None)}
    nearby = (first - 2 * _TOLERANCE, first + 2 * _TOLERANCE)
    return {(state.rest, int(moment * 1000)) for moment in nearby}


def compared(kind: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that a state is made of."""
    names: Iterable[str] = _NAMES.get(kind, ())
    return {name: attributes[name] for name in names if name in attributes}


def _seconds(value: object) -> float | None:
    if value is not None and not isinstance(value, str | datetime):
        raise BadInput("not a time")
    return object_facts.timestamp(value)


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= _TOLERANCE


def _plain(value: Any) -> Any:
    """Numbers alike, however they were written: those over 2^53 travel as text."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
