# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which PostgreSQL is chosen, and who can reach it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from arvados_nats.errors import ConfigError
from sandbox.servers import postgres_binaries as binaries


def _debian(folder: Path, versions: Iterable[str]) -> Path:
    for version in versions:
        program = folder / version / "bin" / "postgres"
        program.parent.mkdir(parents=True)
        program.touch()
    return folder


@pytest.mark.parametrize(
    ("installed", "chosen"),
    [(["15"], "15"), (["9", "15", "13"], "15"), (["13", "17"], "17")],
    ids=str,
)
def test_debians_newest_server_is_taken(tmp_path: Path, installed: list[str], chosen: str) -> None:
    """Versions are compared as numbers."""
    assert binaries.find(_debian(tmp_path, installed)) == tmp_path / chosen / "bin"


@pytest.mark.parametrize("installed", [[], ["12"]], ids=["none", "too old"])
def test_otherwise_the_wheels_server_is_taken(tmp_path: Path, installed: list[str]) -> None:
    """It is there, and can be started by whoever runs it."""
    found = binaries.find(_debian(tmp_path, installed))
    assert (found / "postgres").exists()
    assert (found / "initdb").exists()
    assert tmp_path not in found.parents


def test_a_closed_folder_on_the_way_is_noticed(tmp_path: Path) -> None:
    """Another user needs the right to pass on every folder above."""
    inner = tmp_path / "closed" / "inner"
    inner.mkdir(parents=True)
    tmp_path.joinpath("closed").chmod(0o700)
    assert not binaries.reachable(inner)
    assert binaries.reachable(Path("/usr/lib"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the server to another user")
def test_root_is_told_where_the_data_can_not_lie(tmp_path: Path) -> None:
    """The message names the folder, the user, and a way out."""
    tmp_path.chmod(0o700)
    with pytest.raises(ConfigError, match=r"(postgres|nobody).*choose a folder below") as error:
        binaries.check_reachable(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs a copy for another user")
def test_a_wheel_in_a_closed_folder_is_copied_where_it_can_be_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A project below /root works all the same; the copy is found again the next time."""
    monkeypatch.setattr(binaries, "reachable", lambda _: False)
    found = binaries.find_in_wheel()
    monkeypatch.undo()
    assert found.is_relative_to("/var/tmp")
    assert binaries.reachable(found)
    assert found.joinpath("postgres").stat().st_mode & 0o111
