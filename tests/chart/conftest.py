# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Helm 4 and Helm 3 on a copy of the chart, with a stand-in for the chart of NATS.

`.ci/prepare helm` brings both; ARVADOS_NATS_TOOLS names another folder than ~/.cache/arvados-nats.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.chart.helm import chart_copy, helm, program
from tests.support.chart.rendered import Helm

__all__ = ["chart_copy", "helm"]


@pytest.fixture(scope="session", params=["helm4", "helm3"])
def either_helm(request: pytest.FixtureRequest, chart_copy: Path) -> Helm:
    """One after the other: both are in use."""
    return Helm(program(request.param), chart_copy)


@pytest.fixture(scope="session")
def helm3(chart_copy: Path) -> Helm:
    """The former one, to compare."""
    return Helm(program("helm3"), chart_copy)
