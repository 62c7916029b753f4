# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a history of writes, reads and faults says: lost, doubled, leaked, reordered, late, silent.

Pure, in the spirit of Jepsen's checkers: it knows nothing of the product, only what was done and
what was seen, each with the time of one clock. A history is JSON lines (`Step`):

- `write`: number `n` of `stream` is acknowledged; what is not yet acknowledged may be read.
- `allow` and `revoke`: from now on `reader` may, or may not, read `stream` (`unordered`: nobody
  promised it an order); `permit`: it may, and misses nothing if it does not.
- `read`: `reader` got number `n` of `stream`; `gap`: it was told that something may be missing.
- `begin` and `end` of a `fault`, and `over`: nothing comes after it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec


class Step(msgspec.Struct, omit_defaults=True, frozen=True):
    """One line of a history."""

    t: float
    do: Literal["write", "allow", "permit", "revoke", "read", "gap", "begin", "end", "over"]
    stream: str = ""
    n: int = 0
    reader: str = ""
    fault: str = ""
    unordered: bool = False


@dataclass(frozen=True, slots=True)
class Bounds:
    """Seconds: how late a read may be, for how long after a revocation there may still be any, how
    long after a fault what was written before a revocation, and how soon after something came twice
    the reader has to be told."""

    late: float = 30.0
    revoked: float = 5.0
    held: float = 20.0
    told: float = 10.0


@dataclass(slots=True)
class Verdict:
    """Counts, by what went wrong; `silent` are losses of which the reader was not told."""

    rounds: int = 1
    written: int = 0
    lost: int = 0
    silent: int = 0
    doubled: int = 0
    reordered: int = 0
    leaked: int = 0
    late: int = 0
    told: int = 0
    failed: int = 0
    """Faults that could not be carried out."""
    recovery: float = 0.0
    slowest: str = ""
    """Who read last what was written before, and so made the recovery so long."""
    examples: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Nothing is missing, came twice, out of turn, late, or to somebody who may not have it."""
        bad = self.lost or self.doubled or self.reordered or self.leaked or self.late
        return not (bad or self.failed)


def read(lines: Iterable[str | bytes]) -> list[Step]:
    """A history as it was written down, in the order of time."""
    steps = [msgspec.json.decode(line, type=Step) for line in lines if line.strip()]
    return sorted(steps, key=lambda step: step.t)


def check(steps: Sequence[Step], bounds: Bounds | None = None) -> Verdict:
    """Judge a whole history; `recovery` is the time from the end of the last fault (or from its
    beginning, where it has none) until all that was written before has been read."""
    history = _History(bounds or Bounds())
    for step in steps:
        history.take(step)
    return history.verdict()


class _History:
    """What is known step by step; the verdict at the end."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._found = Verdict()
        self._written: defaultdict[str, dict[int, float]] = defaultdict(dict)
        self._open: dict[tuple[str, str], list[tuple[float, float]]] = {}
        self._free: set[tuple[str, str]] = set()
        self._unordered: set[tuple[str, str]] = set()
        self._seen: defaultdict[tuple[str, str], dict[int, float]] = defaultdict(dict)
        self._since_gap: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
        self._doubled: list[Step] = []
        self._last: dict[tuple[str, str], int] = {}
        self._gaps: defaultdict[str, list[float]] = defaultdict(list)
        self._fault_at: float | None = None
        self._fault_until: float | None = None
        self._under_way = False
        self._now = 0.0

    def take(self, step: Step) -> None:
        self._now = step.t
        match step.do:
            case "write":
                self._written[step.stream].setdefault(step.n, step.t)
            case "allow":
                self._allow(step)
            case "permit":
                self._allow(step)
                self._free.add((step.reader, step.stream))
            case "revoke":
                self._revoke(step)
            case "read":
                self._read(step)
            case "gap":
                self._gap(step)
            case "begin":
                self._fault_at = self._fault_at or step.t
                self._fault_until, self._under_way = step.t, True
            case "end":
                self._fault_until, self._under_way = step.t, False

    def _allow(self, step: Step) -> None:
        spans = self._open.setdefault((step.reader, step.stream), [])
        spans.append((step.t, float("inf")))
        if step.unordered:
            self._unordered.add((step.reader, step.stream))

    def _revoke(self, step: Step) -> None:
        spans = self._open.get((step.reader, step.stream), [])
        if spans and spans[-1][1] == float("inf"):
            spans[-1] = (spans[-1][0], step.t)

    def _gap(self, step: Step) -> None:
        self._found.told += 1
        self._gaps[step.reader].append(step.t)
        for place in [place for place in self._since_gap if place[0] == step.reader]:
            self._since_gap[place].clear()
            self._last.pop(place, None)

    def _read(self, step: Step) -> None:
        place = (step.reader, step.stream)
        spans = self._open.get(place, [])
        written = self._written[step.stream].get(step.n, step.t)
        if not any(begin <= step.t <= self._last_moment(end, written) for begin, end in spans):
            self._note("leaked", step)
        if step.n in self._since_gap[place]:
            self._doubled.append(step)
        elif step.n < self._last.get(place, step.n) and place not in self._unordered:
            self._note("reordered", step)
        self._since_gap[place].add(step.n)
        self._last[place] = max(step.n, self._last.get(place, step.n))
        self._seen[place].setdefault(step.n, step.t)

    def _last_moment(self, end: float, written: float) -> float:
        """Until when something may be read by who was shut out at `end`: a fault can hold up what
        was written before, like all else, but not for long after it is over."""
        soon = end + self._bounds.revoked
        if written > end or self._fault_until is None:
            return soon
        latest = end + self._bounds.late
        if self._under_way:
            return latest
        return min(latest, max(soon, self._fault_until + self._bounds.held))

    def _note(self, what: str, step: Step) -> None:
        setattr(self._found, what, getattr(self._found, what) + 1)
        self._example(f"{what}: {step.reader} {step.stream} {step.n} at {step.t:.3f}")

    def _example(self, text: str) -> None:
        if len(self._found.examples) < 20:
            self._found.examples.append(text)

    def verdict(self) -> Verdict:
        found = self._found
        found.written = sum(len(numbers) for numbers in self._written.values())
        until = self._fault_until
        for step in self._doubled:
            told = self._gaps[step.reader]
            if not any(step.t <= gap <= step.t + self._bounds.told for gap in told):
                self._note("doubled", step)
        for (reader, stream), spans in self._open.items():
            if (reader, stream) in self._free:
                continue
            for n, written in self._written[stream].items():
                if any(begin <= written and written < end for begin, end in spans):
                    self._judge(reader, stream, n, written, until)
        return found

    def _judge(self, reader: str, stream: str, n: int, written: float, until: float | None) -> None:
        seen = self._seen[reader, stream].get(n)
        revoked = all(end < float("inf") for _, end in self._open[reader, stream])
        if seen is None:
            if revoked:
                return  # it was on its way when the right ended
            self._found.lost += 1
            self._example(f"lost: {reader} {stream} {n} written at {written:.3f}")
            if not any(told >= written - self._bounds.late for told in self._gaps[reader]):
                self._found.silent += 1
            return
        begins = max(written, until if until is not None and written <= until else written)
        if seen - begins > self._bounds.late:
            self._found.late += 1
            self._example(f"late: {reader} {stream} {n} after {seen - begins:.1f} s")
        if self._fault_at is not None and until is not None and seen > until >= written:
            if seen - until > self._found.recovery:
                self._found.recovery = seen - until
                self._found.slowest = f"{reader} {stream} {n}, written {written - until:+.1f} s"


COLUMNS = ("rounds", "written", "lost", "doubled", "leaked", "reordered", "late", "silent", "told")


def table(found: dict[str, Verdict]) -> str:
    """The verdicts by fault, as a table of Markdown."""
    head = ("fault", *COLUMNS, "recovery (s)")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for fault, verdict in found.items():
        numbers = [str(getattr(verdict, column)) for column in COLUMNS]
        lines.append(f"| {' | '.join([fault, *numbers, f'{verdict.recovery:.1f}'])} |")
    return "\n".join(lines) + "\n"
