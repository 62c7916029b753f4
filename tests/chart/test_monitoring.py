# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Alerts and dashboard ask for metrics that we have; docs/operate.md explains the alerts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import REGISTRY

import authcallout.main
import publishers.main
import wsproxy.main
from tests.support.chart.rendered import CHART, COMPONENTS, ROOT, TOOLS, Helm

SERVICES = (authcallout.main, publishers.main, wsproxy.main)
"""Importing them is what fills the registry."""

ALERTS: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((CHART / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((CHART / "dashboards" / "arvados-nats.json").read_text())


def series() -> Iterator[str]:
    """The names of all time series that our services can have."""
    endings = {
        "counter": ("_total",),
        "gauge": ("",),
        "histogram": ("_bucket", "_sum", "_count"),
    }
    for metric in REGISTRY.collect():
        for ending in endings.get(metric.type, ()):
            yield f"{metric.name}{ending}"


def asked(expression: str) -> set[str]:
    """The metrics of ours that an expression names."""
    return set(re.findall(r"\barvados_(?:nats|ws)_\w+", expression))


EXPRESSIONS = {
    **{rule["alert"]: rule["expr"] for rule in ALERTS},
    **{
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    },
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_what_is_asked_for_exists(name: str) -> None:
    """A renamed metric makes no alert silent."""
    assert asked(EXPRESSIONS[name]) - set(series()) == set()
    assert asked(EXPRESSIONS[name]) or "up{" in EXPRESSIONS[name]


def test_each_alert_is_explained() -> None:
    """docs/operate.md says what it means and what to do."""
    page = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
    assert [rule["alert"] for rule in ALERTS if f"`{rule['alert']}`" not in page] == []


def test_each_alert_says_how_bad_and_what() -> None:
    """A severity to route by, and a sentence."""
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
    assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_what_is_asked_for_is_promql(name: str) -> None:
    """Prometheus' grammar, functions and types."""
    promql_parser.parse(EXPRESSIONS[name])


def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    """Prometheus' own tool takes the file, and plays the stories of alerts_test.yaml."""
    promtool = shutil.which("promtool", path=f"{TOOLS}:{os.environ['PATH']}")
    if promtool is None:
        pytest.skip(f"no {TOOLS}/promtool: run .ci/prepare promtool, or put it there")
    for file in (CHART / "alerts.yaml", Path(__file__).with_name("alerts_test.yaml")):
        shutil.copy(file, tmp_path)
    for command in (("check", "rules", "alerts.yaml"), ("test", "rules", "alerts_test.yaml")):
        done = subprocess.run([promtool, *command], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_grammar_itself_sees_faults() -> None:
    """An expression that is spoilt on purpose is refused."""
    with pytest.raises(ValueError, match="histogram_quantil"):
        promql_parser.parse("histogram_quantil(0.9, x)")


def test_panels_lie_beside_each_other() -> None:
    """No two in one place, and each asks the chosen source."""
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {"${datasource}"}


def test_rules_and_dashboard_reach_the_cluster_as_they_are(helm: Helm) -> None:
    """Braces in them are Prometheus' and Grafana's, not Helm's."""
    rendered = helm.template("full")
    (groups,) = rendered.one("PrometheusRule", "arvados-nats")["spec"]["groups"]
    assert groups["rules"] == ALERTS
    data = rendered.one("ConfigMap", "-dashboard")["data"]
    assert json.loads(data["arvados-nats.json"]) == DASHBOARD


def test_every_service_is_scraped_with_the_management_token(helm: Helm) -> None:
    """The monitor selects the three metrics services, and takes the token from the Secret."""
    rendered = helm.template("full")
    monitor = rendered.one("ServiceMonitor", "arvados-nats")["spec"]
    labels = monitor["selector"]["matchLabels"]
    found = {
        name
        for name, service in rendered.of("Service").items()
        if labels.items() <= service["metadata"]["labels"].items()
    }
    assert found == {f"r-arvados-nats-{component}-metrics" for component in COMPONENTS}
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] == "http-metrics"
    assert endpoint["authorization"]["credentials"] == {
        "name": "arvados-cluster",
        "key": "ManagementToken",
    }
