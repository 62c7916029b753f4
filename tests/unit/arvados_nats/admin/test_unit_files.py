# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Units are read as systemd reads them, drop-ins and all, and who may not read them is told."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from arvados_nats.admin import unit_files
from arvados_nats.admin.doctor import files
from arvados_nats.errors import BadInput

UNIT = """
[Service]
ExecStart=/opt/nats-server -c ${CREDENTIALS_DIRECTORY}/nats.conf
EnvironmentFile=/nonexistent
Environment=A=1
LoadCredential=nats.conf:/etc/arvados-nats/nats.conf
SetCredential=none:
"""

AS_NOBODY = """
import os, sys
import arvados_nats.admin.doctor.cli, authcallout.settings, publishers.settings, wsproxy.settings
import publishers.system_logs.cli
from arvados_nats.cli import main
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
main(sys.argv[1:])
"""
"""Who may not enter root's folders cannot import from there either."""


@pytest.mark.parametrize(
    ("drop_in", "config", "environment", "program"),
    [
        ("EnvironmentFile=", "/etc/arvados-nats/nats.conf", {"A": "1"}, "/opt/nats-server"),
        (
            "EnvironmentFile=\nLoadCredential=\nLoadCredential=nats.conf:/b.conf\nEnvironment=\n"
            "Environment=B=2",
            "/b.conf",
            {"B": "2"},
            "/opt/nats-server",
        ),
        (
            "EnvironmentFile=\nLoadCredential=\nExecStart=\nExecStart=-/usr/bin/x --config /c.conf",
            "/c.conf",
            {"A": "1"},
            "/usr/bin/x",
        ),
        ("EnvironmentFile=\nLoadCredential=\nExecStart=+/x", None, {"A": "1"}, "/x"),
    ],
)
def test_an_empty_assignment_takes_back_what_was_said(
    drop_in: str, config: str | None, environment: dict[str, str], program: str
) -> None:
    """A drop-in of a person's begins with it, and may name a file of their own."""
    unit = unit_files.parse("x.service", [UNIT, f"[Service]\n{drop_in}\n"])
    assert unit.config == (Path(config) if config else None)
    assert unit.settings() == environment
    assert unit.program[0] == program


def test_a_unit_that_is_none_is_named(tmp_path: Path) -> None:
    """With its file: there are many."""
    (tmp_path / "x.service").write_text("[Service]\nnonsense\n")
    with pytest.raises(BadInput, match=rf"{tmp_path}/x\.service, or a drop-in of it: no setting"):
        unit_files.find("x.service", [tmp_path])


def test_an_environment_of_any_bytes_is_read(tmp_path: Path) -> None:
    """As systemd reads it, which is not stopped by one either."""
    (tmp_path / "environment").write_bytes(b"A=\xff\nB=2\n")
    unit = unit_files.parse("x.service", [f"[Service]\nEnvironmentFile={tmp_path}/environment\n"])
    assert unit.settings()["B"] == "2"


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that other users may enter, which pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="arvados-nats-units-") as made:
        os.chmod(made, 0o755)
        yield Path(made)


def test_who_may_not_read_secrets_is_told_so_first(place: Path) -> None:
    """Or all of it would seem to be missing."""
    secrets, units = place / "secrets", place / "units"
    secrets.mkdir(mode=0o700)
    units.mkdir()
    text = f"[Service]\nExecStart=/bin/true\nLoadCredential=A:{secrets}/A\n"
    (units / "arvados-nats-wsproxy.service").write_text(text)
    assert list(files.hidden([units])) == []
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, "doctor", "--quiet", "--units", units],
        capture_output=True, text=True, check=False, timeout=120,
        env={"ARVADOS_NATS_KEYS_DIR": str(secrets)},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "- doctor: this user may not read" in done.stdout.splitlines()[2]
