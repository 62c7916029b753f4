# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""System logs: a real journald's records are in the stream once each, whatever restarts."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from arvados_nats.contract import streams, system_log_records
from arvados_nats.errors import Refused
from arvados_nats.nats import client as nats_client
from arvados_nats.service import keys
from publishers.system_logs import metrics
from sandbox.servers.nats_server import NatsServer
from tests.support.fronts.journald import Journald, journald
from tests.support.waiting import until
from tests.support.worlds.system_logs import HOST, World, open_world, said


@pytest.fixture
async def world(fresh_nats: NatsServer, keys_folder: Path, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(fresh_nats, keys_folder, tmp_path / "state") as opened:
        yield opened


@pytest.fixture
async def journal() -> AsyncIterator[Journald]:
    async with journald() as running:
        yield running


def write(journal: Journald, *messages: str, unit: str = "crunch-run.service") -> None:
    """A program's records."""
    for message in messages:
        journal.write(message.encode(), SYSLOG_IDENTIFIER="test", UNIT=unit, PRIORITY="4")


async def test_a_machine_with_the_seed_of_all_makes_its_own_key(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """It is the machine that makes the keys, or is told that it should have one of its own."""
    await world.piped(b'{"message": "shared"}\n')
    assert [record.message for record in await world.records()] == ["shared"]
    assert caplog.text.count("`arvados-nats keys machine`") == 1


async def test_records_of_the_journal_are_stored_by_host_and_unit(
    world: World, journal: Journald
) -> None:
    """With priority, time, and the fields that the program gave itself."""
    journal.write(b"one", SYSLOG_IDENTIFIER="test", UNIT="a@b.service", PRIORITY="3", CONTAINER="c")
    async with world.sending(journal.name):
        (found,) = [r for r in await world.until_said("one") if r.identifier == "test"]
    stored = await world.nats.last(
        streams.SYSTEM_LOGS, "arvados.syslog.node1_example_com.a_b_service"
    )
    assert stored is not None and system_log_records.decode(stored.data) == found
    assert (found.host, found.unit, found.priority, found.message) == (
        HOST,
        "a@b.service",
        3,
        "one",
    )
    assert found.fields["CONTAINER"] == "c"
    assert found.pid == os.getpid()


async def test_nothing_is_lost_or_doubled_when_anything_restarts(
    world: World, journal: Journald
) -> None:
    """The command, NATS and journald, each with records written while it was away."""
    write(journal, "1", "2")
    async with world.sending(journal.name):
        await world.until_said("1", "2")
    write(journal, "3")
    async with world.sending(journal.name):
        await world.until_said("1", "2", "3")
        await world.server.stop()
        write(journal, "4")
        await world.server.start()
        await world.until_said("1", "2", "3", "4")
        await journal.stop()
        await journal.start()
        write(journal, "5", "6")
        await world.until_said("1", "2", "3", "4", "5", "6")
        await world.server.kill()
        write(journal, "7")
    await world.server.start()
    async with world.sending(journal.name):
        await world.until_said(*"1234567")


async def test_a_lost_place_is_asked_of_the_stream(
    world: World, journal: Journald, tmp_path: Path
) -> None:
    """A machine that was set up anew doubles nothing."""
    write(journal, "1", "2")
    async with world.sending(journal.name):
        await world.until_said("1", "2")
    (tmp_path / "state" / "place.json").unlink()
    write(journal, "3")
    async with world.sending(journal.name):
        await world.until_said("1", "2", "3")


async def test_a_batch_whose_acknowledgement_was_lost_is_not_doubled(
    world: World, journal: Journald, tmp_path: Path
) -> None:
    """The place on disk is older than the stream, and by more than the server remembers ids."""
    write(journal, "1")
    async with world.sending(journal.name):
        await world.until_said("1")
    place = (tmp_path / "state" / "place.json").read_bytes()
    write(journal, "2", "3")
    async with world.sending(journal.name):
        await world.until_said("1", "2", "3")
    config = streams.system_log_stream() | {"duplicate_window": 100_000_000}
    await world.nats.js_api(f"STREAM.UPDATE.{streams.SYSTEM_LOGS}", config)
    (tmp_path / "state" / "place.json").write_bytes(place)
    write(journal, "4")
    async with world.sending(journal.name):
        await world.until_said("1", "2", "3", "4")


async def test_a_cursor_that_was_rotated_away(
    world: World, journal: Journald, tmp_path: Path
) -> None:
    """Reading goes on with the oldest record there is, and the loss is counted."""

    async def place_is_kept() -> bool:
        return bool(json.loads((tmp_path / "state" / "place.json").read_text())["cursor"])

    write(journal, "1")
    async with world.sending(journal.name):
        await world.until_said("1")
        await until(place_is_kept)  # after what it is the place of is stored
    write(journal, "lost")
    journal.control("--rotate")
    journal.control("--vacuum-files=1")
    write(journal, "2")
    before = metrics.CURSOR_LOST._value.get()
    async with world.sending(journal.name):
        await world.until_said("1", "2")
    assert metrics.CURSOR_LOST._value.get() == before + 1


async def test_a_place_that_journald_does_not_understand(
    world: World, journal: Journald, tmp_path: Path
) -> None:
    """The same: all that is there is read."""
    (tmp_path / "state").mkdir()
    place = {"source": "x", "cursor": "s=nonsense"}
    (tmp_path / "state" / "place.json").write_text(json.dumps(place))
    write(journal, "1")
    before = metrics.CURSOR_LOST._value.get()
    async with world.sending(journal.name):
        await world.until_said("1")
    assert metrics.CURSOR_LOST._value.get() == before + 1


async def test_any_bytes_and_a_megabyte(world: World, journal: Journald) -> None:
    """What is no text travels as base64 beside it; a large record is whole, a huge one says so."""
    big, huge = "x" * 1_000_000, "y" * 3_000_000
    journal.write(b"\xff\x00caf\xc3\xa9", SYSLOG_IDENTIFIER="test")
    journal.write(big.encode(), SYSLOG_IDENTIFIER="test")
    journal.write(huge.encode(), SYSLOG_IDENTIFIER="test")
    before = metrics.SHORTENED._value.get()
    async with world.sending(journal.name):
        found = await world.until(lambda records: len(said(records)) == 3)
    binary, large, cut = (record for record in found if record.identifier == "test")
    assert base64.b64decode(binary.message_base64) == b"\xff\x00caf\xc3\xa9"
    assert binary.message == "\ufffd\x00café"
    assert (large.message == big, large.cut_bytes) == (True, 0)
    assert huge.startswith(cut.message) and len(cut.message) > 2_000_000
    assert cut.cut_bytes > 900_000
    assert metrics.SHORTENED._value.get() == before + 1


async def test_lines_of_a_pipe(world: World) -> None:
    """Other names and no journal: what is no record is counted, the last line needs no end."""
    before = metrics.SKIPPED.labels("unreadable")._value.get()
    await world.piped(
        b'{"message": "one", "unit": "u", "priority": "err", "more": 1}\n'
        b'no json\n[]\n{"MESSAGE":"2"}'
    )
    one, two = await world.records()
    assert (one.message, one.unit, one.priority, one.fields) == ("one", "u", 3, {"MORE": 1})
    assert (two.message, two.priority) == ("2", 6)
    assert metrics.SKIPPED.labels("unreadable")._value.get() == before + 2
    await world.piped(b'{"message": "three"}\n')
    assert [record.message for record in await world.records()] == ["one", "2", "three"]


async def test_a_pipe_waits_on_disk_while_nats_is_away(world: World) -> None:
    """A command that is killed meanwhile loses nothing; beyond its bound, lines are counted."""
    lines = b"".join(b'{"message": "%d"}\n' % number for number in range(100))
    await world.server.stop()
    before = metrics.SKIPPED.labels("no_room")._value.get()
    task = asyncio.create_task(world.piped(lines, system_log_spool_bytes=2000))
    state = world.settings().system_log_state

    async def spooled() -> bool:
        return any(path.stat().st_size for path in state.glob("pipe/*.part"))

    await until(spooled)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await world.server.start()
    await world.piped(b'{"message": "more"}\n')
    found = [record.message for record in await world.until(lambda records: len(records) == 101)]
    assert found == [*map(str, range(100)), "more"]
    await world.server.stop()
    task = asyncio.create_task(world.piped(lines + lines, system_log_spool_bytes=2000))

    async def no_room() -> bool:
        return bool(metrics.SKIPPED.labels("no_room")._value.get() > before)

    await until(no_room)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_pipe_whose_first_place_was_not_kept_is_not_doubled(
    world: World, tmp_path: Path
) -> None:
    """A crash between the first batch and its place, later than the server remembers ids."""
    await world.server.stop()
    state = world.settings().system_log_state
    task = asyncio.create_task(world.piped(b'{"message": "1"}\n{"message": "2"}\n'))

    async def spooled() -> bool:
        return any(path.stat().st_size for path in state.glob("pipe/*.part"))

    await until(spooled)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    shutil.copytree(state, tmp_path / "crashed")
    await world.server.start()
    await world.piped(b"")
    assert [record.message for record in await world.records()] == ["1", "2"]
    source = json.loads((state / "place.json").read_bytes())["source"]
    (tmp_path / "crashed" / "place.json").write_text(json.dumps({"source": source}))
    config = streams.system_log_stream() | {"duplicate_window": 100_000_000}
    await world.nats.js_api(f"STREAM.UPDATE.{streams.SYSTEM_LOGS}", config)
    shutil.rmtree(state)
    shutil.copytree(tmp_path / "crashed", state)
    await world.piped(b'{"message": "3"}\n')
    assert [record.message for record in await world.records()] == ["1", "2", "3"]


async def test_the_seed_that_keys_are_made_from_lets_nobody_in(world: World) -> None:
    """Whoever comes is one machine: there is no login for all."""
    seed = keys.load(world.folder, "system-logs").text
    with pytest.raises(Refused):
        async with nats_client.connect([world.server.url], name="machine", seed=seed, timeout=30):
            pass
