# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the database does not say any more of what rows take away, and who could see it until then.

A sweep deletes what is in a project and then the project, a merge hides a user: by the time the
rows are read nothing is left that says who could read it. Where a deleted object was says the row
of its deletion, here or further on, if it is Arvados' own word (`verification`); from where links
led to a user is remembered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from datetime import timedelta
from typing import NamedTuple, TypeVar

from arvados_nats.contract.places import GROUP_INFIX, USER_INFIX, Place
from arvados_nats.contract.subjects import kind_of
from arvados_nats.permissions.object_facts import timestamp
from publishers.events import rows as log_rows
from publishers.events.looks import Looks
from publishers.events.rows import LogRow
from publishers.events.verification import DELETE, WINDOW
from publishers.events.verifier import Verified, Verifier
from publishers.postgres import object_tables, places
from publishers.postgres.database import Database
from publishers.postgres.places import Places

_REMEMBERED = 20_000
"""Objects that are gone, and users."""
_DEEPEST = 50
"""Projects inside one another that are gone."""


class Last(NamedTuple):
    """Where a deleted object was, and its state as of a group."""

    owner: str
    trash_at: float | None
    frozen: bool


Gone = Mapping[str, Last]
SeenBy = Mapping[str, tuple[str, ...]]
T = TypeVar("T")


class Former:
    """One term of leading; rows must be given in the order in which they are published."""

    def __init__(self, database: Database, looks: Looks, verifier: Verifier) -> None:
        self._database = database
        self._looks = looks
        self._verifier = verifier
        self._gone: OrderedDict[str, Last] = OrderedDict()
        self._shown: OrderedDict[str, tuple[str, ...]] | None = None

    async def gone(
        self, rows: Iterable[LogRow], verified: Mapping[str, Verified], missing: AbstractSet[str]
    ) -> Gone:
        """Of these, which the database does not have, and of what they were in: where they were."""
        for row in rows:
            if row.event_type == DELETE:
                self._take(row, verified.get(row.uuid))
        missing = {uuid for uuid in missing if _leaves_rows(uuid)}
        found: dict[str, Last] = {}
        for _ in range(_DEEPEST):
            unknown = missing - self._gone.keys()
            if unknown:
                await self._look_ahead(unknown)
            new = {uuid: self._gone[uuid] for uuid in missing if uuid in self._gone}
            found |= new
            owners = {last.owner for last in new.values() if last.owner[5:12] == GROUP_INFIX}
            missing = owners - found.keys()
            missing -= (
                await object_tables.read(self._database, missing - self._gone.keys())
            ).keys()
            if not missing:
                break
        return found

    async def _look_ahead(self, uuids: AbstractSet[str]) -> None:
        """Their deletions may be among the rows that come next."""
        begin = await log_rows.now(self._database) - timedelta(seconds=WINDOW)
        claims, covered = await self._looks.about(dict.fromkeys(uuids, begin))
        for uuid, about in claims.items():
            verified = self._verifier.look(about, covered[uuid])
            for claim in about:
                if claim.row.event_type == DELETE:
                    self._take(claim.row, verified.get(claim.row.uuid))
            if uuid in self._gone:
                self._looks.helped(uuid)

    def _take(self, row: LogRow, verified: Verified | None) -> None:
        verdict, said = verified or (None, {})
        old = said.get("old_attributes")
        if not verdict or row.object_uuid is None or not isinstance(old, dict):
            return
        if not isinstance(owner := old.get("owner_uuid"), str):
            return
        trash_at = timestamp(old.get("trash_at"))
        _keep(self._gone, row.object_uuid, Last(owner, trash_at, bool(old.get("frozen_by_uuid"))))

    async def seen_by(self, rows: Iterable[LogRow]) -> tuple[SeenBy, SeenBy]:
        """From where links lead to the users that rows are about: now, and until then."""
        if self._shown is None:
            found = await places.seen_by_newest(self._database, _REMEMBERED)
            self._shown = OrderedDict(found)
        named: set[str] = set()
        left: set[tuple[str, str]] = set()
        for row in rows:
            ends = list(_ends(row))
            named.update(head for head, _ in ends)
            left.update(ends if row.event_type == DELETE else ())
        named = {uuid for uuid in named if uuid[5:12] == USER_INFIX}
        now = await places.seen_by(self._database, named)
        before = {
            user: tuple(tail for tail in self._shown.get(user, ()) if (user, tail) not in left)
            for user in named
        }
        for user in named:
            _keep(self._shown, user, now.get(user, ()))
        return now, before


def _leaves_rows(uuid: str) -> bool:
    """Whether it can be gone, and its deletion be proven: a row names what its poster likes."""
    kind = kind_of(uuid)
    return kind is not None and object_tables.can_read(kind.name)


def _ends(row: LogRow) -> Iterator[tuple[str, str]]:
    """The user that a row is about; head and tail of a link that it names."""
    if row.kind == "user":
        yield row.object_uuid or "", ""
    if row.kind == "link":
        for side in ("old_attributes", "new_attributes"):
            said = (row.properties or {}).get(side)
            if isinstance(said, dict):
                yield str(said.get("head_uuid")), str(said.get("tail_uuid"))


def place(uuid: str, gone: Gone, known: Places) -> Place:
    """Where a group that is gone was: below what is `known` of the first owner that is there."""
    above: list[str] = []
    times: list[float | None] = []
    frozen = False
    while (last := gone.get(uuid if not above else above[-1])) and len(above) < _DEEPEST:
        above.append(last.owner)
        times.append(last.trash_at)
        frozen |= last.frozen
    if (top := known.get(above[-1] if above else uuid)) is not None:
        above += top.above
        times.append(top.trash_at)
        frozen |= top.frozen
    return Place(uuid, tuple(above), min(filter(None, times), default=None), frozen)


def _keep(kept: OrderedDict[str, T], key: str, value: T) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > _REMEMBERED:
        kept.popitem(last=False)
