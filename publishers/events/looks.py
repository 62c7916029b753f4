# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Reads the other rows about objects, and bounds what that costs.

Any user can post any number of rows about any object, each of which says what it never was; were
all others read again for each, a hundred a second would fill a core. A look at a few rows that
proves something is free. Any other counts against an allowance that all objects share; while that
is used up, an object whose last look counted is not looked at again, and what its rows say is not
known unless they prove it by themselves.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime

from publishers.events import rows as log_rows
from publishers.events.rows import LogRow
from publishers.postgres.database import Database

_A_SECOND = 500.0
_AT_ONCE = 10_000.0
"""Rows; each is some 150 us of work."""
_FEW = 100
_REMEMBERED = 20_000
"""Objects whose last look counted."""


class Looks:
    """One term of leading."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._left = _AT_ONCE
        self._counted_at = clock()
        self._counted: OrderedDict[str, int] = OrderedDict()
        """Rows about an object, when it was looked at last."""

    async def about(
        self, since: Mapping[str, datetime]
    ) -> tuple[Mapping[str, list[LogRow]], Mapping[str, datetime]]:
        """Rows about objects, and since when all of an object's are there (`rows.about`); of those
        objects alone that may be looked at. It counts until it `helped`."""
        wanted = {uuid: begin for uuid, begin in since.items() if self._may_look(uuid)}
        if not wanted:
            return {}, {}
        found, covered, every = await log_rows.about(self._database, wanted)
        self._left -= every
        for uuid in wanted:
            self._counted[uuid] = len(found.get(uuid, ()))
            self._counted.move_to_end(uuid)
        while len(self._counted) > _REMEMBERED:
            self._counted.popitem(last=False)
        return found, covered

    def helped(self, uuid: str) -> None:
        """What was read about an object has proven something."""
        if self._counted.get(uuid, 0) <= _FEW:
            self._left += self._counted.pop(uuid, 0)

    def _may_look(self, uuid: str) -> bool:
        now = self._clock()
        self._left = min(self._left + (now - self._counted_at) * _A_SECOND, _AT_ONCE)
        self._counted_at = now
        return uuid not in self._counted or self._left > 0
