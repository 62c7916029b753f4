# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Tells of each row of the logs table whether it is Arvados' own word (`verification`).

Mostly the rows that were read together, the objects as they are now, and what was seen of them
before suffice. Where the object is further than these rows, or was not seen before, the other rows
about it are read too: at most so many, and what that leaves open is not known.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any

from arvados_nats.permissions.object_facts import timestamp
from publishers.events import rows as log_rows
from publishers.events.looks import Looks
from publishers.events.rows import LogRow
from publishers.events.verification import (
    CHANGES,
    DELETE,
    WINDOW,
    Chain,
    Claim,
    Present,
    Seen,
    Verdict,
    chain,
)
from publishers.postgres import object_tables
from publishers.postgres.object_tables import Record

_REMEMBERED = 20_000
"""Objects whose last state is kept, some 400 bytes each."""
_LATE = 60.0
"""A row may come so long after younger ones about the same object."""

Verified = tuple[Verdict, dict[str, Any]]
"""Whether a row is true, and what is to be passed on of it."""


class Verifier:
    """One term of leading; rows must be given in the order in which they are published."""

    def __init__(self, looks: Looks) -> None:
        self._looks = looks
        self._seen: OrderedDict[str, Seen] = OrderedDict()

    async def verify(
        self, rows: Sequence[LogRow], records: Mapping[str, Record]
    ) -> dict[str, Verified]:
        """By uuid of the row; `records` were read after the rows."""
        about: defaultdict[str, list[LogRow]] = defaultdict(list)
        for row in rows:
            if row.object_uuid and row.event_type in (*CHANGES, DELETE):
                if object_tables.can_read(row.kind):
                    about[row.object_uuid].append(row)
        own = {record["xmin"] for record in records.values()}
        judged: dict[str, _Judged] = {}
        async for uuid in log_rows.in_turns(about):
            judged[uuid] = self._judge(about[uuid], records.get(uuid), own)
        if open_ones := {uuid: found.begin for uuid, found in judged.items() if found.is_open}:
            states = {uuid: records[uuid]["xmin"] for uuid in open_ones if uuid in records}
            read = {one.row.version: one for uuid in open_ones for one in judged[uuid].claims}
            more, covered = await self._looks.about(open_ones, states, read)
            async for uuid in log_rows.in_turns(covered):
                if judged[uuid].look_again(more.get(uuid, ()), covered[uuid]):
                    self._looks.helped(uuid)
        proven = {xid for found in judged.values() for xid in found.proven}
        verified: dict[str, Verified] = {}
        for uuid, found in judged.items():
            found.believe(proven)
            verified |= found.verified()
            self._remember(uuid, found)
        return verified

    def look(self, claims: Sequence[Claim], covered: datetime) -> dict[str, Verified]:
        """What is to be said of rows about an object that is gone, before they are published: all
        since `covered`, in any order."""
        claims = [claim for claim in claims if claim.row.event_type in (*CHANGES, DELETE)]
        if not claims or not object_tables.can_read(claims[0].row.kind):
            return {}
        judged = _Judged(claims, None, self._seen.get(claims[0].row.object_uuid or ""), set())
        judged.look_again((), covered)
        return judged.verified()

    def _judge(
        self, rows: Sequence[LogRow], record: Record | None, own: AbstractSet[int]
    ) -> _Judged:
        uuid, kind = rows[0].object_uuid or "", rows[0].kind
        present = None if record is None else Present.of(kind, record)
        claims = [self._looks.claim(row) for row in rows]
        return _Judged(claims, present, self._seen.get(uuid), own)

    def _remember(self, uuid: str, found: _Judged) -> None:
        if (seen := found.seen_now()) is not None:
            self._seen[uuid] = seen
            self._seen.move_to_end(uuid)
            if len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)


class _Judged:
    """The rows about one object that are published together."""

    def __init__(
        self,
        claims: Sequence[Claim],
        present: Present | None,
        seen: Seen | None,
        own: AbstractSet[int],
    ) -> None:
        if present is not None and seen is not None and seen.state is None:
            seen = None  # an administrator has made the same uuid anew
        self.claims = claims
        self._present = present
        self._seen = seen
        self._first = min(claim.at for claim in self.claims)
        self._own = own
        self._chain: Chain = chain(self.claims, present, seen, own)

    @property
    def begin(self) -> datetime:
        """Since when other rows about the object may matter."""
        seconds = max(self._first - (_LATE if self._seen else WINDOW), 0.0)
        return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)

    @property
    def is_open(self) -> bool:
        """Whether other rows might tell more."""
        present, since = self._present, self._chain.since
        if present is None:
            return self._seen is not None and self._seen.state is not None
        if self._chain.closed:
            return False
        if not self._chain.links and since is not None and since < self._first:
            return False  # it has not changed for so long that none of these rows can be true
        return any(self._chain.verdict(claim, present) is not True for claim in self.claims)

    def look_again(self, claims: Sequence[Claim], covered: datetime) -> bool:
        """Judge once more beside all other rows since `covered`; whether more is true then."""
        before = self._true()
        known = {claim.row.uuid for claim in self.claims}
        others = [claim for claim in claims if claim.row.uuid not in known]
        begin = timestamp(covered)
        self._chain = chain([*self.claims, *others], self._present, self._seen, self._own, begin)
        return self._true() > before

    def _true(self) -> int:
        return sum(self._chain.verdict(claim, self._present) is True for claim in self.claims)

    @property
    def proven(self) -> set[int]:
        """The transactions of all rows that are true."""
        return {link.row.xid for link in self._chain.links}

    def believe(self, transactions: AbstractSet[int]) -> None:
        """Take the word of these as well: they wrote another object."""
        self._chain.own |= transactions

    def verified(self) -> dict[str, Verified]:
        """What is to be said of each row."""
        found: dict[str, Verified] = {}
        for claim in self.claims:
            verdict = self._chain.verdict(claim, self._present)
            said = claim.row.properties or {}
            proven = self._chain.properties(claim) if verdict is True else said
            found[claim.row.uuid] = verdict, proven
        return found

    def seen_now(self) -> Seen | None:
        """The newest state whose row is published now or was before; None if that is not known."""
        here = {claim.row.uuid for claim in self.claims}
        for link in self._chain.links:
            row = link.row
            if row.uuid in here or link.at < self._first:
                return Seen(link.new, link.at)
        present, since = self._present, self._chain.since
        if present and present.state and not self._chain.links and not self._chain.closed:
            if since is not None and since < self._first:
                return Seen(present.state, since)
        return None
