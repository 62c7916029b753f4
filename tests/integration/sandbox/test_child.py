# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Server processes of the sandbox: asked to end, killed if need be, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from arvados_nats.errors import Unavailable
from sandbox.servers import child

_STUBBORN = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
_ORPHAN = """
import sys, time
from pathlib import Path
from sandbox.servers import child
pid = child.start(["sleep", "60"], log=Path(sys.argv[1])).pid
while Path(f"/proc/{pid}/comm").read_text().strip() != "sleep":
    time.sleep(0.01)
print(pid, flush=True)
time.sleep(60)
"""


async def _says(process: child.Process, word: str) -> None:
    async def said() -> bool:
        return word in process.tail()

    await child.ready(process, said, within=60)


async def test_a_process_ends_when_it_is_asked(tmp_path: Path) -> None:
    """The signal it is asked with is the one it gets."""
    process = child.start(["sleep", "60"], log=tmp_path / "log")
    assert process.running
    await process.stop(signal.SIGTERM)
    assert not process.running
    await process.stop(signal.SIGTERM)


async def test_a_process_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    """After the time it was given, and no sooner."""
    script = _STUBBORN + "print('up', flush=True); time.sleep(60)"
    process = child.start([sys.executable, "-c", script], log=tmp_path / "log")
    await _says(process, "up")
    started = time.monotonic()
    await process.stop(signal.SIGTERM, within=0.3)
    assert not process.running
    assert 0.3 <= time.monotonic() - started < 10


async def test_why_a_server_did_not_start_is_told(tmp_path: Path) -> None:
    """The last words of a process that ended are in the error."""
    script = "print('no disk'); raise SystemExit(1)"
    process = child.start([sys.executable, "-c", script], log=tmp_path / "log")
    with pytest.raises(Unavailable, match="no disk"):
        await _says(process, "ready")


async def test_a_server_that_never_gets_ready_is_not_left_running(tmp_path: Path) -> None:
    """When the wait is over, so is the process."""
    process = child.start(["sleep", "60"], log=tmp_path / "log")

    async def never() -> bool:
        return False

    with pytest.raises(Unavailable):
        await child.ready(process, never, within=0.1)
    assert not process.running


def test_a_killed_sandbox_leaves_no_server_behind(tmp_path: Path) -> None:
    """SIGKILL of a test run or demo takes its servers with it."""
    parent = subprocess.Popen(
        [sys.executable, "-c", _ORPHAN, str(tmp_path / "log")], stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    os.kill(pid, 0)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 10
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # whoever adopted it may not have looked yet
