# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A service as a process: signals, exit codes, log lines."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import asyncio, logging, sys
from arvados_nats.errors import ConfigError, Disagreement, Unavailable
from arvados_nats.service import process
from arvados_nats.service.settings import Block

class Settings(Block):
    number: int = 1

async def main(settings):
    logging.getLogger("test").info("started", extra={"action": "test.started"})
    match sys.argv[1]:
        case "wait":
            try:
                await asyncio.Event().wait()
            finally:
                logging.getLogger("test").info("closed", extra={"action": "test.closed"})
        case "config":
            raise ConfigError("number: choose another")
        case "elsewhere":
            raise Disagreement("number: another machine wants another")
        case "down":
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(fail())
        case "crash":
            raise RuntimeError("broken")

async def fail():
    raise Unavailable("nobody there")

sys.exit(process.run(main, Settings))
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def run(program: Path, how: str, **environment: str) -> tuple[int, list[dict[str, str]]]:
    done = subprocess.run(
        [sys.executable, str(program), how],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, [json.loads(line) for line in done.stderr.splitlines()]


@pytest.mark.parametrize(
    ("how", "environment", "code", "action"),
    [
        ("config", {}, 2, "process.config"),
        ("elsewhere", {}, 1, "process.config"),
        ("down", {}, 1, "process.failed"),
        ("crash", {}, 1, "process.crashed"),
        ("wait", {"ARVADOS_NATS_NUMBER": "many"}, 2, "process.config"),
    ],
)
def test_exit_codes(
    program: Path, how: str, environment: dict[str, str], code: int, action: str
) -> None:
    """2 for what this machine says, else 1, each with one line of JSON that says what (O4)."""
    found, lines = run(program, how, **environment)
    assert (found, lines[-1]["action"]) == (code, action)


def test_a_wrong_setting_is_named_and_not_shown(program: Path) -> None:
    """The name of the setting, never its value."""
    _, lines = run(program, "wait", ARVADOS_NATS_NUMBER="hushhush")
    assert "number" in lines[-1]["error"].lower()
    assert "hushhush" not in json.dumps(lines)


def test_a_crash_keeps_its_traceback_in_one_line(program: Path) -> None:
    """One record is one line, whatever is in it."""
    _, lines = run(program, "crash")
    assert "RuntimeError: broken" in lines[-1]["traceback"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(program: Path, number: signal.Signals) -> None:
    """The service closes what it opened, and the exit code is 0."""
    child = subprocess.Popen(
        [sys.executable, str(program), "wait"], stderr=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    first = json.loads(child.stderr.readline())
    assert first["action"] == "test.started"
    assert time.strptime(first["time"][:19], "%Y-%m-%dT%H:%M:%S")
    child.send_signal(number)
    rest = [json.loads(line) for line in child.stderr]
    assert child.wait(timeout=10) == 0
    assert [line["action"] for line in rest] == ["test.closed", "process.stopped"]
    child.stderr.close()


def test_no_memory_is_dumped(program: Path) -> None:
    """It holds tokens and seeds; whatever the shell allows that it is started from."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    if not most:
        pytest.skip("nobody may dump memory here")
    child = subprocess.Popen(
        ["prlimit", f"--core={most}:{most}", sys.executable, str(program), "wait"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    child.stderr.readline()
    limits = Path(f"/proc/{child.pid}/limits").read_text().splitlines()
    (core,) = [line.split() for line in limits if line.startswith("Max core file size")]
    child.terminate()
    child.communicate(timeout=30)
    assert core[4] == "0"
