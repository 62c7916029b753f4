# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Everything together, on servers that may be killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox.stack import Stack


@pytest.fixture(scope="module")
def stack(own_stack: Stack) -> Stack:
    """Publishers, callout service and proxy of this module alone."""
    return own_stack


_OUTCOMES: dict[str, tuple[str, float]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note how a fault alone ended."""
    file, _, name = report.nodeid.partition("::")
    alone = "tests/faults/" in file and not file.endswith(("test_checker.py", "test_storm.py"))
    if alone and (report.when == "call" or not report.passed):
        _OUTCOMES[name] = report.outcome, report.duration


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of `make test-faults`, below that of the storm."""
    if "ARVADOS_NATS_FAULTS_MINUTES" not in os.environ or not _OUTCOMES:
        return
    lines = ["| a fault alone | outcome | seconds |", "|---|---|---|"]
    for name, (outcome, seconds) in _OUTCOMES.items():
        lines.append(f"| {name} | {outcome} | {seconds:.0f} |")
    terminalreporter.section("faults, one by one")
    terminalreporter.write_line("\n".join(lines))
    if table := os.environ.get("ARVADOS_NATS_FAULTS_TABLE"):
        with Path(table).open("a") as file:
            file.write("\n" + "\n".join(lines) + "\n")
