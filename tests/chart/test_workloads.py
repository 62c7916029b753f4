# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Objects fit each other: selectors, ports, policies, numbers of pods, and the time to go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.chart.rendered import COMPONENTS, EXAMPLES, Helm, Pod, Rendered

FIXED = {"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component"}


def selected(rendered: Rendered, selector: dict[str, str]) -> list[Pod]:
    """The pods that a selector means."""
    return [pod for pod in rendered.pods if selector.items() <= pod.labels.items()]


@pytest.mark.parametrize("example", EXAMPLES)
def test_selectors_never_change(helm: Helm, example: str) -> None:
    """Three labels without any version: a Deployment's selector cannot be altered."""
    rendered = helm.template(example)
    for component in COMPONENTS:
        spec = rendered.one("Deployment", f"-{component}")["spec"]
        selector = spec["selector"]["matchLabels"]
        assert set(selector) == FIXED
        assert selected(rendered, selector) == [rendered.pod(component)]


@pytest.mark.parametrize("example", EXAMPLES)
def test_services_lead_to_ports_that_exist(helm: Helm, example: str) -> None:
    """By name, in the pods that they select."""
    rendered = helm.template(example)
    for name, service in rendered.of("Service").items():
        pods = selected(rendered, service["spec"]["selector"])
        assert len(pods) == 1, name
        if pods[0].ours:
            named = {port["name"] for port in pods[0].containers[0]["ports"]}
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= named


def test_metrics_are_not_at_the_public_port(helm: Helm) -> None:
    """Nor at the service that a gateway leads to."""
    service = helm.template("full").one("Service", "-wsproxy")
    assert [port["name"] for port in service["spec"]["ports"]] == ["http"]


@pytest.mark.parametrize("component", COMPONENTS)
def test_probes_ask_for_nothing_outside(helm: Helm, component: str) -> None:
    """Whether it runs, and whether it is between start and drain; no token is needed."""
    container = helm.template("full").pod(component).containers[0]
    paths = {
        probe: container[probe]["httpGet"]["path"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert paths == {
        "startupProbe": "/livez",
        "livenessProbe": "/livez",
        "readinessProbe": "/readyz",
    }
    assert {container[probe]["httpGet"]["port"] for probe in paths} == {"http-metrics"}
    address = helm.template("full").environment(component)["ARVADOS_NATS_OPS_LISTEN"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert address == f"*:{ports['http-metrics']}"


@pytest.mark.parametrize(
    ("example", "components"),
    [("minimal", set(COMPONENTS)), ("single", set[str]()), ("hpa", set(COMPONENTS))],
)
def test_a_disruption_budget_needs_two_pods(helm: Helm, example: str, components: set[str]) -> None:
    """With one pod it would stop every drain of a node."""
    rendered = helm.template(example)
    budgets = rendered.of("PodDisruptionBudget")
    ours = {f"r-arvados-nats-{component}": component for component in COMPONENTS}
    assert {ours[name] for name in budgets if name in ours} == components
    for name in set(budgets) & set(ours):
        assert budgets[name]["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_who_scales_decides_the_number_alone(helm: Helm) -> None:
    """With autoscaling there is no `replicas`, or each upgrade would reset it."""
    rendered = helm.template("hpa")
    scaler = rendered.one("HorizontalPodAutoscaler", "-wsproxy")["spec"]
    assert scaler["scaleTargetRef"]["name"] in rendered.of("Deployment")
    assert [metric["type"] for metric in scaler["metrics"]] == ["Resource", "Pods"]
    assert scaler["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 600
    assert "replicas" not in rendered.one("Deployment", "-wsproxy")["spec"]
    assert rendered.one("Deployment", "-publishers")["spec"]["replicas"] == 2


@pytest.mark.parametrize(
    ("sets", "seconds"),
    [
        ((), 70),
        (("wsproxy.drainSeconds=100",), 125),
        (("wsproxy.preStopSeconds=0",), 55),
        (("wsproxy.leisureSeconds=7200",), 7270),
    ],
)
def test_a_socket_server_has_time_to_drain(helm: Helm, sets: tuple[str, ...], seconds: int) -> None:
    """What gateways need to notice, the drain itself, and ten seconds more."""
    rendered = helm.template("minimal", *sets)
    assert rendered.pod("wsproxy").spec["terminationGracePeriodSeconds"] == seconds
    stop = rendered.pod("wsproxy").containers[0].get("lifecycle")
    pause = stop["preStop"]["sleep"]["seconds"] if stop else 0
    told = rendered.environment("wsproxy")
    drain = float(told["ARVADOS_NATS_DRAIN_SECONDS"])
    drain += float(told["ARVADOS_NATS_LEISURE_SECONDS"])
    assert pause + drain + 10 == seconds


def test_too_short_a_time_is_refused(helm: Helm) -> None:
    """And a longer one is taken."""
    setting = "wsproxy.terminationGracePeriodSeconds"
    assert "at least 70" in helm.refusal("minimal", f"{setting}=69")
    pod = helm.template("minimal", f"{setting}=90").pod("wsproxy")
    assert pod.spec["terminationGracePeriodSeconds"] == 90


def test_a_new_socket_server_stands_before_an_old_one_goes(helm: Helm) -> None:
    """All sockets never end at once."""
    spec = helm.template("minimal").one("Deployment", "-wsproxy")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert spec["minReadySeconds"] == 10


def _peers(policy: dict[str, Any], direction: str) -> Iterator[dict[str, str]]:
    for rule in policy["spec"].get(direction, []):
        for peer in rule.get({"egress": "to", "ingress": "from"}[direction], []):
            if "podSelector" in peer and "namespaceSelector" not in peer:
                yield peer["podSelector"]["matchLabels"]


@pytest.mark.parametrize("example", ["netpol", "full", "external-nats"])
def test_policies_select_pods_that_exist(helm: Helm, example: str) -> None:
    """Each pod has one policy, and every neighbour that a policy names is there."""
    rendered = helm.template(example)
    policies = rendered.of("NetworkPolicy")
    for name, policy in policies.items():
        assert selected(rendered, policy["spec"]["podSelector"]["matchLabels"]), name
        for direction in ("ingress", "egress"):
            for labels in _peers(policy, direction):
                assert selected(rendered, labels), (name, direction)
    for pod in rendered.pods:
        meant = [
            name
            for name, policy in policies.items()
            if policy["spec"]["podSelector"]["matchLabels"].items() <= pod.labels.items()
        ]
        assert len(meant) == 1, pod.owner


def test_policies_allow_what_each_service_needs(helm: Helm) -> None:
    """DNS, NATS and Arvados for all, PostgreSQL for the publishers, the cluster for the hook."""
    rendered = helm.template("netpol")

    def goes_to(suffix: str) -> set[int]:
        policy = rendered.one("NetworkPolicy", suffix)
        return {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}

    assert goes_to("-authcallout") == {53, 4222, 443, 4317}
    assert goes_to("-publishers") == {53, 4222, 443, 5432, 4317}
    assert goes_to("-wsproxy") == {53, 4222, 443, 4317}
    assert goes_to("-keys") == {53, 443, 6443, 4317}
    assert goes_to("-test") == {53, 4222, "http", 4317}
    assert goes_to("-nats") == {53, 6222, 4317}
    tls = [
        rule
        for rule in rendered.one("NetworkPolicy", "-publishers")["spec"]["egress"]
        if rule["ports"][0]["port"] == 443
    ]
    assert tls[0]["to"] == [{"ipBlock": {"cidr": "192.0.2.10/32"}}]


@pytest.mark.parametrize("example", ["minimal", "netpol", "single"])
def test_only_servers_may_open_routes_to_each_other(helm: Helm, example: str) -> None:
    """Who may open a route is a member with all rights: closed whatever else is (S12)."""
    policy = helm.template(example).one("NetworkPolicy", "-nats")["spec"]
    (route,) = (
        rule
        for rule in policy["ingress"]
        if any(p["port"] <= 6222 <= p.get("endPort", p["port"]) for p in rule["ports"])
    )
    assert route == {
        "ports": [{"port": 6222, "protocol": "TCP"}],
        "from": [{"podSelector": policy["podSelector"]}],
    }


def test_without_policies_all_but_the_routes_is_open(helm: Helm) -> None:
    """Clients, monitoring and what a site adds: its addresses are not known to the chart."""
    rendered = helm.template("minimal")
    assert [name[-5:] for name in rendered.of("NetworkPolicy")] == ["-nats"]
    (_, rest) = rendered.one("NetworkPolicy", "-nats")["spec"]["ingress"]
    assert "from" not in rest
    assert {p for port in rest["ports"] for p in range(port["port"], port["endPort"] + 1)} == (
        set(range(1, 65536)) - {6222}
    )


def test_a_port_has_one_home(helm: Helm) -> None:
    """The servers', what our services connect to, and what policies let through."""
    sets = ("nats.config.nats.port=5222", "nats.config.cluster.port=7222", "metrics.port=9999")
    rendered = helm.template("netpol", *sets)
    told = rendered.environment("wsproxy")
    assert told["ARVADOS_NATS_NATS_URL"].endswith(":5222")
    assert told["ARVADOS_NATS_OPS_LISTEN"] == "*:9999"
    for policy in rendered.of("NetworkPolicy").values():
        for rule in [*policy["spec"].get("ingress", ()), *policy["spec"].get("egress", ())]:
            assert not {port["port"] for port in rule["ports"]} & {4222, 6222, 9090}
    nats = rendered.one("NetworkPolicy", "-nats")["spec"]
    assert [port["port"] for rule in nats["ingress"][:2] for port in rule["ports"]] == [7222, 5222]


def test_settings_become_variables_with_their_exact_values(either_helm: Helm) -> None:
    """Also a large number, which Helm keeps as a float, and text with commas."""
    told = either_helm.template("ingress").environment("wsproxy")
    assert told["ARVADOS_NATS_MAX_CONNECTIONS"] == "2000000"
    assert told["ARVADOS_NATS_TRUSTED_PROXIES"] == "10.0.0.0/8"
    rendered = either_helm.template("minimal", "publishers.settings.logPollFastSeconds=0.25")
    told = rendered.environment("publishers")
    assert told["ARVADOS_NATS_LOG_POLL_FAST_SECONDS"] == "0.25"
