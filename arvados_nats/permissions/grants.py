# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What one user may read, as the permission publisher answers it and every reader keeps it.

Pure. `permissions.decide` asks these values about one object; `grant_subjects` turns them into NATS
subjects and tells two generations of them apart. They are known where access was given, not for
each project (`share_points`). The rows come from `materialized_permissions`:
the API's `computed_permissions` lacks `traverse_owned`, and a graph of our own disagrees with
Arvados where its table is out of date (docs/facts/permission-rule.md, "Where the inputs must come
from").

`P(u,t)` is the row of user u and target t; `U_n(u)` is u and every user target of u with level
>= n and `traverse_owned`. The U sets are folded in when `Grants` is built, so a decision is two
look-ups.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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


class PermissionRow(NamedTuple):
    """A row of `materialized_permissions`; `level` 1 read, 2 write, 3 manage."""

    user_uuid: str
    target_uuid: str
    level: int
    traverse_owned: bool


class PermissionRows(NamedTuple):
    """The rows of one user that are alike but for their target."""

    level: int
    traverse_owned: bool
    targets: Sequence[str]


class ClusterState(msgspec.Struct, frozen=True):
    """The part of the rule that is the same for every user.

    `trashed` is the table `trashed_groups` (group uuid to trash time in seconds since 1970, a time
    to come included), `frozen` the table `frozen_groups`; both list the groups inside as well. What
    is known of them stands in `Place`, so here are those of the object in question.
    `role_groups_visible` is `Users.RoleGroupsVisibleToAll`; None: nobody has said.
    """

    trashed: dict[str, float] = {}
    frozen: frozenset[str] = frozenset()
    role_groups_visible: bool | None = True


class Grants(msgspec.Struct, frozen=True):
    """Everything the rule needs to know about one user.

    `targets` maps each uuid the user reaches to the bits above: as grants are kept and travel, the
    share points alone; as `permissions.decide` takes them, all that one object's facts name
    (`share_points`). `generation` orders two answers about the same user, whichever replica gave
    them: the higher one saw the later database.
    """

    user_uuid: str
    is_admin: bool = False
    is_active: bool = False
    targets: dict[str, int] = {}
    cluster: ClusterState = ClusterState()
    generation: int = 0


def grouped(rows: Iterable[PermissionRow]) -> dict[str, list[PermissionRows]]:
    """Rows by user, those alike together."""
    found: dict[str, dict[tuple[int, bool], list[str]]] = {}
    for user, target, level, traverse_owned in rows:
        found.setdefault(user, {}).setdefault((level, traverse_owned), []).append(target)
    return {
        user: [PermissionRows(*alike, targets) for alike, targets in groups.items()]
        for user, groups in found.items()
    }


def fold(user_uuid: str, rows_of: Mapping[str, Iterable[PermissionRows]]) -> dict[str, int]:
    """The bits of every target of one user.

    `rows_of` holds the user's own rows and those of every user in `stand_ins` of them; a missing
    user has none.
    """
    own = rows_of.get(user_uuid, ())
    targets: dict[str, int] = {}
    _add_rows(targets, own, manages=True, extra=OWN_ROW)
    for other, level in stand_ins(user_uuid, own).items():
        _add_rows(targets, rows_of.get(other, ()), manages=level >= MANAGE_LEVEL, extra=0)
    return targets


def stand_ins(user_uuid: str, rows: Iterable[PermissionRows]) -> dict[str, int]:
    """The users whose rows count for the user as well, with his level on them: U_1 without him."""
    return {
        target: level
        for level, traverse_owned, targets in rows
        if traverse_owned and level >= READ_LEVEL
        for target in targets
        if _USER_INFIX in target and target != user_uuid
    }


def _add_rows(
    targets: dict[str, int], rows: Iterable[PermissionRows], *, manages: bool, extra: int
) -> None:
    for level, traverse_owned, found in rows:
        if level < READ_LEVEL:
            continue
        bits = DIRECT | extra
        if traverse_owned:
            bits |= OWNED
        if manages and level >= MANAGE_LEVEL:
            bits |= MANAGES | MANAGES_OWNED if traverse_owned else MANAGES
        for target in found:
            targets[target] = targets.get(target, 0) | bits
