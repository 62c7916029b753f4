# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""System logs of a scripted journalctl: what a real one does seldom, and where there is none."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from arvados_nats.service.ops import Health
from publishers.system_logs import journal as journal_module
from publishers.system_logs import metrics
from publishers.system_logs.journal import Journal
from publishers.system_logs.place import Place, PlaceFile
from sandbox.servers.nats_server import NatsServer
from tests.support.fronts.scripted_journal import ScriptedJournal
from tests.support.worlds.system_logs import World, open_world, said


@pytest.fixture
async def world(fresh_nats: NatsServer, keys_folder: Path, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(fresh_nats, keys_folder, tmp_path / "state") as opened:
        yield opened


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedJournal:
    """Read by whoever starts journalctl."""
    made = ScriptedJournal(tmp_path / "journal")
    monkeypatch.setenv("PATH", f"{made.programs}{os.pathsep}{os.environ['PATH']}")
    return made


async def until_started(journal: ScriptedJournal, times: int) -> None:
    """Return when the program has been started so often."""
    async with asyncio.timeout(60):
        while len(journal.starts) < times:  # noqa: ASYNC110 (a file tells of it)
            await asyncio.sleep(0.01)


async def test_journalctl_ends_and_is_started_again(world: World, journal: ScriptedJournal) -> None:
    """From the cursor of the last record read, with nothing lost or doubled."""
    journal.write("1", "2")
    async with world.sending():
        await world.until_said("1", "2")
        journal.write("3")
        journal.end()
        await until_started(journal, 2)
        journal.write("4")
        await world.until_said("1", "2", "3", "4")
    first, second = journal.starts
    assert {"--output=json", "--all", "--follow", "--boot"} <= set(first.split())
    assert second.endswith("--cursor=s=0f;i=3")


async def test_the_first_record_after_a_lost_cursor_is_kept(
    world: World, journal: ScriptedJournal
) -> None:
    """journalctl begins with the oldest there is: that one was not read yet."""
    before = metrics.CURSOR_LOST._value.get()
    journal.write("1", "2")
    async with world.sending():
        await world.until_said("1", "2")
    journal.write("lost", "3", "4")
    journal.rotate(keep=2)
    async with world.sending():
        await world.until_said("1", "2", "3", "4")
    assert metrics.CURSOR_LOST._value.get() == before + 1


async def test_a_cursor_that_is_refused(world: World, journal: ScriptedJournal) -> None:
    """All that is there is read; what the stream has already is not doubled."""
    before = metrics.CURSOR_LOST._value.get()
    journal.write("1", "2")
    async with world.sending():
        await world.until_said("1", "2")
    journal.write("3")
    journal.refuse_cursors()
    async with world.sending():
        await world.until_said("1", "2", "3")
    assert metrics.CURSOR_LOST._value.get() == before + 1
    assert "--cursor" not in journal.starts[-1] and "--boot" not in journal.starts[-1]


async def test_a_place_that_was_not_kept_in_time(world: World, journal: ScriptedJournal) -> None:
    """Ended between the first record's way into the stream and its place on disk: reading goes on
    behind it, also if the machine has been started anew since."""
    journal.write("1", "2")
    async with world.sending():
        await world.until_said("1", "2")
    PlaceFile(world.settings().system_log_state).save(Place("pipe"))
    journal.write("3")
    async with world.sending():
        await world.until_said("1", "2", "3")
    assert journal.starts[-1].endswith("--cursor=s=0f;i=2")


async def test_lines_that_are_no_records(world: World, journal: ScriptedJournal) -> None:
    """They are counted, cost no record beside them, and do not send reading back."""
    before = metrics.SKIPPED.labels("unreadable")._value.get()
    journal.write("1")
    journal.print("-- No entries --\n")
    journal.write("2")
    journal.print('["no", "object"]\n')
    async with world.sending():
        await world.until_said("1", "2")
        journal.end()
        await until_started(journal, 2)
        journal.write("3")
        await world.until_said("1", "2", "3")
    assert journal.starts[1].endswith("i=2")
    assert metrics.SKIPPED.labels("unreadable")._value.get() >= before + 2


async def test_a_line_that_was_cut_is_read_again(world: World, journal: ScriptedJournal) -> None:
    """journalctl died within it; it is a record only when it has its end."""
    before = metrics.SKIPPED.labels("unreadable")._value.get()
    journal.write("1")
    journal.print('{"__CURSOR": "s=0f;i=2", "SYSLOG_IDENTIFIER": "test", "MESS')
    async with world.sending():
        await world.until_said("1")
        journal.end()
        await until_started(journal, 2)
        journal.print('AGE": "2"}\n')
        await world.until_said("1", "2")
    assert metrics.SKIPPED.labels("unreadable")._value.get() == before


async def test_nulls_arrays_and_bytes(world: World, journal: ScriptedJournal) -> None:
    """As journalctl writes them: too large without --all, several values, no text."""
    journal.print(
        '{"__CURSOR": "s=0f;i=1", "SYSLOG_IDENTIFIER": "test", "MESSAGE": null,'
        ' "TWICE": ["a", "b"], "RAW": [255, 0], "BOTH": ["a", [255]]}\n'
    )
    async with world.sending():
        found = await world.until(lambda records: len(said(records)) == 1)
    (record,) = found
    assert record.message == ""
    assert record.fields == {
        "TWICE": ["a", "b"],
        "RAW": {"base64": "/wA="},
        "BOTH": ["a", {"base64": "/w=="}],
    }


async def test_health_tells_that_the_journal_can_not_be_read(journal: ScriptedJournal) -> None:
    """In journalctl's own words, until it can."""
    health = Health()
    journal.end()
    cursors: asyncio.Queue[str] = asyncio.Queue()
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(_read(Journal(health), cursors))
        while not health.faults:  # noqa: ASYNC110 (nobody tells of it)
            await asyncio.sleep(0.01)
        assert "journalctl was told to end" in str(health.error)
        journal.write("1")
        assert await cursors.get() == "s=0f;i=1"
        assert not health.faults
        reading.cancel()


async def _read(journal: Journal, cursors: asyncio.Queue[str]) -> None:
    async for cursor, _ in journal.lines(""):
        cursors.put_nowait(cursor)


async def test_of_what_it_complains_the_end_is_kept() -> None:
    """It runs for months."""
    stream = asyncio.StreamReader()
    for number in range(100):
        stream.feed_data(f"complaint {number:4}\n".encode() * 100)
    stream.feed_eof()
    kept = await journal_module._last_of(stream)
    assert kept.endswith(b"complaint   99\n")
    assert len(kept) <= 4096
