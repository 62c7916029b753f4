# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""When a saved log counts as final, and what the end marker says of each file."""

from __future__ import annotations

from dataclasses import replace

import pytest

from arvados_nats.contract.log_chunks import MAX_CHUNK_BYTES, FileEnd
from publishers.container_logs import ending
from publishers.container_logs.containers import Container
from publishers.container_logs.file import LogFile

SAVED = Container("zzzzz-dz642-000000000000001", "Complete", log="abc+1", saved_bytes=10)


@pytest.mark.parametrize(
    ("container", "sizes", "patience_over", "settled"),
    [
        pytest.param(SAVED, {"a": 4, "b": 6}, False, True, id="all bytes of the saved log"),
        pytest.param(SAVED, {"a": 4}, False, False, id="the listing of an older checkpoint"),
        pytest.param(SAVED, {}, False, False, id="no listing yet"),
        pytest.param(SAVED, {"a": 4}, True, True, id="a listing that does not change any more"),
        pytest.param(
            replace(SAVED, saved_bytes=None), {"a": 4}, False, False, id="size is not known"
        ),
        pytest.param(
            replace(SAVED, log=None, saved_bytes=None), {"a": 4}, False, False, id="not saved yet"
        ),
        pytest.param(
            replace(SAVED, log=None, saved_bytes=None), {}, True, True, id="never saved: dead node"
        ),
        pytest.param(
            replace(SAVED, log=None, saved_bytes=None, started=False),
            {},
            False,
            True,
            id="never ran",
        ),
        pytest.param(replace(SAVED, saved_bytes=0), {"a": 0}, False, True, id="nothing written"),
    ],
)
def test_when_a_listing_is_final(
    container: Container, sizes: dict[str, int], patience_over: bool, settled: bool
) -> None:
    """One row for each thing that keep-web or a dead node can show."""
    assert ending.is_settled(container, sizes, patience_over=patience_over) is settled


@pytest.mark.parametrize(
    ("container", "sizes", "missing"),
    [
        (SAVED, {}, True),
        (SAVED, {"a": 0}, False),
        (replace(SAVED, saved_bytes=None), {}, True),
        (replace(SAVED, saved_bytes=0), {}, False),
        (replace(SAVED, log=None, saved_bytes=None), {}, False),
    ],
)
def test_when_it_is_not_known_what_was_saved(
    container: Container, sizes: dict[str, int], missing: bool
) -> None:
    """A folder that is not there is no log without files."""
    assert ending.is_missing(container, sizes) is missing


def test_what_the_end_marker_says() -> None:
    """Confirmed is what was saved with the very size that was streamed."""
    names = {"same": 10, "longer": 10, "shorter": 10, "lost": 10}
    files = [LogFile(SAVED.uuid, name, epoch=1, offset=size) for name, size in names.items()]
    end = ending.marker(
        replace(SAVED, exit_code=3), files, {"same": 10, "longer": 11, "shorter": 9}
    )
    assert (end.container_uuid, end.state, end.exit_code) == (SAVED.uuid, "Complete", 3)
    assert end.files == {name: FileEnd(1, 10, confirmed=name == "same") for name in sorted(names)}


def test_nothing_is_confirmed_without_a_saved_log() -> None:
    """A listing of a log that the container does not name says nothing."""
    file = LogFile(SAVED.uuid, "stdout.txt", offset=10)
    end = ending.marker(replace(SAVED, log=None), [file], {"stdout.txt": 10})
    assert not end.files["stdout.txt"].confirmed


@pytest.mark.parametrize("count", [300, 5000])
def test_an_end_marker_fits_a_message_however_many_files_there_are(count: int) -> None:
    """A container may invent files; it names as many as there is room for."""
    names = [f"{number:04}" + "\N{SNOWMAN}" * 80 for number in range(count)]
    files = [LogFile(SAVED.uuid, name) for name in names]
    end = ending.marker(SAVED, files, {})
    assert 0.8 * MAX_CHUNK_BYTES < len(end.payload) <= MAX_CHUNK_BYTES
    assert list(end.files) == names[: len(end.files)]
