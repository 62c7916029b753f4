# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What may be said in values: the schema, what is refused and how, and the README's tables."""

from __future__ import annotations

import hashlib
import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from publishers.settings import Settings as PublisherSettings
from tests.support.chart.rendered import CHART, COMPONENTS, EXAMPLES, ROOT, Helm
from wsproxy.settings import Settings as ProxySettings

VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
STREAMS = {"events": "events", "logs": "logs", "systemLogs": "system_logs"}
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref", "").removeprefix("#/definitions/")
    return SCHEMA["definitions"][reference] if reference else schema


def unknown(values: dict[str, Any], schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Keys of values that the schema does not name, below maps that are ours."""
    known: dict[str, Any] = schema.get("properties", {})
    for key, value in values.items() if known else ():
        if key not in known:
            yield f"{path}{key}"
        elif isinstance(value, dict):
            yield from unknown(value, _resolved(known[key]), f"{path}{key}.")


def test_the_schema_names_every_value(chart_copy: Path) -> None:
    """And no other: a typo is refused. Those of the nats chart, too, whose defaults Helm adds."""
    theirs = yaml.safe_load((chart_copy / "charts" / "nats" / "values.yaml").read_text())
    assert list(unknown({**VALUES, "nats": VALUES["nats"]}, SCHEMA)) == []
    assert list(unknown(theirs, SCHEMA["properties"]["nats"])) == []
    assert set(SCHEMA["properties"]) - set(VALUES) == {"enabled"}


KUBERNETES = {
    "appArmorProfile", "configMapKeyRef", "containerResource", "external", "extraObjects",
    "extraVolumes", "fieldRef", "fileKeyRef",
    "labelSelector", "lifecycle", "livenessProbe", "namespaceSelector", "nodeAffinity", "object",
    "podAffinity", "podAntiAffinity", "podSelector", "pods", "ports", "readinessProbe", "resource",
    "resourceFieldRef", "seLinuxOptions", "seccompProfile", "secretKeyRef", "startupProbe",
    "windowsOptions",
}  # fmt: skip
"""Passed on as they are: the API server knows better what stands in them."""
NATS_CHART = {
    "merge", "topologySpreadConstraints", "global", "contexts", "container", "deployment",
    "podTemplate", "contextsSecret", "contentsSecret", "serviceAccount", "gateway", "cluster",
    "leafnodes", "monitor", "mqtt", "nats", "natsEnvironment", "profiling", "websocket",
}  # fmt: skip
"""What the nats chart lays over objects unseen, and its box, which we do not run."""


_INSIDE = ("items", "properties", "additionalProperties")


def _open(schema: Any, name: str = "", path: str = "") -> Iterator[tuple[str, str]]:
    """The names of places where any key is taken, and where they stand."""
    if isinstance(schema, list):
        schema = dict(enumerate(schema))
    if isinstance(schema, dict):
        if "object" in schema.get("type", ()) and "additionalProperties" not in schema:
            yield name, path
        for key, value in schema.items():
            called = name if key in _INSIDE else str(key)
            yield from _open(value, called, f"{path}/{key}")


def test_the_schema_is_closed() -> None:
    """Whatever is not passed on as it is has its keys named."""
    found = list(_open(SCHEMA))
    assert {name for name, path in found if "/nats" not in path} <= KUBERNETES
    assert {name for name, path in found if "/nats" in path} <= NATS_CHART


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("wsproxy.replica=3", "replica"),
        ("wsproxy.replicas=three", "replicas"),
        ("publishers.settings.logPollFast=1", "logPollFast"),
        # What a service would end with when it starts.
        ("publishers.settings.eventsReplicas=three", "eventsReplicas"),
        ("publishers.settings.logCalls=many", "logCalls"),
        ("publishers.settings.roleGroupsVisibleToAll=maybe", "roleGroupsVisibleToAll"),
        ("wsproxy.settings.maxConnections=-1", "maxConnections"),
        ("wsproxy.settings.maxSubscriptions=0", "maxSubscriptions"),
        ("wsproxy.settings.sendTimeout=1m", "sendTimeout"),
        ("wsproxy.settings.tracesShare=2", "tracesShare"),
        # What pods would wait for in vain.
        ("arvados.apiHost=https://xurid.example.com", "apiHost"),
        ("arvados.apiHost=xurid.example.com:44x", "apiHost"),
        ("natsClient.url=http://nats:4222", "url"),
        ("image.registry=https://registry.example.com", "registry"),
        ("image.registry=registry.example.com/", "registry"),
        ("postgresql.existingSecret=Arvados_PostgreSQL", "existingSecret"),
        ("arvados.existingSecret=a b", "existingSecret"),
        ("wsproxy.ingress.tlsSecret=WS", "tlsSecret"),
        ("arvados.clusterID=toolong", "clusterID"),
        ("wsproxy.externalURL=wss://ws.example.com", "externalURL"),
        ("wsproxy.externalURL=https://ws.example.com/websocket", "externalURL"),
        ("nkeys.mode=values", "mode"),
        ("natsclient.url=x", "natsclient"),
        ("image.digest=latest", "digest"),
        # What the API server wants as text, and would refuse in mid-upgrade.
        ("wsproxy.podAnnotations.scrape=true", "podAnnotations"),
        ("publishers.podLabels.tier=1", "podLabels"),
        ("authcallout.nodeSelector.disk=true", "nodeSelector"),
        ("wsproxy.service.annotations.timeout=60", "annotations"),
        ("commonLabels.cost=7", "commonLabels"),
        ("nats.container.env.GOMAXPROCS=2", "GOMAXPROCS"),
        ("publishers.extraEnv[0].name=X,publishers.extraEnv[0].value=1", "extraEnv"),
        ("wsproxy.tolerations[0].value=true", "tolerations"),
        # Keys below maps of Kubernetes' and of the nats chart.
        ("nats.config.jetstream.fileStore.maxsize=1Gi", "maxsize"),
        ("nats.config.cluster.replicas=three", "replicas"),
        ("wsproxy.probes.liveness.periodSecond=1", "periodSecond"),
        ("wsproxy.updateStrategy.rollingUpdate.maxsurge=1", "maxsurge"),
        ("publishers.resources.limit.memory=1Gi", "limit"),
        ("publishers.resources.limits.memory=much", "memory"),
        ("authcallout.affinity.nodeAfinity.x=1", "nodeAfinity"),
        # Numbers and addresses that cannot be.
        ("postgresql.port=0", "port"),
        ("nats.config.nats.port=70000", "port"),
        ("metrics.host=::", "host"),
        ("networkPolicy.arvadosCIDRs={192.0.2.1}", "arvadosCIDRs"),
    ],
)
def test_a_wrong_value_is_refused_and_named(either_helm: Helm, wrong: str, told: str) -> None:
    """By the schema, before anything is made."""
    said = either_helm.refusal("minimal", wrong)
    assert told in said
    assert "schema" in said


@pytest.mark.parametrize(
    ("example", "sets", "told"),
    [
        ("minimal", "arvados.clusterID=", "arvados.clusterID: set it"),
        ("minimal", "arvados.apiHost=", "arvados.apiHost: set it"),
        ("minimal", "postgresql.existingSecret=", "postgresql.existingSecret: name the Secret"),
        ("external-nats", "natsClient.url=", "natsClient.url: set it"),
        ("gateway", "wsproxy.ingress.enabled=true", "not both"),
        ("gateway", "wsproxy.httpRoute.parentRefs=null", "name the gateway"),
        ("gateway", "wsproxy.externalURL=", "wsproxy.externalURL: ingress and httpRoute"),
        ("hpa", "wsproxy.resources.requests.cpu=null", "autoscaling by CPU needs it"),
        ("minimal", "metrics.serviceMonitor.enabled=true", "set arvados.existingSecret"),
        ("minimal", "nats.config.cluster.replicas=2", "need as many NATS servers"),
        ("minimal", "nats.config.cluster.enabled=false", "need as many NATS servers"),
        ("hpa", "wsproxy.autoscaling.minReplicas=11", "minReplicas 11 is more than maxReplicas 10"),
        ("minimal", "wsproxy.resources.limits.memory=300Mi", "less than wsproxy.settings.queueB"),
        ("minimal", "wsproxy.settings.queueBudget=805306368", "768Mi is less than wsproxy.settin"),
        ("minimal", "publishers.resources.requests.memory=1Gi", "more than the limit of 512Mi"),
        ("minimal", "metrics.port=8000", "where wsproxy has its sockets"),
        ("minimal", "nats.config.jetstream.fileStore.maxSize=30Gi", "more than the volume of 24Gi"),
        ("minimal", "nats.config.jetstream.fileStore.maxSize=8Gi", "do not fit nats.config.jetst"),
        ("minimal", "publishers.settings.logsMaxBytes=17179869184", "max_file, << 54GB >>"),
        ("minimal", "nats.container.env.GOMEMLIMIT=3GiB", "leaves nothing of the memory limit"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_do(
    either_helm: Helm, example: str, sets: str, told: str
) -> None:
    """Combinations that a schema cannot know."""
    assert told in either_helm.refusal(example, sets)


def test_the_policy_lets_out_to_where_nats_is(helm: Helm) -> None:
    """One home for the port: the addresses of the servers."""
    servers = "natsClient.url=nats://a:5222\\,nats://b:5223\\,nats://c"
    found = helm.template("external-nats", "networkPolicy.enabled=true", servers)
    names = {f"r-arvados-nats-{component}" for component in COMPONENTS}
    policies = [one for one in found.objects if one["kind"] == "NetworkPolicy"]
    ours = [policy for policy in policies if policy["metadata"]["name"] in names]
    assert len(ours) == len(names)
    for policy in ours:
        ports = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
        assert {5222, 5223, 4222} <= ports


def test_sizes_are_those_of_the_services(helm: Helm) -> None:
    """What the chart reckons with where a site says nothing: its templates hold it once more."""
    text = (CHART / "templates" / "_validate.tpl").read_text()
    for name, settings in (
        ("queueBudget", ProxySettings.model_fields["queue_budget"]),
        *((n, PublisherSettings.model_fields[f"{f}_max_bytes"]) for n, f in STREAMS.items()),
    ):
        assert re.search(rf'"{name}"[ |a-z]* {settings.default}\b', text), name


def test_global_values_of_others_are_borne(either_helm: Helm) -> None:
    """A parent chart may put there what it likes."""
    assert either_helm.template("minimal", "global.foo=1").objects


def test_no_value_is_made_for_a_secret() -> None:
    """Tokens, passwords and seeds are named by their Secret, so none can land in a release; the
    password of routes is a variable, made of the Secret."""
    secretive = re.compile("password|passphrase|seed|token|dsn|private", re.IGNORECASE)
    text = (CHART / "values.yaml").read_text()
    text = text.replace("password: << $CLUSTER_PASSWORD >>", "")
    text = text.replace("CLUSTER_PASSWORD: {valueFrom: {secretKeyRef: ", "")
    names = set(re.findall(r"(\w+):(?!/)", re.sub("#.*", "", text)))
    assert {name for name in names if secretive.search(name)} == {
        "logToken",
        "managementToken",
        "automountServiceAccountToken",
    }
    assert VALUES["arvados"]["keys"] == {
        "logToken": "SystemRootToken",
        "managementToken": "ManagementToken",
    }


def test_the_readme_says_what_the_values_say() -> None:
    """Run `python tools/make_chart.py` after changing values.yaml."""
    maker = runpy.run_path(str(ROOT / "tools" / "make_chart.py"))
    assert (CHART / "README.md").read_text(encoding="utf-8") == maker["page"]()


def test_every_value_of_ours_has_a_meaning() -> None:
    """A row in the README for each leaf of values.yaml, but those of the nats chart."""
    maker = runpy.run_path(str(ROOT / "tools" / "make_chart.py"))
    told = {key for key, _ in maker["rows"]()}

    def leaves(values: dict[str, Any], path: str) -> Iterator[str]:
        for key, value in values.items():
            if f"{path}{key}" in told:
                continue
            if isinstance(value, dict) and value:
                yield from leaves(value, f"{path}{key}.")
            else:
                yield f"{path}{key}"

    ours = {key: value for key, value in VALUES.items() if key != "nats"}
    assert list(leaves(ours, "")) == []


def test_versions_agree() -> None:
    """The chart runs the image of this very release."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert chart["appVersion"] == version[1]
    assert f"### {chart['version']}\n" in (CHART / "UPGRADING.md").read_text()


def test_the_lock_is_of_these_dependencies() -> None:
    """By Helm's own digest, or `helm dependency build` refuses it."""
    wanted = yaml.safe_load((CHART / "Chart.yaml").read_text())["dependencies"]
    lock = yaml.safe_load((CHART / "Chart.lock").read_text())
    order = ("name", "version", "repository", "condition")
    both = [
        [{key: found[key] for key in order if key in found} for found in part]
        for part in (wanted, lock["dependencies"])
    ]
    text = json.dumps(both, separators=(",", ":")).encode()
    assert lock["digest"] == f"sha256:{hashlib.sha256(text).hexdigest()}"


def test_each_example_says_what_it_shows() -> None:
    """One sentence after the licence."""
    for example in EXAMPLES:
        text = (CHART / "ci" / f"{example}-values.yaml").read_text()
        assert re.match(r"# Copyright.*\n#\n# SPDX.*\n# [A-Z].*\.\n", text), example
