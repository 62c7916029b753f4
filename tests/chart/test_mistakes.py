# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Mistakes that charts have made in public (docs/facts/helm.md 4), and what holds ours from them.

| no. | mistake | held by |
|---|---|---|
| 1 | gateways cut idle sockets | docs/install.md, the table of gateways; wsproxy sends by itself |
| 2 | sockets fail behind an Ingress only | test_render: the host of the external URL; `helm test` |
| 3 | annotations of another controller | here |
| 4 | all come back at once, one login service | here: two of each |
| 5 | a rollout ends all sockets | test_workloads: a new one stands before an old one goes |
| 6 | grace shorter than the drain | test_workloads: time to drain; test_behaviour: in time |
| 7 | `exec sleep` without a shell | test_workloads: the pause is Kubernetes' own |
| 8 | an upgrade makes new secrets | test_render: nothing is random; tests/k8s: the keys stay |
| 9 | `lookup` is empty when rendered alone | here |
| 10 | a hook's account is gone too early | test_security: the key hook is complete |
| 11 | a changed Secret restarts nothing | here |
| 12 | a budget stops every drain | test_workloads: a budget needs two pods |
| 13 | an autoscaler without requests | test_values: refused with what to do |
| 14 | a version in a selector | test_workloads: selectors never change |
| 15 | objects hang on what the cluster knows | here |
| 16 | readiness asks a database | test_workloads: probes ask for nothing outside |
| 17 | secrets of NATS in a ConfigMap | test_security: only the seeds it logs in with |
| 18 | NATS pods are not restricted | test_security; tests/k8s: admitted |
| 19 | what cannot be changed later | UPGRADING.md; JetStream is on from the first start |
| 20 | a read-only root breaks a container | test_security: nothing is written but to /tmp |
| 21 | a strict schema breaks a parent chart | test_render: part of another; test_values: globals |
| 22 | test pods are left over | here |
| 23 | images move away | here |
| 24 | logins that the callout refuses | test_nats_conf: the accounts are those of a bare server |
"""

from __future__ import annotations

from typing import Any

import yaml

from tests.support.chart.rendered import CHART, COMPONENTS, Helm

VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
TEMPLATES = "".join(path.read_text() for path in CHART.glob("templates/**/*") if path.is_file())


def test_no_controller_is_taken_for_granted() -> None:
    """Annotations and time-outs of one gateway are ignored, or refused, by another."""
    proxy = VALUES["wsproxy"]
    assert proxy["ingress"]["annotations"] == proxy["httpRoute"]["annotations"] == {}
    assert proxy["httpRoute"]["timeouts"] == {}


def test_there_are_two_of_each() -> None:
    """So that none is alone when the other is replaced."""
    assert [VALUES[component]["replicas"] for component in COMPONENTS] == [2, 2, 2]


def test_templates_ask_the_cluster_for_nothing() -> None:
    """What is rendered without one, by GitOps tools, is the same."""
    assert "lookup " not in TEMPLATES
    assert ".Capabilities" not in TEMPLATES


def test_a_changed_secret_restarts_pods_when_told(helm: Helm) -> None:
    """`secretsGeneration` is part of what makes a pod."""
    for component in COMPONENTS:
        before, after = (
            helm.template("minimal", *sets).one("Deployment", f"-{component}")["spec"]["template"]
            for sets in ((), ("secretsGeneration=9",))
        )
        assert before["metadata"]["annotations"] != after["metadata"]["annotations"]
        assert before["spec"] == after["spec"]


def test_the_pod_of_helm_test_goes(helm: Helm) -> None:
    """At once when it was content, and before the next when it was not: its log can be read."""
    noted = helm.template("minimal").one("Pod", "-test")["metadata"]["annotations"]
    assert noted["helm.sh/hook"] == "test"
    assert noted["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"


def test_our_image_may_come_from_anywhere(helm: Helm) -> None:
    """The registry of a site stands before it, in every pod of ours."""
    for pod in helm.template("full", "global.imageRegistry=mirror.example.com").pods:
        if pod.ours:
            assert pod.containers[0]["image"].startswith("mirror.example.com/"), pod.owner
