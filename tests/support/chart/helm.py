# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Helm and a copy of the chart: fixtures for whoever imports them.

NATS_CHART_DIR names a copy of the official nats chart, which then takes the stand-in's place.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.support.chart.rendered import CHART, TOOLS, Helm

STUB = Path(__file__).parents[2] / "chart" / "nats_stub"


def program(name: str) -> Path:
    """Helm of this name, or a skip."""
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


@pytest.fixture(scope="session")
def helm(chart_copy: Path) -> Helm:
    """The current one, for what does not depend on the version."""
    return Helm(program("helm4"), chart_copy)
