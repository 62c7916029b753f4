# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Rows that say what an object never was are not answered by reading all others again each time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta

import asyncpg
import pytest

from publishers.events.looks import Looks
from publishers.events.verification import Claim
from publishers.postgres import database as postgres
from sandbox import raw_rows
from sandbox.raw_rows import new_uuid
from sandbox.servers.postgres import Database

LIES = 1500
BEGIN = raw_rows.utc_now() - timedelta(hours=1)


class Clock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def looks(database: Database, clock: Clock) -> AsyncIterator[Looks]:
    async with postgres.connect(database.reader_dsn) as reader:
        yield Looks(reader, clock)


async def about(database: Database, count: int) -> str:
    """A uuid that so many rows are about."""
    uuid = new_uuid("4zz18")
    await more_about(database, uuid, count)
    return uuid


async def more_about(database: Database, uuid: str, count: int = 1) -> None:
    writer = await asyncpg.connect(database.dsn)
    try:
        await raw_rows.insert(writer, [raw_rows.row(uuid) for _ in range(count)])
    finally:
        await writer.close()


async def rows_read(looks: Looks, uuid: str) -> int | None:
    """By one look; None where there is none to be had."""
    found, covered = await looks.about({uuid: BEGIN})
    assert set(covered) <= {uuid}
    return len(found.get(uuid, ())) if uuid in covered else None


async def test_looks_in_vain_come_to_an_end(database: Database, looks: Looks, clock: Clock) -> None:
    lied_about = await about(database, LIES)
    read = 0
    for _ in range(100):
        read += await rows_read(looks, lied_about) or 0
    assert LIES < read <= 10_000 + LIES
    honest = await about(database, 2)
    assert await rows_read(looks, honest) == 2, "who is not to blame is looked at"
    clock.now += 10.0
    assert await rows_read(looks, lied_about) == LIES
    assert await rows_read(looks, lied_about) == LIES
    clock.now += 3600.0
    again = [await rows_read(looks, lied_about) for _ in range(100)]
    assert sum(count or 0 for count in again) <= 10_000 + LIES, "what was not used is not kept"


async def test_what_a_few_rows_prove_is_free(database: Database, looks: Looks) -> None:
    await drained(database, looks)
    honest = await about(database, 3)
    for _ in range(20):
        assert await rows_read(looks, honest) == 3
        looks.helped(honest)
    assert await rows_read(looks, honest) == 3
    assert await rows_read(looks, honest) is None, "the look before proved nothing"


async def test_one_true_row_does_not_pay_for_many_lies(database: Database, looks: Looks) -> None:
    lied_about = await about(database, LIES)
    read = 0
    for _ in range(100):
        read += await rows_read(looks, lied_about) or 0
        looks.helped(lied_about)
    assert read <= 10_000 + LIES


async def test_rows_are_read_once_for_a_state(database: Database, looks: Looks) -> None:
    """What comes later repeats what was said; an object that has changed is looked at anew, and so
    is one that is gone. Of what was read before no more is read."""
    uuid = await about(database, 3)
    states = {uuid: 7}

    async def seen(states: Mapping[str, int]) -> Sequence[Claim]:
        found, _ = await looks.about({uuid: BEGIN}, states)
        return found[uuid]

    first = await seen(states)
    await more_about(database, uuid)
    assert {one.row.uuid for one in await seen(states)} == {one.row.uuid for one in first}
    assert len(await seen({uuid: 8})) == 4
    await more_about(database, uuid)
    assert len(await seen({})) == 5
    earlier, _ = await looks.about({uuid: BEGIN - timedelta(minutes=1)}, {uuid: 8})
    assert len(earlier[uuid]) == 5, "what is asked for may be from before the last look"


async def test_a_row_that_somebody_has_is_not_read(database: Database, looks: Looks) -> None:
    """One that was altered since is another."""
    uuid = await about(database, 4)
    (found, _) = await looks.about({uuid: BEGIN})
    read = {one.row.version: one for one in found[uuid]}
    altered = found[uuid][0].row.uuid
    writer = await asyncpg.connect(database.dsn)
    await writer.execute("UPDATE logs SET event_type = 'x' WHERE uuid = $1", altered)
    await writer.close()
    again, _ = await looks.about({uuid: BEGIN}, read=read)
    new = [one for one in again[uuid] if one not in read.values()]
    assert [(one.row.uuid, one.row.event_type) for one in new] == [(altered, "x")]
    assert len(again[uuid]) == 4


async def drained(database: Database, looks: Looks) -> None:
    """Use up all that there is."""
    lied_about = await about(database, LIES)
    while await rows_read(looks, lied_about) is not None:
        pass
