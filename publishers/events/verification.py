# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which rows about an object are Arvados' own word: a chain of states that ends at the present.

Pure. Any user can post rows (docs/facts/arvados.md 0.3). What is theirs to choose: id, type, object
and properties; what is not: `created_at`, and the transaction. So a row is Arvados' own if the very
transaction that wrote it also wrote an object, as it still is: nobody can post a row in a
transaction that does anything else. What it names as the old state is the new state of the row
before it, and so on. Of several rows that say the same, the oldest is Arvados': a state can be
copied only when it is there.

An update without effect is true if it says what the object was then. A later row that fits nowhere
in the chain is a lie. Where that cannot be told nothing is said: of a state that was said before,
of a chain with a hole, of an object that is gone and was not seen before.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from arvados_nats.permissions.object_facts import timestamp
from publishers.events import states
from publishers.events.rows import LogRow
from publishers.events.states import State, agree, state_of
from publishers.postgres.object_tables import Record

CHANGES = ("create", "update")
DELETE = "delete"

WINDOW = 31 * 60.0
"""Nothing changes an object so long before the row about it: longer than transactions take.
In seconds."""
_SLACK = 60.0

Verdict = bool | None
"""True: Arvados' own word. False: it is not. None: not known."""


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """What a row says that an object was and is."""

    row: LogRow
    at: float
    """When the row was created, in seconds since 1970."""
    old: State | None
    new: State | None

    @classmethod
    def of(cls, row: LogRow) -> Claim:
        """The claim of a row; Arvados writes no text beside attributes."""
        said = row.properties or {}
        at = timestamp(row.created_at) or 0.0
        if "text" in said:
            return cls(row, at, None, None)
        sides = (said.get("old_attributes"), said.get("new_attributes"))
        old, new = (state_of(row.kind, side) for side in sides)
        return cls(row, at, old, new if row.event_type in CHANGES else None)


class Present(NamedTuple):
    """The object as it is; None for what is not read of its kind."""

    state: State | None
    modified_at: float | None
    created_at: float | None

    @classmethod
    def of(cls, kind: str, record: Record) -> Present:
        """What a record says."""
        return cls(
            state_of(kind, record),
            timestamp(record.get("modified_at")),
            timestamp(record.get("created_at")),
        )


class Seen(NamedTuple):
    """The last state that was proven, None of an object that is gone, and since when it was so."""

    state: State | None
    at: float


@dataclass(slots=True)
class Chain:
    """The rows of one object that are proven, newest first."""

    links: list[Claim] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    """All states from the oldest link, or from the one seen, to the present."""
    since: float | None = None
    """From when on the chain has no hole."""
    closed: bool = False
    """It reaches the state that was seen before."""
    own: set[int] = field(default_factory=set)
    """Transactions that wrote an object, too: all rows of theirs are Arvados' own."""

    def verdict(self, claim: Claim, present: Present | None) -> Verdict:
        """What is to be said of a row."""
        row = claim.row
        if claim in self.links or (row.xid in self.own and row.event_type in (*CHANGES, DELETE)):
            return True
        if row.event_type == DELETE and present is not None:
            born = present.created_at
            return False if born is None or born < claim.at else None
        if row.event_type not in (*CHANGES, DELETE) or row.properties == {"truncated": True}:
            return None
        if any(agree(claim.new, state) for state in self.states):
            return True if present is not None and self._changes_nothing(claim) else None
        return False if self.since is not None and claim.at > self.since else None

    def _changes_nothing(self, claim: Claim) -> bool:
        """Whether it is an update without effect, said while the object was just that."""
        if claim.row.event_type != "update" or not agree(claim.old, claim.new):
            return False
        if claim.new is None or states.modified_at(claim.row.kind, claim.new) is None:
            return False
        for place, state in enumerate(self.states):
            if agree(claim.new, state):
                begins = self.links[place].at if place < len(self.links) else self.since
                ends = self.links[place - 1].at if place else claim.at
                return begins is not None and begins <= claim.at <= ends
        return False

    def properties(self, claim: Claim) -> dict[str, Any]:
        """What a proven row says, without what nothing was compared with."""
        row = claim.row
        said = row.properties or {}
        if row.xid in self.own:
            return said
        last = self.links[-1] if self.links else None
        joined = claim is not last or self.closed
        sides = ("old_attributes", "new_attributes") if joined else ("new_attributes",)
        return {
            side: states.compared(row.kind, attributes)
            for side in sides
            if isinstance(attributes := said.get(side), dict)
        }


def chain(
    claims: Sequence[Claim],
    present: Present | None,
    seen: Seen | None,
    own: AbstractSet[int],
    covered: float | None = None,
) -> Chain:
    """The proven rows among all claims about an object.

    `own`: transactions that are known to have written an object. `covered`: since when every row
    about it is among the claims; None where that is not known, and then only what those
    transactions or the state seen before prove is proven.
    """
    if present is None:
        return _of_the_gone(claims, seen, own, covered)
    found = Chain(own=set(own))
    if present.state is not None:
        found.states.append(present.state)
        _walk(found, claims, present.state, seen)
    if not found.closed:
        _drop_unproven(found, covered)
    _reach_back(found, present, seen)
    return found


def _of_the_gone(
    claims: Sequence[Claim], seen: Seen | None, own: AbstractSet[int], covered: float | None
) -> Chain:
    """An object that is gone leaves nothing to compare with but what was seen of it before."""
    found = Chain(own=set(own))
    if seen is None:
        return found
    if seen.state is None:
        found.since = seen.at
        return found
    deletes = [claim for claim in claims if claim.row.event_type == DELETE]
    if covered is None or len(deletes) != 1:
        return found
    (last,) = deletes
    found.links.append(last)
    if last.old is not None:
        found.states.append(last.old)
        _walk(found, claims, last.old, seen)
    if not found.closed:
        return Chain(own=set(own))
    found.since = seen.at
    return found


def _walk(found: Chain, claims: Sequence[Claim], last: State, seen: Seen | None) -> None:
    """From a state back to the rows that led there."""
    leading_to = _by_new_state(claims)
    expected: State | None = last
    while expected is not None:
        groups = [leading_to[key] for key in states.keys(expected) if key in leading_to]
        same = [c for group in groups for c in group if agree(c.new, expected)]
        own = [c for c in same if c.row.xid in found.own]
        if not own and seen is not None and agree(seen.state, expected):
            found.closed = True
            return
        if not same:
            return
        first = _oldest(own or same)
        for group in groups:
            if first in group:
                group.remove(first)
        found.links.append(first)
        expected = first.old
        if expected is not None:
            found.states.append(expected)


def _by_new_state(claims: Sequence[Claim]) -> dict[states.Key, list[Claim]]:
    found: dict[states.Key, list[Claim]] = {}
    for claim in claims:
        if claim.new is not None:
            found.setdefault(states.key(claim.new), []).append(claim)
    return found


def _drop_unproven(found: Chain, covered: float | None) -> None:
    """Without the rows that somebody else, who is not among the claims, could have copied."""
    for place, claim in enumerate(found.links):
        if claim.row.xid in found.own or _is_covered(claim, covered):
            continue
        del found.links[place:]
        del found.states[place + 1 :]
        return


def _is_covered(claim: Claim, covered: float | None) -> bool:
    """Whether Arvados' own row about this state is among the claims for sure."""
    if covered is None or claim.new is None:
        return False
    modified = states.modified_at(claim.row.kind, claim.new)
    return modified is not None and modified >= covered + _SLACK


def _reach_back(found: Chain, present: Present, seen: Seen | None) -> None:
    if found.closed and seen is not None:
        found.since = seen.at
    elif found.links:
        found.since = found.links[-1].at
    elif present.modified_at is not None:
        found.since = present.modified_at + WINDOW


def _oldest(claims: Sequence[Claim]) -> Claim:
    """By transaction, which nobody can choose; numbers of transactions begin anew at 2^32."""
    pivot = claims[0].row.xid
    return min(claims, key=lambda c: ((c.row.xid - pivot + 2**31) % 2**32, c.row.id))
