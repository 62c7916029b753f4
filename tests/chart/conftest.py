# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Helm 4 and Helm 3 on a copy of the chart, with a stand-in for the chart of NATS.

`.ci/prepare helm` brings both; ARVADOS_NATS_TOOLS names another folder than ~/.cache/arvados-nats.
NATS_CHART_DIR names a copy of the official nats chart, which then takes the stand-in's place.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.support.chart.rendered import CHART, TOOLS, Helm

STUB = Path(__file__).parent / "nats_stub"


def _program(name: str) -> Path:
    path = TOOLS / name
    if not path.exists():
        pytest.skip(f"no {path}: run .ci/prepare helm, or put Helm there")
    return path


@pytest.fixture(scope="session")
def chart_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart as `helm dependency build` leaves it."""
    copy = tmp_path_factory.mktemp("chart") / "arvados-nats"
    shutil.copytree(CHART, copy)
    shutil.copytree(os.environ.get("NATS_CHART_DIR") or STUB, copy / "charts" / "nats")
    return copy


@pytest.fixture(scope="session", params=["helm4", "helm3"])
def either_helm(request: pytest.FixtureRequest, chart_copy: Path) -> Helm:
    """One after the other: both are in use."""
    return Helm(_program(request.param), chart_copy)


@pytest.fixture(scope="session")
def helm(chart_copy: Path) -> Helm:
    """The current one, for what does not depend on the version."""
    return Helm(_program("helm4"), chart_copy)


@pytest.fixture(scope="session")
def helm3(chart_copy: Path) -> Helm:
    """The former one, to compare."""
    return Helm(_program("helm3"), chart_copy)
