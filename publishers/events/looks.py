# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Reads the other rows about objects, and bounds what that costs.

Any user can post any number of rows about any object, each of which says what it never was; were
all others read again for each, a hundred a second would fill a core. So the rows about an object
are read once for each state of it. A look at a few rows that proves something is free. Any other
counts against an allowance that all objects share; while that is used up, an object whose last look
counted is not looked at again, and what its rows say is not known unless they prove it by
themselves.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from publishers.events import rows as log_rows
from publishers.events.rows import LogRow, Version
from publishers.events.verification import Claim
from publishers.postgres.database import Database

_A_SECOND = 500.0
_AT_ONCE = 10_000.0
"""Rows that are read; each is some 150 us of work."""
_KEPT_COSTS = 0.05
"""Of that a row that was read before."""
_FEW = 100
_REMEMBERED = 20_000
"""Objects whose last look counted."""
_TOGETHER = 100
"""Objects in one question."""
_KEPT_CLAIMS = 20_000
"""Of rows that were read, some 900 bytes each."""

_NOTHING_READ: Mapping[Version, Claim] = {}
_ALL_GONE: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class _Look:
    """The rows about one object as they were at one state of it, without their properties.

    Those that come later prove nothing else about these: they repeat what had been said.
    """

    state: int
    begin: datetime
    covered: datetime
    claims: Mapping[Version, Claim]


class Looks:
    """One term of leading."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._left = _AT_ONCE
        self._counted_at = clock()
        self._counted: OrderedDict[str, float] = OrderedDict()
        """What the last look at an object cost."""
        self._looks: OrderedDict[str, _Look] = OrderedDict()
        self._kept = 0
        """Claims in all of them."""

    async def about(
        self,
        since: Mapping[str, datetime],
        states: Mapping[str, int] = _ALL_GONE,
        read: Mapping[Version, Claim] = _NOTHING_READ,
    ) -> tuple[Mapping[str, Sequence[Claim]], Mapping[str, datetime]]:
        """What rows about objects say, and since when all of an object's are there (`rows.about`);
        of those objects alone that may be looked at. It counts until it `helped`.

        `states`: the transactions that wrote the objects as they are; those without one are gone.
        `read`: rows that the caller has.
        """
        wanted = {uuid: begin for uuid, begin in since.items() if self._may_look(uuid)}
        found: dict[str, Sequence[Claim]] = {}
        covered: dict[str, datetime] = {}
        unknown = []
        for uuid, begin in wanted.items():
            look = self._looks.get(uuid)
            if look is None or look.state != states.get(uuid) or look.begin > begin:
                unknown.append(uuid)
                continue
            self._looks.move_to_end(uuid)
            found[uuid], covered[uuid] = [*look.claims.values()], look.covered
            self._count(uuid, len(look.claims) * _KEPT_COSTS)
            self._left -= self._counted[uuid]
        for start in range(0, len(unknown), _TOGETHER):
            some = {uuid: wanted[uuid] for uuid in unknown[start : start + _TOGETHER]}
            left = self._left
            claims, begins = await self._read(some, states, read)
            found |= claims
            covered |= begins
            if left - self._left >= log_rows.ABOUT_MOST:
                break  # PostgreSQL had no time for these; each question more is seconds more
        return found, covered

    def helped(self, uuid: str) -> None:
        """What was read about an object has proven something."""
        if self._counted.get(uuid, 0) <= _FEW:
            self._left += self._counted.pop(uuid, 0)

    def claim(self, row: LogRow) -> Claim:
        """What a row says, which may be known from a look."""
        look = self._looks.get(row.object_uuid or "")
        known = look.claims.get(row.version) if look else None
        return Claim(row, known.at, known.old, known.new) if known else Claim.of(row)

    def _may_look(self, uuid: str) -> bool:
        now = self._clock()
        self._left = min(self._left + (now - self._counted_at) * _A_SECOND, _AT_ONCE)
        self._counted_at = now
        return uuid not in self._counted or self._left > 0

    async def _read(
        self,
        since: Mapping[str, datetime],
        states: Mapping[str, int],
        read: Mapping[Version, Claim],
    ) -> tuple[dict[str, list[Claim]], Mapping[str, datetime]]:
        have = {**read}
        for uuid in since:
            if uuid in states and (look := self._looks.get(uuid)):
                have |= look.claims
        about = await log_rows.about(self._database, since, have)
        self._left -= about.every
        async for row in log_rows.in_turns(about.read):
            have[row.version] = Claim.of(row)
        found: dict[str, list[Claim]] = {}
        for uuid in since:
            named = [one for one in about.versions.get(uuid, ()) if one in have]
            found[uuid] = [have[one] for one in named]
            self._count(uuid, len(named))
            if uuid in states and named:
                claims = {one: _without_properties(have[one]) for one in named}
                self._keep(uuid, _Look(states[uuid], since[uuid], about.covered[uuid], claims))
        return found, about.covered

    def _count(self, uuid: str, cost: float) -> None:
        self._counted[uuid] = cost
        self._counted.move_to_end(uuid)
        while len(self._counted) > _REMEMBERED:
            self._counted.popitem(last=False)

    def _keep(self, uuid: str, look: _Look) -> None:
        if before := self._looks.pop(uuid, None):
            self._kept -= len(before.claims)
        self._looks[uuid] = look
        self._kept += len(look.claims)
        while self._kept > _KEPT_CLAIMS:
            self._kept -= len(self._looks.popitem(last=False)[1].claims)


def _without_properties(claim: Claim) -> Claim:
    row = msgspec.structs.replace(claim.row, properties=None)
    return Claim(row, claim.at, claim.old, claim.new)
