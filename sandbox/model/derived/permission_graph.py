# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who may read what: the arithmetic of `materialized_permissions`.

Pure. Edges are ownership (3), a user's hold on themselves (3) and permission links (1, 2, 3). The
level along a path is its minimum, of several paths the maximum; only groups are passed through,
and the user it starts from. What a target owns is traversed if it is a group, or a user whose
last edge is 3 (docs/facts/permission-rule.md).

A revoked edge is still in the graph while Arvados computes: it counts as level 0, but its
`traverse_owned` counts as if it were there. That is where Arvados' stale rows come from, and
the sandbox has them too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

MANAGE = 3
REVOKED = 0
LEVELS = {"can_read": 1, "can_login": 1, "can_write": 2, "can_manage": 3}


class Edge(NamedTuple):
    """`tail` has `level` on `head`; `edge_id` names the link, or the owned object."""

    tail: str
    head: str
    level: int
    edge_id: str


class Grant(NamedTuple):
    """One user's hold on one target."""

    level: int
    traverse_owned: bool


class Change(NamedTuple):
    """The edge that is being added, changed or (level 0) removed."""

    origin: str
    start: str
    level: int
    edge_id: str


Grants = dict[tuple[str, str], Grant]


def is_group(uuid: str) -> bool:
    """Whether the uuid is a group's."""
    return uuid[5:12] == "-j7d0g-"


def is_user(uuid: str) -> bool:
    """Whether the uuid is a user's."""
    return uuid[5:12] == "-tpzed-"


def traverses(head: str, level: int) -> bool:
    """Whether a hold of this level on `head` extends to what it owns."""
    return is_group(head) or (is_user(head) and level >= MANAGE)


class Reach:
    """What is reached from a set of starting points, best level first found or improved."""

    def __init__(self, edges: Mapping[str, list[Edge]], change: Change | None) -> None:
        self._edges = edges
        self._change = change
        self.grants: dict[str, Grant] = {}

    def add(self, target: str, level: int, *, traverse: bool, expand: bool) -> None:
        """Start from `target` held at `level`, and follow groups from there."""
        queue = [target] if self._improve(target, level, traverse) and expand else []
        while queue:
            tail = queue.pop()
            held = self.grants[tail].level
            for edge in self._edges.get(tail, ()):
                passed = min(held, self._level(edge))
                better = self._improve(edge.head, passed, traverses(edge.head, edge.level))
                if better and is_group(edge.head):
                    queue.append(edge.head)

    def _level(self, edge: Edge) -> int:
        change = self._change
        return change.level if change and change.edge_id == edge.edge_id else edge.level

    def _improve(self, target: str, level: int, traverse: bool) -> bool:
        had = self.grants.get(target)
        if had is None:
            self.grants[target] = Grant(level, traverse)
            return True
        self.grants[target] = Grant(max(had.level, level), had.traverse_owned or traverse)
        return level > had.level


def by_tail(edges: Iterable[Edge]) -> dict[str, list[Edge]]:
    """Edges indexed by where they start."""
    index: dict[str, list[Edge]] = defaultdict(list)
    for edge in edges:
        index[edge.tail].append(edge)
    return index


def of_user(user: str, edges: Iterable[Edge], change: Change | None = None) -> Grants:
    """All grants of one user; `edges` holds at least those they can reach."""
    reach = Reach(by_tail(edges), change)
    reach.add(user, MANAGE, traverse=True, expand=True)
    return {(user, target): g for target, g in reach.grants.items() if g.level > 0}


def affected(edges: Iterable[Edge], change: Change) -> dict[str, Grant]:
    """The targets whose readers may change, with the changed edge's own hold on them."""
    reach = Reach(by_tail(edges), change)
    reach.add(
        change.start,
        change.level,
        traverse=traverses(change.start, change.level),
        expand=change.origin == change.start or not is_user(change.start),
    )
    return reach.grants


def origins(
    inner: Iterable[Edge], inbound: Iterable[Edge], change: Change
) -> dict[str, dict[str, Grant]]:
    """Where holds on the affected targets come from: origin -> target -> grant.

    `inner` are the edges among the affected, `inbound` all edges that lead to one of them.
    """
    index = by_tail(inner)
    targets = affected(inner, change)
    found = {change.origin: targets}
    outside: dict[str, Reach] = {}
    for edge in inbound:
        if edge.edge_id == change.edge_id or (is_group(edge.tail) and edge.tail in targets):
            continue
        reach = outside.setdefault(edge.tail, Reach(index, change))
        reach.add(
            edge.head,
            edge.level,
            traverse=traverses(edge.head, edge.level),
            expand=is_group(edge.head),
        )
    for origin, reach in outside.items():
        found[origin] = _merged(found[origin], reach.grants) if origin in found else reach.grants
    return found


def _merged(one: dict[str, Grant], other: dict[str, Grant]) -> dict[str, Grant]:
    merged = dict(one)
    for target, grant in other.items():
        had = merged.get(target, Grant(0, False))
        merged[target] = Grant(
            max(had.level, grant.level), had.traverse_owned or grant.traverse_owned
        )
    return merged


def through(
    found: Mapping[str, Mapping[str, Grant]], holders: Iterable[tuple[str, str, int]]
) -> Grants:
    """Grants of users: `holders` are (user, origin, level) of those who hold the origins."""
    grants: Grants = {}
    for user, origin, held in holders:
        for target, grant in found[origin].items():
            level = min(held, grant.level)
            had = grants.get((user, target))
            if had is None:
                grants[user, target] = Grant(level, grant.traverse_owned)
            else:
                grants[user, target] = Grant(
                    max(had.level, level), had.traverse_owned or grant.traverse_owned
                )
    for target in {t for targets in found.values() for t in targets if is_user(t)}:
        grants[target, target] = Grant(MANAGE, True)
    return {key: grant for key, grant in grants.items() if grant.level > 0}


def everything(edges: Iterable[Edge], users: Iterable[str]) -> Grants:
    """The whole table from nothing, as Arvados' full refresh computes it."""
    index = by_tail(edges)
    grants: Grants = {}
    for user in users:
        reach = Reach(index, None)
        reach.add(user, MANAGE, traverse=True, expand=True)
        grants.update({(user, t): g for t, g in reach.grants.items() if g.level > 0})
    return grants
