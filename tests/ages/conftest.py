# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A site of each age, and at the end a table of ages and flows."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sandbox.sandbox import Sandbox
from sandbox.servers import backends
from sandbox.servers.postgres import PostgresServer
from sandbox.stack import Stack
from tests.support.worlds import aged

AGES = ("2.5", "2.7", "3.0", "3.1", "3.2")
_OUTCOMES: dict[tuple[str, str], str] = {}


@pytest.fixture(scope="module", params=AGES)
async def stack(
    request: pytest.FixtureRequest,
    backend: backends.Backend,
    postgres_server: PostgresServer,
    sandbox: Sandbox,
) -> AsyncIterator[Stack]:
    """Publishers, callout service and proxy beside an Arvados of this release."""
    async with (
        backends.run_nats(backend, sandbox.keys_folder, websocket=True) as nats,
        aged.beside(request.param, postgres_server, nats, sandbox) as running,
    ):
        yield running


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note how a flow ended on an age."""
    name, _, age = report.nodeid.rpartition("::")[2].partition("[")
    if "tests/ages/" in report.nodeid and (report.when == "call" or not report.passed):
        _OUTCOMES[name, age.rstrip("]")] = report.outcome


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table, with the name of each flow's test."""
    flows = dict.fromkeys(name for name, age in _OUTCOMES if age in AGES)
    if not flows:
        return
    width = max(map(len, flows))
    terminalreporter.section("releases of Arvados")
    terminalreporter.write_line(f"{'flow':{width}}  " + "  ".join(f"{age:7}" for age in AGES))
    for name in flows:
        cells = (f"{_OUTCOMES.get((name, age), '-'):7}" for age in AGES)
        terminalreporter.write_line(f"{name:{width}}  " + "  ".join(cells))
