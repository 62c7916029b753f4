# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What readers rely on, whom an event can concern, and what there is to tell."""

from __future__ import annotations

import pytest

from arvados_nats.permission_client import grants_messages
from arvados_nats.permission_client.grants_messages import GrantsAnswered
from arvados_nats.permissions.grants import DIRECT, OWNED, ClusterState, Grants
from publishers.permissions.query import Known, Reading
from publishers.permissions.watched import Watch

ME = "zzzzz-tpzed-000000000000me0"
BOSS = "zzzzz-tpzed-0000000000boss0"
MEMBER = "zzzzz-tpzed-00000000member0"
STRANGER = "zzzzz-tpzed-000000stranger0"
PROJECT = "zzzzz-j7d0g-000000000000pro"
ROLE = "zzzzz-j7d0g-000000000000rol"
COLLECTION = "zzzzz-4zz18-000000000000001"
READS = DIRECT | OWNED
NOW = 1_800_000_000.0


def known(generation: int = 1, **state: object) -> Known:
    cluster = ClusterState(**state, generation=generation)  # type: ignore[arg-type]
    return Known(cluster, grants_messages.cluster_version(cluster), str(cluster))


NOTHING = known()


def reading(
    generation: int, *grants: Grants, cluster: Known = NOTHING, now: float = NOW, **sources: str
) -> Reading:
    numbered = {
        g.user_uuid: Grants(
            g.user_uuid, g.is_admin, g.is_active, g.targets, g.owner_of, cluster.state, generation
        )
        for g in grants
    }
    found = {user: frozenset({user, *sources.values()}) for user in numbered}
    versions = {user: grants_messages.grants_version(grants) for user, grants in numbered.items()}
    digests = dict.fromkeys(found, "digest")
    return Reading(generation, now, cluster, numbered, versions, found, digests)


def note(found: Reading) -> GrantsAnswered:
    return GrantsAnswered(found.generation, found.cluster.version, dict(found.versions))


def watching(found: Reading) -> Watch:
    """A watch whose users were answered and read."""
    watch = Watch()
    watch.answered(note(found))
    assert list(watch.take(found, "answer")) == []
    return watch


MINE = Grants(ME, False, True, {ME: READS, PROJECT: READS}, {COLLECTION: PROJECT})


def test_a_new_user_is_read_and_nothing_is_told() -> None:
    """The first reading agrees with the answer that made us watch."""
    watch = Watch()

    assert watch.answered(note(reading(1, MINE))) == {ME}
    assert list(watch.take(reading(2, MINE), "answer")) == []
    assert watch.answered(note(reading(3, MINE))) == set()
    assert watch.users() == [ME]


def test_a_change_between_the_answer_and_the_first_reading_is_told() -> None:
    """Another replica answered; by the time we read, it was different."""
    watch = Watch()
    watch.answered(note(reading(1, MINE)))

    told = list(watch.take(reading(2, Grants(ME, False, True, {ME: READS})), "answer"))

    assert [(change.user_uuid, change.generation, change.narrows) for change in told] == [
        (ME, 2, True)
    ]


def test_trash_between_the_answer_and_the_first_reading_is_told() -> None:
    """The reader's own rows are as he was told; what is in the trash is not."""
    watch = watching(reading(1))
    watch.answered(note(reading(1, MINE)))

    told = list(watch.take(reading(2, MINE, cluster=known(2, trashed={PROJECT: NOW})), "event"))

    assert [(change.user_uuid, change.narrows) for change in told] == [(ME, True)]


def test_a_difference_is_told_once() -> None:
    """With what was lost; the same reading again tells nothing."""
    watch = watching(reading(1, MINE))
    less = Grants(ME, False, True, {ME: READS}, {COLLECTION: PROJECT})

    told = list(watch.take(reading(5, less), "event"))

    assert [(c.lost, c.gained, c.cause, c.generation) for c in told] == [
        ((PROJECT,), (), "event", 5)
    ]
    assert list(watch.take(reading(6, less), "round")) == []


def test_an_older_reading_is_ignored() -> None:
    """Two looks may cross; the earlier snapshot tells nothing."""
    watch = watching(reading(5, MINE))

    assert list(watch.take(reading(4, Grants(ME)), "round")) == []


def test_after_the_database_went_back_any_reading_counts() -> None:
    """A failover to a server that lagged: numbers fall, and what is read is the truth."""
    watch = watching(reading(5, MINE, cluster=known(5, trashed={ROLE: NOW})))
    watch.renumber()

    told = list(watch.take(reading(4, Grants(ME), cluster=known(4)), "round"))

    assert ME in {change.user_uuid for change in told}


def test_two_readers_with_different_versions_make_one_be_told() -> None:
    """A replica answered from before a change that was already told."""
    watch = watching(reading(5, MINE))

    unsure = watch.answered(note(reading(4, Grants(ME))))
    told = list(watch.take(reading(6, MINE), "answer"))

    assert unsure == {ME}
    assert [(change.user_uuid, change.generation) for change in told] == [(ME, 6)]
    assert list(watch.take(reading(7, MINE), "round")) == []


def test_a_reader_with_an_older_state_of_the_cluster_is_told() -> None:
    """His grants are the same, but not what is in the trash."""
    later = known(5, trashed={PROJECT: NOW})
    watch = watching(reading(5, MINE, cluster=later))

    unsure = watch.answered(note(reading(4, MINE)))
    told = list(watch.take(reading(6, MINE, cluster=later), "answer"))

    assert unsure == {ME}
    assert [change.user_uuid for change in told] == [ME]


AFFECTED = [
    # id, touched, reaching now, affected
    ("the user", {ME}, set(), True),
    ("something he reads", {PROJECT}, set(), True),
    ("something he comes to read", {ROLE}, {ME}, True),
    ("somebody who stands in for him", {MEMBER}, set(), True),
    ("something his stand-in comes to read", {ROLE}, {MEMBER}, True),
    ("something of somebody else", {ROLE}, {STRANGER}, False),
]


@pytest.mark.parametrize(("name", "touched", "reaching", "expected"), AFFECTED)
def test_only_those_near_a_change_are_read_again(
    name: str, touched: set[str], reaching: set[str], expected: bool
) -> None:
    """Whoever had a way to it, has one now, or reads through one who does."""
    watch = watching(reading(1, MINE, member=MEMBER))

    assert watch.affected(touched, reaching) == ({ME} if expected else set()), name


def test_a_trashed_project_is_told_to_those_who_read_it() -> None:
    """Trash lists change nobody's rows; who reads the group, or something in it, is told."""
    other = Grants(BOSS, False, True, {BOSS: READS})
    admin = Grants(MEMBER, True, True)
    beside = Grants(STRANGER, False, True, {COLLECTION: DIRECT}, {COLLECTION: PROJECT})
    watch = watching(reading(1, MINE, other, admin, beside))
    trashed = known(2, trashed={PROJECT: NOW})

    told = list(watch.take(reading(2, cluster=trashed), "event"))

    assert {change.user_uuid for change in told} == {ME, MEMBER, STRANGER}
    assert all(change.narrows and change.generation == 2 for change in told)
    back = list(watch.take(reading(3, cluster=known(3)), "event"))
    assert {change.user_uuid for change in back} == {ME, MEMBER, STRANGER}
    assert not any(change.narrows for change in back)


def test_a_trash_time_acts_when_it_comes() -> None:
    """No row, no event: told at that time, once."""
    coming = known(1, trashed={PROJECT: NOW + 10, ROLE: NOW + 20})
    watch = watching(reading(1, MINE, cluster=coming))

    assert watch.next_trash_time(NOW) == NOW + 10
    assert list(watch.time_passed(2, NOW + 9)) == []
    told = list(watch.time_passed(3, NOW + 10))
    assert [(c.user_uuid, c.lost, c.cause) for c in told] == [(ME, (PROJECT,), "trash")]
    assert list(watch.time_passed(4, NOW + 15)) == []
    assert list(watch.time_passed(5, NOW + 25)) == []
    assert watch.next_trash_time(NOW + 25) is None


def test_whom_nobody_asks_about_is_dropped() -> None:
    """A quarter of an hour after the last question."""
    clock = [0.0]
    watch = Watch(lambda: clock[0])
    watch.answered(note(reading(1, MINE)))
    clock[0] = 800.0
    watch.answered(note(reading(1, Grants(BOSS))))
    assert set(watch.users()) == {ME, BOSS}

    clock[0] = 1000.0

    assert watch.users() == [BOSS]


def test_objects_shared_directly_are_known() -> None:
    """Moving one of them changes a subject, though nobody's rows."""
    assert watching(reading(1, MINE)).shared_directly() == {COLLECTION}
