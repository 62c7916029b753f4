# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`arvados-nats keys show`, which `systemctl reload` runs, where systemd keeps what it showed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from arvados_nats.cli import main

UNIT = "arvados-nats-x@3.service"
# A file system of memory, read-only where it is mounted, as systemd leaves it.
SCRIPT = f"""
set -e
shown="$1/shown/{UNIT}"
mkdir -p "$shown"
mount -t tmpfs tmpfs "$shown"
printf 'first, which is longer' > "$shown/token"
chown 65534 "$shown/token" && chmod 400 "$shown/token"
mount -o remount,bind,ro,nosuid,nodev,noexec "$shown"
"$2" -m arvados_nats keys show {UNIT} --units "$1/units" --credentials "$1/shown"
stat -c '%u %a' "$shown/token"
cat "$shown/token"
! touch "$shown/token" 2> /dev/null
"""


def unit(place: Path) -> Path:
    """One with an instance, and the file of its one secret."""
    (place / "units").mkdir()
    secret = place / "token"
    text = f"[Service]\nExecStart=/bin/x %i\nLoadCredential=token:{secret}\n"
    (place / "units" / "arvados-nats-x@.service").write_text(text)
    secret.write_text("second")
    return secret


def test_it_writes_where_nobody_may(tmp_path: Path) -> None:
    """Into the mount, which stays read-only; who may read the file stays as it is."""
    unit(tmp_path)
    words = ["unshare", "--mount", "sh", "-c", SCRIPT, "sh", str(tmp_path), sys.executable]
    if os.getuid() != 0 or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("needs root and a mount namespace of its own")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["changed token", "65534 400", "second"]


def test_a_secret_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    """What is wrong is named, and what was shown stays."""
    secret = unit(tmp_path)
    shown = tmp_path / "shown" / UNIT
    shown.mkdir(parents=True)
    (shown / "token").write_text("first")
    words = ["keys", "show", UNIT, "--units", str(tmp_path / "units"), "--credentials"]
    words.append(str(tmp_path / "shown"))
    secret.unlink()
    done = CliRunner().invoke(main, words)
    assert (done.exit_code, str(secret) in done.output) == (2, True)
    assert (shown / "token").read_text() == "first"
    secret.write_text("second")
    assert CliRunner().invoke(main, words).output == "changed token\n"
    assert (shown / "token").read_text() == "second"
    assert CliRunner().invoke(main, words).output == "nothing has changed\n"
