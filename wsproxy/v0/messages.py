# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Protocol v0 as arvados-ws speaks it: what comes in, and the bytes that go out.

Pure. docs/facts/arvados.md 6 and services/ws/session_v0.go are the reference, down to Go's way of
reading JSON: keys in any case, `null` as absent, an absent filter list different from an empty one
when an unsubscribe looks for its equal. Only `event_type in [...]` and `created_at` with a time in
RFC 3339 are honoured; every other filter is ignored, that is, matches, and nothing is kept of it
but its part in a digest.
"""

from __future__ import annotations

import hashlib
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from arvados_nats.contract import subjects
from arvados_nats.contract.events import Event, v0_properties
from arvados_nats.errors import MALFORMED, BadInput
from wsproxy.events.stored_event import StoredEvent
from wsproxy.transport.frames import Message, head

OK = Message(b'{"status":200}')
BAD = Message(b'{"status":400}')
NARROWED = Message(b'{"narrowed":true}')
IDLE = Message(b"{}")

_INT64 = 2**63
_PREFIX = b'{"msgID":'
_SHORTEST_ID = len(_PREFIX)

# Outgoing.


class NumberedEvent:
    """An event in v0: all but `msgID`, which counts per connection, is shared."""

    __slots__ = ("_last", "_last_id", "_rest")

    def __init__(self, event: Event) -> None:
        self._rest = b"," + _encoder.encode(_fields(event))[1:]
        self._last_id = 0
        self._last = b""

    def frame(self, msg_id: int) -> bytes:
        """The frame with this `msgID`; connections that count alike share one."""
        if msg_id != self._last_id:
            number = b"%d" % msg_id
            length = _SHORTEST_ID + len(number) + len(self._rest)
            self._last = b"".join((head(length), _PREFIX, number, self._rest))
            self._last_id = msg_id
        return self._last


_encoder = msgspec.json.Encoder()


def _fields(event: Event) -> dict[str, Any]:
    kind = subjects.kind_of(event.object_uuid)
    return {
        "id": event.id,
        "uuid": event.uuid,
        "object_uuid": event.object_uuid or "",
        "object_owner_uuid": event.object_owner_uuid or "",
        "object_kind": kind.arvados if kind else event.object_kind,
        "event_type": event.event_type or "",
        "event_at": event.event_at,
        "properties": v0_properties(event),
    }


def numbered(stored: StoredEvent) -> NumberedEvent:
    """The v0 form of an event, made once."""
    made = stored.v0
    if not isinstance(made, NumberedEvent):
        made = stored.v0 = NumberedEvent(stored.event)
    return made


# Incoming.

Test = Callable[[Event], bool]


@dataclass(frozen=True, slots=True)
class Subscribe:
    """A subscription wanted. `filters` is a digest that is equal for equal filters."""

    filters: bytes
    tests: tuple[Test, ...] = field(compare=False)
    last_log_id: int = 0
    created_since: datetime | None = None
    """The filters let nothing through that was created before."""
    weight: int = field(default=0, compare=False)
    """Bytes of the command it came in: what is kept of it may take some times as much."""
    narrowed: bool = field(default=False, compare=False)
    """It wants to be told when less can be read than before."""

    def matches(self, event: Event) -> bool:
        return all(test(event) for test in self.tests)


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """The first subscription with these filters is to end."""

    filters: bytes


MAX_FILTERS = 16
"""Filters of one subscription: each is looked at for each event."""
_SHORT = 1024
"""Length up to which equal commands of all clients share one value: pages send the same ones."""


def command(data: str | bytes) -> Subscribe | Unsubscribe:
    """What a frame of a client asks for; BadInput is answered with status 400."""
    return _shared(data) if len(data) <= _SHORT else _command(data)


@lru_cache(maxsize=1024)
def _shared(data: str | bytes) -> Subscribe | Unsubscribe:
    return _command(data)


def _command(data: str | bytes) -> Subscribe | Unsubscribe:
    try:
        decoded = msgspec.json.decode(data)
    except MALFORMED as error:
        raise BadInput("not JSON") from error
    if not isinstance(decoded, dict):
        raise BadInput("not a JSON object")
    values = {key.lower(): value for key, value in decoded.items()}
    method = values.get("method")
    filters = _filters(values.get("filters"))
    last_log_id = _last_log_id(values.get("last_log_id"))
    if method == "subscribe":
        tests = tuple(test for f in filters or () if (test := _test(f)) is not None)
        since = max((t for f in filters or () if (t := _since(f))), default=None)
        narrowed = values.get("narrowed") is True
        return Subscribe(_digest(filters), tests, last_log_id, since, len(data), narrowed)
    if method == "unsubscribe":
        return Unsubscribe(_digest(filters))
    raise BadInput("unknown method")


def _last_log_id(value: object) -> int:
    if value is None:
        return 0
    if type(value) is not int or not -_INT64 <= value < _INT64:
        raise BadInput("last_log_id is no integer")
    return value


Filter = list[Any]


def _filters(value: object) -> list[Filter] | None:
    """Each filter as the three values that Go keeps of it."""
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(f, list | None) for f in value):
        raise BadInput("filters are no list of lists")
    if len(value) > MAX_FILTERS:
        raise BadInput("too many filters")
    return [([*(f or ()), None, None, None])[:3] for f in value]


def _digest(filters: list[Filter] | None) -> bytes:
    """Of JSON in one form. Numbers are all floats in Go; those deeper than any honoured filter has
    them are taken as they are written."""
    plain = None if filters is None else [[_go_value(part) for part in f] for f in filters]
    try:
        form = msgspec.json.encode(plain, order="deterministic")
    except MALFORMED as error:
        raise BadInput("filters are nested too deeply") from error
    return hashlib.blake2b(form, digest_size=16).digest()


def _go_value(part: Any) -> Any:
    return [_go_number(item) for item in part] if isinstance(part, list) else _go_number(part)


def _go_number(value: Any) -> Any:
    if type(value) is not int:
        return value
    try:
        return float(value)
    except OverflowError as error:
        raise BadInput("a number is too large") from error


def _test(filter_: Filter) -> Test | None:
    """The test a filter stands for; None where it is ignored."""
    column, op, operand = filter_
    if column == "event_type" and op == "in" and isinstance(operand, list):
        types = frozenset(item for item in operand if isinstance(item, str))
        return lambda event: (event.event_type or "") in types
    if column == "created_at" and isinstance(op, str) and op in _COMPARE:
        moment = _rfc3339(operand)
        if moment is not None:
            compare = _COMPARE[op]
            return lambda event: _compares(compare, event, moment)
    return None


_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}


def _compares(compare: Callable[[Any, Any], bool], event: Event, moment: datetime) -> bool:
    created = _created(event.created_at)
    return created is not None and compare(created, moment)


def _since(filter_: Filter) -> datetime | None:
    column, op, operand = filter_
    return _rfc3339(operand) if column == "created_at" and op in (">=", ">", "=") else None


_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:[.,](\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)", re.ASCII
)


def _rfc3339(text: object) -> datetime | None:
    """A time as Go's time.RFC3339Nano reads it, to the microsecond; None if it is none."""
    found = _RFC3339.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return None
    seconds, fraction, zone = found.groups()
    micros = (fraction or "")[:6].ljust(6, "0")
    try:
        return datetime.fromisoformat(f"{seconds}.{micros}{zone}")
    except ValueError:
        return None


_created = lru_cache(maxsize=256)(_rfc3339)
"""All filters of all connections look at the same few events."""
