# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which nats-server is run, and that an old one is not."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from arvados_nats.errors import ConfigError
from sandbox.servers import nats_server


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where a wheel would have put nats-server; nothing else is on the PATH."""
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")
    return tmp_path


def _install(folder: Path, says: str) -> Path:
    program = folder / "nats-server"
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("version", ["v2.14.0", "v2.15.1", "v3.0.0-beta.1"])
def test_a_server_that_is_new_enough_is_taken(scripts: Path, version: str) -> None:
    """2.14 is the floor."""
    program = _install(scripts, f"nats-server: {version}")
    assert nats_server.executable() == program


@pytest.mark.parametrize("version", ["v2.9.10", "v2.13.99", "v1.0.0"])
def test_an_older_server_is_refused_with_a_way_out(scripts: Path, version: str) -> None:
    """Older servers lack fixes that the product's security rests on."""
    _install(scripts, f"nats-server: {version}")
    with pytest.raises(ConfigError, match=r"2\.14 or newer is needed: pip install") as error:
        nats_server.executable()
    assert version.removeprefix("v") in str(error.value)


@pytest.mark.parametrize("says", ["", "hello"])
def test_a_program_that_tells_no_version_is_refused(scripts: Path, says: str) -> None:
    """It is something else."""
    _install(scripts, says)
    with pytest.raises(ConfigError, match="does not tell its version"):
        nats_server.executable()


def test_a_program_that_can_not_be_run_is_refused(scripts: Path) -> None:
    """A wheel for another kind of machine, say."""
    _install(scripts, "").write_bytes(b"\x7fELF of another machine")
    with pytest.raises(ConfigError, match="cannot be run"):
        nats_server.executable()


def test_without_any_server_the_package_to_install_is_named(scripts: Path) -> None:
    """The sandbox's extra brings it."""
    with pytest.raises(ConfigError, match="pip install"):
        nats_server.executable()


def test_a_server_on_the_path_will_do(scripts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the wheel is not installed the system's server is taken."""
    elsewhere = scripts / "elsewhere"
    elsewhere.mkdir()
    program = _install(elsewhere, "nats-server: v2.15.1")
    monkeypatch.setenv("PATH", str(elsewhere))
    assert nats_server.executable() == program
