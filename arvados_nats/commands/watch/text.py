# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Events and object states as lines for a person.

Pure. Names and texts are anybody's, so all of it is made harmless for a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from arvados_nats.commands.sanitize import harmless
from arvados_nats.protocol_v1.messages import Event, Gone, Object

_LONGEST_VALUE = 80
_NOTHING: tuple[Any, ...] = (None, "", [], {})
_UNTOLD = frozenset({"uuid", "etag", "modified_at", "modified_by_user_uuid"})
"""Attributes that say nothing new: who it is, and that it has changed."""


def event_line(event: Event) -> str:
    """One event: when, what, which object, and what is different."""
    words = [
        event.event_at or event.created_at,
        event.event_type or "-",
        event.object_uuid or "-",
        event.object_kind.removeprefix("arvados#"),
        *_event_details(event),
    ]
    if event.verified is not True:
        words.append("(not verified)" if event.verified is None else "(posted by a user)")
    return _safe(" ".join(words))


def gone_line(gone: Gone) -> str:
    """An object that may not be read any more."""
    return _safe(f"{gone.uuid} {gone.object_kind.removeprefix('arvados#')} is gone")


def _event_details(event: Event) -> Iterator[str]:
    old, new = (event.properties.get(f"{age}_attributes") for age in ("old", "new"))
    if isinstance(new, dict):
        before = old if isinstance(old, dict) else {}
        if name := new.get("name"):
            yield repr(name)
            before = {"name": name, **before}
        yield from changes(before, new)
    elif isinstance(text := event.properties.get("text"), str):
        yield _value(text)


def object_lines(before: Mapping[str, Any] | None, now: Object) -> list[str]:
    """What is different from the state before, or all of a first state; when is said once."""
    record = flat(now.record)
    first, *more = list(changes(flat(before) if before is not None else {}, record)) or [""]
    if not first:
        return []
    when = str(record.get("modified_at") or "")
    return [_safe(f"{when} {now.uuid} {first}".strip()), *(_safe(f"  {one}") for one in more)]


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """`name: old → new` for each attribute that is another, `name: new` where none was."""
    for name, value in new.items():
        if name.rpartition(".")[2] in _UNTOLD or old.get(name) == value:
            continue
        before = f"{_shown(name, old[name])} → " if old.get(name) not in _NOTHING else ""
        if before or value not in _NOTHING:
            yield f"{name}: {before}{_shown(name, value)}"


def flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with those inside it laid out: `container.state`."""
    found: dict[str, Any] = {}
    for name, value in record.items():
        if name == "container" and isinstance(value, dict):
            found |= {f"container.{inner}": inside for inner, inside in value.items()}
        else:
            found[name] = value
    return found


def _shown(name: str, value: Any) -> str:
    """A value in people's units and words."""
    attribute = name.rpartition(".")[2]
    if attribute == "progress" and isinstance(value, float):
        return f"{value:.0%}"
    if attribute == "priority" and value == 0:
        return "0 (on hold or cancelled)"
    return _value(value)


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _safe(line: str) -> str:
    return harmless(line.encode("utf-8", "replace"))
