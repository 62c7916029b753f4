# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One control plane for all tests here, and the chart as people install it.

Its programs are built by `.ci/prepare kubernetes`, which needs Go and, the first time, a quarter of
an hour; `make test-k8s` does so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.k8s import control_plane
from tests.k8s.control_plane import PROGRAMS, Kubernetes
from tests.support.chart.helm import chart_copy, helm
from tests.support.chart.rendered import TOOLS

__all__ = ["chart_copy", "helm"]


@pytest.fixture(scope="session")
async def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Kubernetes]:
    """The API server of this test run."""
    programs = TOOLS / "kubernetes"
    if absent := [name for name in PROGRAMS if not (programs / name).exists()]:
        pytest.skip(f"no {', '.join(absent)} in {programs}: .ci/prepare kubernetes builds them")
    async with control_plane.running(programs, tmp_path_factory.mktemp("kubernetes")) as running:
        yield running


@pytest.fixture(scope="session", params=["helm4", "helm3"])
def helm_program(request: pytest.FixtureRequest) -> Path:
    """Both are in use."""
    program: Path = TOOLS / request.param
    if not program.exists():
        pytest.skip(f"no {program}: run .ci/prepare helm, or put Helm there")
    return program
