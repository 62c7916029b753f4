# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Replicas agree on whose each container is, and a silent one is taken for dead."""

from __future__ import annotations

from collections import Counter

from publishers.container_logs.assignments import Replicas, owner

CONTAINERS = [f"zzzzz-dz642-{n:015d}" for n in range(1000)]


def test_all_replicas_find_the_same_owner() -> None:
    """In whatever order they know of each other."""
    for container in CONTAINERS:
        assert owner(container, ["a", "b", "c"]) == owner(container, ["c", "a", "b"])


def test_containers_are_spread_evenly() -> None:
    """Each of four has about a quarter."""
    shares = Counter(owner(container, ["a", "b", "c", "d"]) for container in CONTAINERS)
    assert all(200 <= share <= 300 for share in shares.values())


def test_one_that_goes_moves_only_its_own() -> None:
    """What belonged to the others stays with them."""
    before = {container: owner(container, ["a", "b", "c"]) for container in CONTAINERS}
    after = {container: owner(container, ["a", "b"]) for container in CONTAINERS}
    assert all(after[c] == before[c] for c in CONTAINERS if before[c] != "c")


def test_alone_everything_is_mine() -> None:
    """A single replica waits for nobody."""
    assert all(Replicas("a").is_mine(container) for container in CONTAINERS)


def test_each_container_is_exactly_one_replicas() -> None:
    """Once they know of each other."""
    one, two = Replicas("a"), Replicas("b")
    one.heard("b", leaving=False, now=0)
    two.heard("a", leaving=False, now=0)
    assert all(one.is_mine(c) != two.is_mine(c) for c in CONTAINERS)


def test_changes_are_told_once() -> None:
    """Coming, leaving and dying are news; being still there is not."""
    told: list[frozenset[str]] = []
    replicas = Replicas("a", expire=3)
    replicas.on_change(lambda: told.append(replicas.others))
    assert replicas.heard("b", leaving=False, now=0)
    assert not replicas.heard("b", leaving=False, now=1)
    assert replicas.heard("c", leaving=False, now=1)
    assert replicas.heard("c", leaving=True, now=2)
    assert not replicas.heard("c", leaving=True, now=2)
    assert not replicas.sweep(now=3.9)
    assert replicas.sweep(now=4)
    assert told == [{"b"}, {"b", "c"}, {"b"}, set()]


def test_own_voice_is_nobody_else() -> None:
    """A replica hears its own announcements."""
    replicas = Replicas("a")
    assert not replicas.heard("a", leaving=False, now=0)
    assert replicas.others == frozenset()


def test_nobody_is_dead_because_we_could_not_hear() -> None:
    """After our own connection was away the others get their time again."""
    replicas = Replicas("a", expire=3)
    replicas.heard("b", leaving=False, now=0)
    replicas.spare(now=100)
    assert not replicas.sweep(now=102)
    assert replicas.sweep(now=103)
