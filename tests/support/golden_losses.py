# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a reader with an open socket must be told of a step that takes something from them (W1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

_BY_THEMSELVES = ("-gj3su-", "-57u5n-")
"""Tokens and log rows, which the recording does not list among what is readable."""
_CONTAINER = "-dz642-"


@dataclass(slots=True)
class Told:
    """What came over one socket."""

    heard: dict[str, Json] = field(default_factory=dict)
    """Events by the uuid of their row."""
    gone: set[str] = field(default_factory=set)
    """Objects told gone in this step; whether it was told that less can be read."""
    narrowed: bool = False
    stayed: bool = False
    """The socket is the one of before this step."""

    def take(self, answer: Json) -> None:
        """One frame, of v0 or v1."""
        event = answer.get("event", answer)
        if "uuid" in event and "object_uuid" in event:
            self.heard[event["uuid"]] = event
        elif "gone" in answer:
            self.gone.add(answer["gone"]["uuid"])
        elif "narrowed" in answer:
            self.narrowed = True

    def next_step(self) -> None:
        """What was told up to now is another step's."""
        self.gone, self.narrowed, self.stayed = set(), False, True


def untold(told: Told, rows: Iterable[Json], had: set[str], has: set[str]) -> Iterable[str]:
    """What is wrong with what was told of a step's rows to who could read `had`, and now `has`.

    Of what they may read they get the row; of what they could read until then that it went, with
    nothing of what it is now; of the rest nothing.
    """
    rows = [*rows]
    last = {row["object_uuid"]: row["uuid"] for row in rows}
    for row in rows:
        uuid, event = row["object_uuid"] or "", told.heard.get(row["uuid"])
        if any(infix in uuid for infix in _BY_THEMSELVES):
            continue
        if event is not None and event["object_uuid"] != uuid:
            yield from _taken_along(event, had, has)
            event = None
        emptied = event is not None and not event["properties"].get("new_attributes")
        full = event is not None and not emptied
        what = f"{row['event_type']} of {uuid}"
        if uuid in has:
            if not full and uuid in had:  # or it may have become readable after the row
                yield f"missing {what}"
        elif uuid not in had:
            if event is not None and not _was_in_the_trash(row, had):
                yield f"heard {what}"
        elif not (emptied or uuid in told.gone or (full and _rightly(row, last))):
            yield f"{'content' if full else 'nothing'} of {what}, which is lost"
    for uuid in told.gone & has:
        yield f"told that {uuid} is gone, which can be read"


def _was_in_the_trash(row: Json, had: set[str]) -> bool:
    """Whether it was deleted where it was hidden: Arvados shows that to who can see its owner."""
    return row["event_type"] == "delete" and row["object_owner_uuid"] in had


def _rightly(row: Json, last: dict[str, str]) -> bool:
    """Whether who has lost the object gets its row whole: the end of an attempt, though Arvados
    hides the container at once (V6), and what could be read until a later row."""
    return _CONTAINER in row["object_uuid"] or last[row["object_uuid"]] != row["uuid"]


def _taken_along(event: Json, had: set[str], has: set[str]) -> Iterable[str]:
    """A row of something else tells that an object went: nothing else of it."""
    uuid, said = event["object_uuid"], event["properties"]
    if uuid in has or uuid not in had:
        yield f"told that {uuid} is gone"
    if said != {"old_attributes": {"owner_uuid": event["object_owner_uuid"]}, "new_attributes": {}}:
        yield f"content of {uuid}: {said}"


def silent(told: Told, rows: Iterable[Json], had: set[str], has: set[str]) -> bool:
    """Whether something was lost of which no word came, not even that less can be read."""
    rows = [row for row in rows if row["uuid"] in told.heard]
    return bool(had - has) and not rows and not told.gone and not told.narrowed
