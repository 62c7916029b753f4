# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What one user may read, as the permission publisher answers it and every reader keeps it.

Pure. `permissions.decide` asks these values about one object; `grant_subjects` turns them into NATS
subjects and tells two generations of them apart. The rows come from `materialized_permissions`:
the API's `computed_permissions` lacks `traverse_owned`, and a graph of our own disagrees with
Arvados where its table is out of date (facts/permission-rule.md, "Where the inputs must come
from").

`P(u,t)` is the row of user u and target t; `U_n(u)` is u and every user target of u with level
>= n and `traverse_owned`. The U sets are folded in when `Grants` is built, so a decision is two
look-ups.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

DIRECT = 1
"""Some x in U_1 has P(x, target)."""
OWNED = 2
"""Some x in U_1 has P(x, target) with traverse_owned: what the target owns is readable."""
MANAGES = 4
"""Some x in U_3 has P(x, target) with level >= 3."""
MANAGES_OWNED = 8
"""Some x in U_3 has P(x, target) with level >= 3 and traverse_owned."""
OWN_ROW = 16
"""The user itself has P(user, target); log rows are judged by these alone."""

READ_LEVEL = 1
MANAGE_LEVEL = 3

_USER_INFIX = "-tpzed-"
_GROUP_INFIX = "-j7d0g-"
_LIVE_INFIXES = frozenset({_GROUP_INFIX, "-4zz18-", "-xvhdp-", "-7fd4e-"})


class PermissionRow(NamedTuple):
    """A row of `materialized_permissions`; `level` 1 read, 2 write, 3 manage."""

    user_uuid: str
    target_uuid: str
    level: int
    traverse_owned: bool


class ClusterState(msgspec.Struct, frozen=True):
    """The part of the rule that is the same for every user.

    `trashed` is the table `trashed_groups` (group uuid to trash time in seconds since 1970, a time
    to come included), `frozen` the table `frozen_groups`; both list the groups inside as well.
    `role_groups_visible` is `Users.RoleGroupsVisibleToAll`.
    """

    trashed: dict[str, float] = {}
    frozen: frozenset[str] = frozenset()
    role_groups_visible: bool = True
    generation: int = 0

    def is_trashed(self, group_uuid: str, now: float) -> bool:
        """Whether the group, or one above it, is in the trash at `now`."""
        trash_at = self.trashed.get(group_uuid)
        return trash_at is not None and trash_at <= now


class Grants(msgspec.Struct, frozen=True):
    """Everything the rule needs to know about one user.

    `targets` maps each uuid the user reaches to the bits above. `owner_of` gives the present owner
    of targets whose own changes do not reach a NATS reader through that owner: objects shared
    directly, and groups whose owner is not readable. `generation` orders two answers about the same
    user, whichever replica gave them: the higher one saw the later database.
    """

    user_uuid: str
    is_admin: bool = False
    is_active: bool = False
    targets: dict[str, int] = {}
    owner_of: dict[str, str] = {}
    cluster: ClusterState = ClusterState()
    generation: int = 0

    def owners(self) -> Iterable[str]:
        """Uuids whose possessions are readable, trashed ones included."""
        return (uuid for uuid, bits in self.targets.items() if bits & OWNED)

    def objects(self) -> Iterable[str]:
        """Uuids readable by themselves which own nothing readable."""
        return (uuid for uuid, bits in self.targets.items() if bits & (DIRECT | OWNED) == DIRECT)


def fold(user_uuid: str, rows_of: Mapping[str, Iterable[PermissionRow]]) -> dict[str, int]:
    """The bits of every target of one user.

    `rows_of` holds the user's own rows and those of every user in `stand_ins` of them; a missing
    user has none.
    """
    own = rows_of.get(user_uuid, ())
    targets: dict[str, int] = {}
    _add_rows(targets, own, manages=True, extra=OWN_ROW)
    for row in own:
        if row.traverse_owned and row.target_uuid != user_uuid and _USER_INFIX in row.target_uuid:
            rows = rows_of.get(row.target_uuid, ())
            _add_rows(targets, rows, manages=row.level >= MANAGE_LEVEL, extra=0)
    return targets


def stand_ins(rows: Iterable[PermissionRow]) -> set[str]:
    """The users whose rows count for the user of `rows` as well: U_1 without the user itself."""
    return {
        row.target_uuid
        for row in rows
        if row.traverse_owned
        and row.level >= READ_LEVEL
        and _USER_INFIX in row.target_uuid
        and row.target_uuid != row.user_uuid
    }


def _add_rows(
    targets: dict[str, int], rows: Iterable[PermissionRow], *, manages: bool, extra: int
) -> None:
    for _, target, level, traverse_owned in rows:
        if level < READ_LEVEL:
            continue
        bits = DIRECT | extra
        if traverse_owned:
            bits |= OWNED
        if manages and level >= MANAGE_LEVEL:
            bits |= MANAGES | MANAGES_OWNED if traverse_owned else MANAGES
        targets[target] = targets.get(target, 0) | bits


def with_live_owner(targets: Mapping[str, int]) -> list[str]:
    """The targets whose owner must be looked up for `owner_of`: kinds that the live tree holds."""
    return [uuid for uuid in targets if uuid[5:12] in _LIVE_INFIXES]


def owners_beside(targets: Mapping[str, int], owners: Mapping[str, str]) -> dict[str, str]:
    """`Grants.owner_of` from owners that were found; groups below a readable one are left out."""
    return {
        uuid: owner
        for uuid, owner in owners.items()
        if uuid in targets
        and not (uuid[5:12] == _GROUP_INFIX and targets.get(owner, 0) & OWNED)
    }
