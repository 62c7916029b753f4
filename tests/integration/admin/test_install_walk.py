# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""docs/install.md's way for machines leads to delivered events, both ways that it names."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import install_walk

PAGE = Path(__file__).parents[3] / "docs" / "install.md"
_SEPARATE = ["unshare", "--mount", "--net", "--kill-child"]


def _may_separate() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*_SEPARATE, "true"], capture_output=True, check=False).returncode == 0


def test_three_commands_follow_the_installation() -> None:
    """The page says so, and these are they; the README says the same."""
    install, go, *_ = install_walk.commands(PAGE.read_text(encoding="utf-8"))
    assert install[0].startswith("make install PREFIX=")
    assert [line.split()[0] for line in go] == ["arvados-nats", "runuser", "systemctl"]
    assert "\n".join(go) in (PAGE.parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.mark.timeout(300)
async def test_the_page_can_be_walked() -> None:
    """Word by word: settings copied by `init`, then config.yml itself; the doctor finds nothing."""
    if not _may_separate():
        pytest.skip("needs root and namespaces of its own")
    walk = [*_SEPARATE, sys.executable, "-m", "tests.support.install_walk", str(PAGE)]
    done = await asyncio.to_thread(
        subprocess.run, walk, capture_output=True, text=True, check=False, cwd=PAGE.parents[1]
    )
    assert done.returncode == 0, done.stderr[-4000:]
    print(done.stdout)  # noqa: T201 (how long it took, shown by -s)
    assert "until an event is delivered" in json.loads(done.stdout)
