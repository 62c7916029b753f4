# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Manifests and what Arvados derives from them."""

from __future__ import annotations

import pytest

from sandbox.model.kinds.collections import (
    EMPTY,
    data_hash,
    file_names,
    manifest_error,
    manifest_files,
    with_logs_of,
)

ONE = ". d41d8cd98f00b204e9800998ecf8427e+0 0:0:one.txt\n"
LOG = ". d41d8cd98f00b204e9800998ecf8427e+0 0:0:crunch-run.txt 0:0:stderr.txt\n"
CONTAINER = "zgold-dz642-fzc2a4qi43sz42g"


def test_the_hash_of_a_manifest_is_its_md5_and_length() -> None:
    """As recorded (golden/api.json, pdh_one and the empty collection)."""
    assert data_hash(ONE) == "97cfd2dd1b70b248bdbc2bae873b22c3+49"
    assert data_hash("") == EMPTY


def test_files_and_names_of_a_manifest() -> None:
    """Each name once, then the streams, spaces as spaces."""
    text = LOG + LOG.replace(". ", f"./log\\040for\\040container\\040{CONTAINER} ", 1)

    assert len(manifest_files(text)) == 4
    assert file_names(text) == f"crunch-run.txt\nstderr.txt\nlog for container {CONTAINER}\n"


def test_a_log_stands_on_top_and_in_its_container_s_folder() -> None:
    """As recorded: the manifest of a request's log at a checkpoint and at the end."""
    first = with_logs_of(CONTAINER, "", LOG)

    assert data_hash(first) == "9a8c9307505c2408485425bea1536cde+197"
    longer = LOG.replace("\n", " 0:0:x-life.txt\n")
    assert data_hash(with_logs_of(CONTAINER, first, longer)) == (
        "df056b3d1ebfe29ba2fd0d8c5443f1bd+227"
    )


def test_the_log_of_an_earlier_container_is_kept() -> None:
    """After a retry the log has a folder for each container."""
    other = "zgold-dz642-000000000000000"
    twice = with_logs_of(other, with_logs_of(CONTAINER, "", LOG), LOG)

    assert [line.split(" ")[0][-15:] for line in twice.splitlines()] == [
        ".",
        other[-15:],
        CONTAINER[-15:],
    ]


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (". nonsense\n", 'stream 1: missing or invalid locator "nonsense"'),
        ("nonsense\n", 'stream 1: missing or invalid stream name "nonsense"'),
        (ONE + ". d41d8cd98f00b204e9800998ecf8427e+0 x\n", 'stream 2: invalid file token "x"'),
    ],
)
def test_a_text_that_is_no_manifest_is_refused(manifest: str, said: str) -> None:
    """Says which stream is wrong, and why."""
    assert manifest_error(manifest) == f"Manifest invalid for {said}"


def test_a_manifest_is_accepted() -> None:
    """No error for good ones, the empty one among them."""
    assert manifest_error(ONE) is None
    assert manifest_error("") is None
