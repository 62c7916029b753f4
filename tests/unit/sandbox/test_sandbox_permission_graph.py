# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of the permission table, one row per line of docs/facts/permission-rule.md."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.model.derived.permission_graph import (
    LEVELS,
    MANAGE,
    REVOKED,
    Change,
    Edge,
    Grant,
    Grants,
    affected,
    everything,
    is_group,
    is_user,
    of_user,
    origins,
    through,
)

ALICE, BOB = "zzzzz-tpzed-alice0000000000", "zzzzz-tpzed-bob000000000000"
REEF, DEEP, ROLE = (f"zzzzz-j7d0g-{name:0<15}" for name in ("reef", "deep", "role"))
FILE = "zzzzz-4zz18-file00000000000"


def _edges(*edges: tuple[str, str, int]) -> list[Edge]:
    return [Edge(tail, head, level, f"{tail}>{head}") for tail, head, level in edges]


@pytest.mark.parametrize(
    ("edges", "target", "grant"),
    [
        pytest.param([], ALICE, Grant(3, True), id="everybody holds himself"),
        pytest.param([(ALICE, REEF, 3)], REEF, Grant(3, True), id="what one owns"),
        pytest.param([(ALICE, REEF, 1)], REEF, Grant(1, True), id="a group is traversed"),
        pytest.param([(ALICE, FILE, 3)], FILE, Grant(3, False), id="a collection owns nothing"),
        pytest.param([(ALICE, BOB, 2)], BOB, Grant(2, False), id="a user below manage is not"),
        pytest.param([(ALICE, BOB, 3)], BOB, Grant(3, True), id="a managed user is traversed"),
        pytest.param(
            [(ALICE, REEF, 1), (REEF, DEEP, 3)], DEEP, Grant(1, True), id="the least of a path"
        ),
        pytest.param(
            [(ALICE, REEF, 1), (REEF, DEEP, 3), (ALICE, ROLE, 3), (ROLE, DEEP, 2)],
            DEEP,
            Grant(2, True),
            id="the best of several paths",
        ),
        pytest.param(
            [(ALICE, ROLE, 1), (ROLE, BOB, 3)], BOB, Grant(1, True), id="the last edge's level"
        ),
        pytest.param([(ALICE, BOB, 3), (BOB, REEF, 3)], REEF, None, id="users are not passed"),
        pytest.param(
            [(ALICE, REEF, 3), (REEF, DEEP, 3), (DEEP, REEF, 3)], DEEP, Grant(3, True), id="a loop"
        ),
    ],
)
def test_what_a_user_holds(
    edges: list[tuple[str, str, int]], target: str, grant: Grant | None
) -> None:
    """Levels are the minimum along a path and the maximum over paths; only groups are passed."""
    assert of_user(ALICE, _edges(*edges)).get((ALICE, target)) == grant


def test_a_revoked_hold_on_a_user_leaves_its_reach_behind() -> None:
    """The stale rows of a real Arvados: the level falls, traverse_owned stays (step 35)."""
    edges = _edges((ALICE, ROLE, 2), (ROLE, BOB, 1), (ALICE, BOB, 3))
    change = Change(ALICE, BOB, REVOKED, f"{ALICE}>{BOB}")

    assert of_user(ALICE, edges, change)[ALICE, BOB] == Grant(1, True)
    assert of_user(ALICE, edges[:2])[ALICE, BOB] == Grant(1, False)


def test_a_change_at_a_group_touches_what_is_below_it() -> None:
    """Nothing above and nothing beside the changed edge is computed again."""
    edges = _edges((REEF, DEEP, 3), (DEEP, FILE, 1), (ALICE, REEF, 3))

    assert set(affected(edges, Change(ROLE, REEF, 2, "link"))) == {REEF, DEEP, FILE}


USERS = [f"zzzzz-tpzed-{n:0>15}" for n in range(3)]
GROUPS = [f"zzzzz-j7d0g-{n:0>15}" for n in range(5)]
NODES = [*USERS, *GROUPS, FILE]
edge_lists = st.lists(
    st.tuples(st.sampled_from([*USERS, *GROUPS]), st.sampled_from(NODES), st.integers(1, 3)),
    max_size=12,
    unique_by=lambda edge: (edge[0], edge[1]),
)


def _table(edges: list[Edge]) -> Grants:
    return everything(edges, USERS)


def _after(edges: list[Edge], change: Change, old: Grants) -> Grants:
    """What permission_table does at a group, with lists in place of queries."""
    inner = [e for e in edges if is_group(e.tail)]
    targets = affected(inner, change)
    found = origins(inner, [e for e in edges if e.head in targets], change)
    holders = [
        (user, target, grant.level)
        for (user, target), grant in old.items()
        if target in found and grant.traverse_owned and (user == target or not is_user(target))
    ]
    new = {key: grant for key, grant in old.items() if key[1] not in targets}
    return new | through(found, holders)


@given(edge_lists, st.sampled_from(GROUPS), st.sampled_from(NODES), st.integers(1, 3))
def test_a_new_edge_from_a_group_gives_the_same_as_computing_anew(
    pairs: list[tuple[str, str, int]], tail: str, head: str, level: int
) -> None:
    """The part that is computed after a change is all that changes."""
    old_edges = [e for e in _edges(*pairs) if (e.tail, e.head) != (tail, head) and e.tail != e.head]
    if tail == head:
        return
    new_edge = Edge(tail, head, level, "new")
    before = _table([*old_edges, *_edges(*((u, u, 3) for u in USERS))])
    edges = [*old_edges, *_edges(*((u, u, 3) for u in USERS)), new_edge]

    assert _after(edges, Change(tail, head, level, "new"), before) == _table(edges)


def test_levels_are_the_names_of_links() -> None:
    """can_login reads, like can_read; manage is the highest."""
    assert LEVELS["can_login"] == LEVELS["can_read"] == 1
    assert max(LEVELS.values()) == LEVELS["can_manage"] == MANAGE
