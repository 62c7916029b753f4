# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What readers rely on, whom an event can concern, and what there is to tell."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any, cast

import msgspec
import pytest

from arvados_nats.contract import subjects
from arvados_nats.nats.client import Nats
from arvados_nats.permission_client import grants_messages
from arvados_nats.permission_client.grants_messages import GrantsAnswered
from arvados_nats.permissions.grants import DIRECT, OWNED, Grants
from publishers.permissions.leader import GrantsLeader
from publishers.permissions.query import GrantsQuery, Reading
from publishers.permissions.watched import Watch

ME = "zzzzz-tpzed-000000000000me0"
BOSS = "zzzzz-tpzed-0000000000boss0"
MEMBER = "zzzzz-tpzed-00000000member0"
STRANGER = "zzzzz-tpzed-000000stranger0"
PROJECT = "zzzzz-j7d0g-000000000000pro"
ROLE = "zzzzz-j7d0g-000000000000rol"
READS = DIRECT | OWNED
NOW = 1_800_000_000.0


def reading(generation: int, *grants: Grants, **sources: str) -> Reading:
    numbered = {g.user_uuid: msgspec.structs.replace(g, generation=generation) for g in grants}
    found = {user: frozenset({user, *sources.values()}) for user in numbered}
    versions = {user: grants_messages.grants_version(grants) for user, grants in numbered.items()}
    return Reading(generation, NOW, True, numbered, versions, found)


def note(found: Reading) -> GrantsAnswered:
    return GrantsAnswered(found.generation, dict(found.versions))


def watching(found: Reading) -> Watch:
    """A watch whose users were answered and read."""
    watch = Watch()
    watch.answered(note(found))
    assert list(watch.take(found, "answer")) == []
    return watch


MINE = Grants(ME, False, True, {ME: READS, PROJECT: READS})


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


def test_an_answer_that_was_read_here_as_well_is_not_read_once_more() -> None:
    """Of two that cross: who is sure now, and who is not."""
    watch = watching(reading(1, MINE))
    less = Grants(ME, False, True, {ME: READS})
    assert watch.answered(note(reading(5, less))) == {ME}

    (older,) = watch.take(reading(4, less), "event")
    assert not watch.settled(ME)
    assert list(watch.take(reading(6, less), "event")) == []

    assert watch.settled(ME) and watch.settled(STRANGER)
    assert older.version == grants_messages.grants_version(less)


def test_a_difference_is_told_once() -> None:
    """With what was lost; the same reading again tells nothing."""
    watch = watching(reading(1, MINE))
    less = Grants(ME, False, True, {ME: READS})

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
    watch = watching(reading(5, MINE))
    watch.renumber()

    told = list(watch.take(reading(4, Grants(ME)), "round"))

    assert ME in {change.user_uuid for change in told}


class Wire:
    """NATS, as far as a leader needs it: what it says is kept."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def on_change(self, _: object) -> None: ...

    async def subscribe(self, *_: object) -> Wire:
        return self

    async def unsubscribe(self) -> None: ...

    async def flush(self) -> None: ...

    async def publish(self, subject: str, *_: Any) -> None:
        self.said.append(subject)


class Database:
    """What it says of who reads, after it went back."""

    async def read(self, _: Iterable[str]) -> Reading:
        return reading(4, Grants(ME))


async def test_who_takes_over_after_the_database_went_back_tells_what_is_other() -> None:
    """It led never before, and heard what others had read of a database that was further."""
    wire, ready = Wire(), asyncio.Event()
    leader = GrantsLeader(cast(Nats, wire), cast(GrantsQuery, Database()))
    leader.answered(note(reading(9, MINE)))
    leading = asyncio.create_task(leader.run(ready.set))
    await asyncio.wait_for(ready.wait(), 60)
    leading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await leading
    assert wire.said == [subjects.grants_changed(ME), subjects.GRANTS_STARTED]


def test_two_readers_with_different_versions_make_one_be_told() -> None:
    """A replica answered from before a change that was already told."""
    watch = watching(reading(5, MINE))

    unsure = watch.answered(note(reading(4, Grants(ME))))
    told = list(watch.take(reading(6, MINE), "answer"))

    assert unsure == {ME}
    assert [(change.user_uuid, change.generation) for change in told] == [(ME, 6)]
    assert list(watch.take(reading(7, MINE), "round")) == []


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
