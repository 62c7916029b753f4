# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Rows of materialized_permissions folded into what one user reaches."""

from __future__ import annotations

import time

import pytest

from arvados_nats.permissions.grants import (
    DIRECT,
    MANAGES,
    MANAGES_OWNED,
    OWN_ROW,
    OWNED,
    PermissionRow,
    fold,
    grouped,
    stand_ins,
)

ME = "zzzzz-tpzed-000000000000me0"
BOSS = "zzzzz-tpzed-0000000000boss0"
PROJECT = "zzzzz-j7d0g-000000000000pro"
INNER = "zzzzz-j7d0g-000000000000inn"
COLLECTION = "zzzzz-4zz18-000000000000001"
SELF = PermissionRow(ME, ME, 3, True)

FOLD = [
    # id, my row on the other user (level, traverse), that user's row, bits of the project
    ("own row, read", None, PermissionRow(ME, PROJECT, 1, True), DIRECT | OWNED | OWN_ROW),
    ("own row, no traverse", None, PermissionRow(ME, PROJECT, 1, False), DIRECT | OWN_ROW),
    ("own row, write", None, PermissionRow(ME, PROJECT, 2, True), DIRECT | OWNED | OWN_ROW),
    (
        "own row, manage",
        None,
        PermissionRow(ME, PROJECT, 3, True),
        DIRECT | OWNED | OWN_ROW | MANAGES | MANAGES_OWNED,
    ),
    ("own row, manage, no traverse", None, PermissionRow(ME, PROJECT, 3, False), 1 | 4 | 16),
    ("level 0 is no row", None, PermissionRow(ME, PROJECT, 0, True), 0),
    ("x in U_1", (1, True), PermissionRow(BOSS, PROJECT, 1, True), DIRECT | OWNED),
    ("x without traverse_owned", (1, False), PermissionRow(BOSS, PROJECT, 1, True), 0),
    ("x in U_1 but not in U_3", (2, True), PermissionRow(BOSS, PROJECT, 3, True), DIRECT | OWNED),
    (
        "x in U_3",
        (3, True),
        PermissionRow(BOSS, PROJECT, 3, True),
        DIRECT | OWNED | MANAGES | MANAGES_OWNED,
    ),
    ("x in U_3, no traverse", (3, False), PermissionRow(BOSS, PROJECT, 3, True), 0),
]


@pytest.mark.parametrize(("name", "mine", "row", "expected"), FOLD)
def test_rows_fold_into_bits(
    name: str, mine: tuple[int, bool] | None, row: PermissionRow, expected: int
) -> None:
    """U_1 and U_3 of docs/facts/permission-rule.md, Inputs."""
    rows = [SELF, row]
    if mine:
        rows.append(PermissionRow(ME, BOSS, *mine))

    assert fold(ME, grouped(rows)).get(PROJECT, 0) == expected, name


def test_ways_to_the_same_target_add_up() -> None:
    """A target reached twice has the bits of both ways."""
    rows = [
        SELF,
        PermissionRow(ME, BOSS, 3, True),
        PermissionRow(ME, PROJECT, 1, False),
        PermissionRow(BOSS, PROJECT, 3, True),
    ]

    assert fold(ME, grouped(rows))[PROJECT] == DIRECT | OWNED | MANAGES | MANAGES_OWNED | OWN_ROW


def test_stand_ins_are_users_reached_with_traverse_owned() -> None:
    """U_1 without the user itself: whose rows must be read as well. One level, not a closure."""
    rows = [
        SELF,
        PermissionRow(ME, BOSS, 1, True),
        PermissionRow(ME, "zzzzz-tpzed-00000000nottrav", 3, False),
        PermissionRow(ME, "zzzzz-tpzed-000000000level0", 0, True),
        PermissionRow(ME, PROJECT, 3, True),
    ]

    assert stand_ins(ME, grouped(rows)[ME]) == {BOSS: 1}


def test_ten_thousand_owners_fold_in_milliseconds() -> None:
    """A user with 10,000 owners is cheap."""
    rows = grouped(PermissionRow(ME, f"zzzzz-j7d0g-{n:015d}", 1, True) for n in range(10_000))

    started = time.process_time()
    targets = fold(ME, rows)

    assert len(targets) == 10_000
    assert time.process_time() - started < 0.1
