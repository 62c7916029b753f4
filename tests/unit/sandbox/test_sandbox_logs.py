# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The bytes of the sandbox's container logs: live, saved, lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.logs import manifests
from sandbox.logs.container_logs import ContainerLogs, LostBlock
from sandbox.logs.log_files import Disk, GrowingFile, NumberedLines, snapshot

CONTAINER = "zzzzz-dz642-000000000000001"


@pytest.fixture
def logs() -> ContainerLogs:
    """Logs of a container that has just begun to run."""
    found = ContainerLogs()
    found.start(CONTAINER)
    return found


def test_a_growing_file_is_read_by_range() -> None:
    """Bytes appended are there at once; a range past the end gives what there is."""
    file = GrowingFile()
    file.append(b"hello ")
    file.append(b"world\n")
    assert (file.size, file.read(6, 100)) == (12, b"world\n")
    file.truncate(5)
    assert (file.size, file.read(0, 100)) == (5, b"hello")


@given(st.integers(0, 40), st.integers(12, 50), st.integers(0, 2100), st.integers(0, 2100))
def test_computed_lines_read_as_if_they_were_written(
    lines: int, width: int, start: int, stop: int
) -> None:
    """Any range equals the same range of all lines written out."""
    source = NumberedLines(lines, width)
    written = b"".join(source.line(number) for number in range(lines))
    assert source.size == len(written)
    assert source.read(start, stop) == written[start:stop]


def test_a_gigabyte_costs_no_memory() -> None:
    """The last bytes of a computed log of 1 GB are there without the rest being made."""
    source = NumberedLines(10_000_000, 100)
    assert source.size == 1_000_000_000
    assert source.read(source.size - 100, source.size).startswith(b"0009999999 ")
    assert snapshot(source, Disk()).read(source.size - 1, source.size + 5) == b"\n"


@given(st.dictionaries(st.text("ab c\\/é", min_size=1, max_size=8), st.binary(max_size=30)))
def test_a_manifest_leads_back_to_the_bytes(files: dict[str, bytes]) -> None:
    """What is saved is read back the same, whatever the names."""
    files = {name.strip("/ ").replace("/", "_"): data for name, data in files.items()}
    files.pop("", None)
    logs = ContainerLogs()
    logs.start(CONTAINER)
    for name, data in files.items():
        logs.append(CONTAINER, name, data)
    saved = logs.saved(logs.checkpoint(CONTAINER))
    assert {name: content.read(0, 99) for name, content in saved.items()} == files


def test_a_recorded_manifest_is_understood() -> None:
    """The log collection of a request holds each container's log in a folder of its own."""
    text = (
        ". d41d8cd98f00b204e9800998ecf8427e+0 0:0:stderr.txt\n"
        "./log\\040for\\040container\\040zgold-dz642-zer73rekzonyldm"
        " 900150983cd24fb0d6963f7d28e17f72+3 d6963f7d28e17f72900150983cd24fb0+3+A 1:4:stderr.txt\n"
    )
    found = manifests.files(text)
    folder = "log for container zgold-dz642-zer73rekzonyldm"
    assert list(found) == ["stderr.txt", f"{folder}/stderr.txt"]
    assert [(s.offset, s.length) for s in found[f"{folder}/stderr.txt"]] == [(1, 2), (0, 2)]


def test_a_checkpoint_stays_as_it_was(logs: ContainerLogs) -> None:
    """Bytes written after a checkpoint are not in it."""
    logs.append(CONTAINER, "stdout.txt", b"one\n")
    manifest = logs.checkpoint(CONTAINER)
    logs.append(CONTAINER, "stdout.txt", b"two\n")
    assert logs.saved(manifest)["stdout.txt"].read(0, 99) == b"one\n"
    assert logs.live(CONTAINER)["stdout.txt"].read(0, 99) == b"one\ntwo\n"


def test_bytes_that_nobody_saved_are_missed_aloud(logs: ContainerLogs) -> None:
    """A manifest with a foreign block is not read as an empty file."""
    with pytest.raises(LostBlock):
        logs.saved(". 900150983cd24fb0d6963f7d28e17f72+3 0:3:stdout.txt\n")


def test_a_computed_file_is_not_written_to(logs: ContainerLogs) -> None:
    """It can be put in place of a live file, and stays what it is."""
    logs.put(CONTAINER, "stdout.txt", NumberedLines(3))
    with pytest.raises(TypeError):
        logs.append(CONTAINER, "stdout.txt", b"more\n")
    assert logs.size(CONTAINER, "stdout.txt") == 300
